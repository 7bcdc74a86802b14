"""How a pair compares with shuffled ones: the same translation beside the English texts of other rows.

A cosine means one thing in German and another in Thai. The margin of a pair is its cosine less the mean of the four
most similar shuffled pairs of its translation (as in arXiv 1811.01136), and the share of shuffled pairs of a language
whose margins are as large is a figure that means the same in every language: of wrong translations, 5% are below 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

OTHERS = 4_096
"""English texts that are kept for shuffled pairs, those that came last."""
NEIGHBOURS = 4
_BLOCK = 512
_BINS = 4_000
_WIDEST = 2.0
"""A margin lies between this and its negative."""


@dataclass(frozen=True)
class Compared:
    """Pairs beside shuffled ones.

    Attributes:
        cosines: Of each pair.
        margins: Its cosine above those of its most similar shuffled pairs; NaN without two other texts.
        shuffled: Mean cosine of the shuffled pairs of each.
        counts: Shuffled pairs by their margin, in `_BINS` steps.
    """

    cosines: Floats
    margins: Floats
    shuffled: Floats
    counts: Counts


class EnglishTexts:
    """The English texts that came last, each once, with their unit vectors."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._vectors: Vectors = np.zeros((0, 0), np.float32)

    def add(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Adds texts; the oldest ones go where there are too many, never one of these.

        Args:
            texts: Different texts.
            vectors: Their unit vectors.
        """
        old = [place for text, place in self._places.items() if text not in set(texts)]
        old = old[max(0, len(old) + len(texts) - max(OTHERS, len(texts))) :]
        names = list(self._places)
        held = self._vectors[old] if old else np.zeros((0, vectors.shape[1]), np.float32)
        self._vectors = np.concatenate([held, vectors])
        self._places = {text: place for place, text in enumerate([*(names[place] for place in old), *texts])}

    def compare(self, english: Sequence[str], vectors: Vectors) -> Compared:
        """Compares pairs with their shuffled ones.

        Args:
            english: English text of each pair, which is among the last ones.
            vectors: Unit vector of each translation.
        """
        places = np.array([self._places[text] for text in english], np.int64)
        parts = [self._block(places[start : start + _BLOCK], vectors[start : start + _BLOCK])
                 for start in range(0, len(places), _BLOCK)]  # fmt: skip
        cosines, margins, shuffled = (np.concatenate(columns) for columns in list(zip(*parts, strict=True))[:3])
        return Compared(cosines, margins, shuffled, np.sum([part[3] for part in parts], axis=0))

    def _block(self, places: npt.NDArray[np.int64], vectors: Vectors) -> tuple[Floats, Floats, Floats, Counts]:
        cosines = (vectors @ self._vectors.T).astype(np.float64)
        rows, others = np.arange(len(places)), len(self._places) - 1
        own = cosines[rows, places]
        if others < 2:
            nothing = np.full(len(own), np.nan)
            return own, nothing, nothing, np.zeros(_BINS, np.int64)
        shuffled = (cosines.sum(1) - own) / others
        cosines[rows, places] = -np.inf
        near = min(NEIGHBOURS, others - 1)
        first = -np.sort(np.partition(-cosines, near, axis=1)[:, : near + 1], axis=1)  # the nearest, and one more
        mean = first[:, :near].mean(1)
        # A shuffled pair that is among the nearest is compared with the others of these and the next one.
        without = (first.sum(1, keepdims=True) - cosines) / near
        margins = cosines - np.where(cosines >= first[:, near - 1 : near], without, mean[:, None])
        return own, own - mean, shuffled, np.bincount(_bins(margins[np.isfinite(margins)]), minlength=_BINS)


def share_table(counts: Counts) -> Floats:
    """For each step of `counts` the share of shuffled pairs whose margins are as large."""
    total = max(1, int(counts.sum()))  # without any, no pair asks
    return np.asarray((total - np.cumsum(counts) + counts / 2) / total, np.float64)


def share_of(margin: float, table: Floats) -> float:
    """The share of shuffled pairs whose margins are as large as one, out of the table."""
    return float(table[_bins(np.array([margin]))[0]])


def _bins(margins: Floats) -> npt.NDArray[np.int64]:
    return np.clip((margins + _WIDEST) * (_BINS / (2 * _WIDEST)), 0, _BINS - 1).astype(np.int64)
