"""Whether English texts and translations belong together, by their lengths: long ones have long translations."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from .batch import Batch

WINDOW, STEP = 64, 32
_SHIFTS = 4
_LEAST_SPREAD = 0.25
"""Spread of the logarithms of English lengths below which nothing can be said."""
_UNRELATED, _RELATED = 0.2, 0.6
_BINS = np.linspace(-4, 4, 401)

Lengths = npt.NDArray[np.float64]


class Windows:
    """Stretches of rows of one language, judged as they come.

    Attributes:
        rows: Rows seen.
        unpaired: Rows of stretches whose sides have nothing to do with each other, each with a note.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.unpaired: dict[int, str] = {}
        self._waiting: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        self._ratios: defaultdict[str, npt.NDArray[np.int64]] = defaultdict(lambda: np.zeros(len(_BINS) - 1, np.int64))

    def add(self, batch: Batch) -> None:
        """Takes rows, in their order."""
        self.rows += len(batch)
        english, text = batch.english.lengths, batch.text.lengths
        for row in ((english > 0) & (text > 0)).nonzero()[0].tolist():
            waiting = self._waiting[batch.codes[row]]
            waiting.append((batch.numbers[row], int(english[row]), int(text[row])))
            if len(waiting) == WINDOW:
                self._judge(batch.codes[row], waiting)
                del waiting[:STEP]

    def ratios(self, least: int) -> dict[str, float]:
        """The median of characters of a translation for each one of English, by language with rows enough.

        Rows in several stretches count several times, which changes no median of many rows.
        """
        medians = {}
        for code, counts in self._ratios.items():
            if counts.sum() >= least:
                middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
                medians[code] = float(np.exp((_BINS[middle] + _BINS[middle + 1]) / 2))
        return medians

    def _judge(self, code: str, rows: list[tuple[int, int, int]]) -> None:
        lengths = np.log(np.array([row[1:] for row in rows], np.float64))
        self._ratios[code] += np.histogram(lengths[:, 1] - lengths[:, 0], _BINS)[0]
        note = unpaired_note(lengths[:, 0], lengths[:, 1])
        if note:
            self.unpaired.update(dict.fromkeys((row[0] for row in rows), note))


def unpaired_note(english: Lengths, text: Lengths) -> str:
    """Says that lengths of two sides have nothing to do with each other; an empty string if that is not sure."""
    if english.std() < _LEAST_SPREAD or text.std() < _LEAST_SPREAD / 4 or correlation(english, text) > _UNRELATED:
        return ""
    note = f"among {len(english)} rows of this language, long English texts have no longer translations"
    for shift in (shift for size in range(1, _SHIFTS + 1) for shift in (size, -size)):
        there, here = (english[:-shift], text[shift:]) if shift > 0 else (english[-shift:], text[:shift])
        if correlation(there, here) > _RELATED:
            where = "later" if shift > 0 else "earlier"
            return f"{note}; the translations seem to stand {abs(shift)} rows {where}"
    return note


def correlation(first: Lengths, second: Lengths) -> float:
    """Spearman's correlation, which a few texts of odd lengths do not change."""
    if not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
