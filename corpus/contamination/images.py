"""Images of a corpus that are those of a benchmark: equal, compressed anew, resized, mirrored or cropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .hashes import WHOLE, View, hashes, likeness, shrunk, views

_BLOCK = 1 << 17
"""Pairs of hashes that are compared at once."""
_MOST_BITS = 14
"""Bits in which the hashes of one image may differ; pixels decide."""
_LEAST_LIKENESS = 0.9
_NUDGES = (-0.075, -0.0375, 0.0, 0.0375, 0.075)
"""By how much a part is moved and scaled until it fits a crop, which lies between the parts of the grid."""

Squares = npt.NDArray[np.uint8]
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Numbers of images of the corpus, and of those of the benchmark beside each."""


@dataclass(frozen=True)
class ImageMatch:
    """An image that two sets share.

    Attributes:
        first: Its number in the corpus.
        second: Its number in the benchmark.
        how: What one is of the other.
        likeness: Correlation of their greys.
    """

    first: int
    second: int
    how: str
    likeness: float


class Hashed:
    """Squares of greys with the hashes of their parts, which are made when they are first asked for.

    Args:
        squares: Squares of greys (`hashes.greys`), `(N, SIDE, SIDE)`; may be mapped from a file.
    """

    def __init__(self, squares: Squares) -> None:
        self.squares = squares
        self._hashes: dict[View, npt.NDArray[np.uint64]] = {}

    def hashes(self, view: View) -> npt.NDArray[np.uint64]:
        """The hashes of a part of all squares."""
        if view not in self._hashes:
            self._hashes[view] = _all_hashes(self.squares, view)
        return self._hashes[view]


def match_images(corpus: Squares, benchmark: Squares | Hashed) -> list[ImageMatch]:
    """The images of a corpus that are in a benchmark, each with the one that it is most like.

    Args:
        corpus: Squares of greys, `(N, SIDE, SIDE)`; all or some, as each is compared for itself.
        benchmark: The same of the benchmark; with its hashes, if it is compared more than once.
    """
    best: dict[int, ImageMatch] = {}
    others = benchmark if isinstance(benchmark, Hashed) else Hashed(benchmark)
    whole = _all_hashes(corpus, WHOLE)
    for view in (*views(is_dense=True), *views(is_dense=False, mirrored=True)):
        pairs = _close_pairs(whole, others.hashes(view))
        _keep_best(best, corpus, others.squares, pairs, WHOLE, view)
    for view in views(is_dense=False)[1:]:  # the other way round: the benchmark shows a part of the corpus's image
        pairs = _close_pairs(_all_hashes(corpus, view), others.hashes(WHOLE))
        _keep_best(best, corpus, others.squares, pairs, view, WHOLE)
    return sorted(best.values(), key=lambda match: match.first)


def _keep_best(
    best: dict[int, ImageMatch], corpus: Squares, benchmark: Squares, pairs: Pairs, first_view: View, second_view: View
) -> None:
    """Adds pairs whose pixels are alike; of an image that has a match already, none."""
    new = np.array([place not in best for place in pairs[0].tolist()], bool)
    first, second = (places[new] for places in pairs)
    for start in range(0, len(first), 1024):
        ones, twos = first[start : start + 1024], second[start : start + 1024]
        found, exact = _alike(corpus, benchmark, ones, twos, first_view, second_view)
        for one, two, value, whole in zip(ones.tolist(), twos.tolist(), found.tolist(), exact, strict=True):
            if value >= _LEAST_LIKENESS and (one not in best or best[one].likeness < value):
                best[one] = ImageMatch(one, two, _how(first_view, second_view, whole), round(value, 4))


def _all_hashes(squares: Squares, view: View) -> npt.NDArray[np.uint64]:
    parts = [hashes(squares[start : start + 1024], view) for start in range(0, len(squares), 1024)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _close_pairs(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> Pairs:
    """Pairs of hashes that differ in few bits; plain images (0) are in none."""
    ones, twos = np.flatnonzero(first), np.flatnonzero(second)
    found: list[Pairs] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    if len(ones) and len(twos):
        near = _Near(second[twos])
        for start in range(0, len(ones), near.rows):
            block = ones[start : start + near.rows]
            rows, columns = near.pairs(first[block])
            found.append((block[rows], twos[columns]))
    return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])


class _Near:
    """Compares hashes with many others, block by block, in the same memory: new arrays would take most of the time.

    Args:
        others: The others, `(M,)`.
    """

    def __init__(self, others: npt.NDArray[np.uint64]) -> None:
        self.others, self.rows = others, max(1, _BLOCK // len(others))
        size = self.rows * len(others)
        self._differ = np.empty(size, np.uint64)
        self._bits = np.empty(size, np.uint8)
        self._close = np.zeros(-(-size // 8) * 8, bool)  # eight of them are one number below

    def pairs(self, hashes: npt.NDArray[np.uint64]) -> Pairs:
        """Places of hashes, at most `rows` of them, and of others that differ in few bits."""
        size, shape = len(hashes) * len(self.others), (len(hashes), len(self.others))
        np.bitwise_xor(hashes[:, None], self.others[None], out=self._differ[:size].reshape(shape))
        np.bitwise_count(self._differ[:size], out=self._bits[:size])
        np.less_equal(self._bits[:size], _MOST_BITS, out=self._close[:size])
        self._close[size:] = False
        eights = np.flatnonzero(self._close.view(np.uint64))  # nearly all are zero
        places = (8 * eights[:, None] + np.arange(8)).ravel()
        return np.divmod(places[self._close[places]], len(self.others))


def _alike(
    corpus: Squares,
    benchmark: Squares,
    ones: npt.NDArray[np.int64],
    twos: npt.NDArray[np.int64],
    first_view: View,
    second_view: View,
) -> tuple[npt.NDArray[np.float32], Sequence[bool]]:
    """How alike pairs are at their best, and whether all pixels of the squares are the same."""
    left, right = corpus[ones], benchmark[twos]
    exact = (left == right).all((1, 2)).tolist()
    found = likeness(shrunk(left, first_view), shrunk(right, second_view))
    is_part = first_view.width < 1 or second_view.width < 1
    doubtful = np.flatnonzero((found < _LEAST_LIKENESS) & (found > 0.5)) if is_part else np.zeros(0, np.int64)
    if len(doubtful):
        found[doubtful] = _fitted(left[doubtful], right[doubtful], first_view, second_view)
    return found, exact


def _fitted(left: Squares, right: Squares, first_view: View, second_view: View) -> npt.NDArray[np.float32]:
    """The best likeness while the part is moved and scaled a little."""
    whole, source, part = (
        (shrunk(left, first_view), right, second_view)
        if second_view.width < 1
        else (shrunk(right, second_view), left, first_view)
    )
    found = np.full(len(left), -1, np.float32)
    for grown in _NUDGES:
        for right_by in _NUDGES:
            for down_by in _NUDGES:
                size = min(1.0, part.width + grown)
                moved = View(
                    float(np.clip(part.left + right_by - grown / 2, 0, 1 - size)),
                    float(np.clip(part.top + down_by - grown / 2, 0, 1 - size)),
                    size, size, part.mirrored,
                )  # fmt: skip
                found = np.maximum(found, likeness(whole, shrunk(source, moved)))
    return found


def _how(first_view: View, second_view: View, exact: bool) -> str:
    if exact:
        return "the same image"
    if first_view != WHOLE:
        return "the benchmark has a part of it"
    if second_view.width < 1:
        return f"a part of the benchmark's image{', mirrored' if second_view.mirrored else ''}"
    return "mirrored" if second_view.mirrored else "the same image in other pixels"
