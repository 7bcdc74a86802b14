"""Translations that go round in circles, as translation models do when they fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from .batch import Batch, Column
from .rule import Finding, shown

_LONGEST_UNIT = 32
_LEAST_RUN = 8
_LEAST_WORDS = 14
_MOST_REPEATED = 0.4


def repeated_parts(batch: Batch) -> Iterator[Finding]:
    """A part that stands four times in a row (three times from six characters on), or three words again and again."""
    faults = circling(batch.text)
    if faults:
        sources = Column([batch.english.texts[row] for row in sorted(faults)])
        faults -= {sorted(faults)[place] for place in circling(sources, may_be_short=True)}
    for row in sorted(faults):
        yield Finding(row, f"it repeats itself: {shown(batch.text.texts[row])}")
    for row in (batch.text.lengths >= 3 * _LEAST_WORDS).nonzero()[0].tolist():
        text = batch.text.texts[row]
        if row in faults or text.count(" ") < _LEAST_WORDS or _share_repeated(text) < _MOST_REPEATED:
            continue
        if _share_repeated(batch.english.texts[row]) < _MOST_REPEATED / 2:
            yield Finding(row, f"the same words again and again: {shown(text)}")


def circling(column: Column, may_be_short: bool = False) -> set[int]:
    """The texts in which a part stands several times in a row.

    Args:
        column: The texts.
        may_be_short: Whether three times are enough for a short part, too, as in "Tap. Tap. Tap."
    """
    points = column.points.copy()
    # No text goes on in the next one.
    points[0], points[column.ends - 1] = 0x110000, 0x110001 + np.arange(len(column.texts), dtype=np.uint32)
    found: set[int] = set()
    for unit in range(1, min(_LONGEST_UNIT, int(column.lengths.max(initial=0))) + 1):
        same = np.flatnonzero(points[unit:] == points[:-unit])
        if not len(same):
            continue
        firsts = np.flatnonzero(np.concatenate(([True], same[1:] != same[:-1] + 1)))
        runs = np.diff(np.append(firsts, len(same)))
        repeats = 2 if unit >= 6 or (may_be_short and unit > 1) else 3
        long = runs >= max(repeats * unit, _LEAST_RUN - unit)
        for start in same[firsts[long]].tolist():
            part = column.joined[start : start + unit]
            if any(map(str.isalpha, part)):
                found.update(column.row_at([start]))
    return found


def _share_repeated(text: str) -> float:
    """The share of runs of three words that stand in a text before."""
    words = text.casefold().split()
    threes = Counter(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(threes) / max(1, threes.total())
