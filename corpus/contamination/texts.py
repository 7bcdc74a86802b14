"""Texts of a corpus that are those of a benchmark: the same but for case, blanks and punctuation, or nearly."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xvlm2vec.corpus.texts import content_key

_SHINGLE = 5
_BANDS, _ROWS = 16, 4
_LEAST_JACCARD = 0.8
_LEAST_LENGTH = 20
"""Characters of a text that says more than a name; half of it where a sign is a word."""
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_NO_WORD = re.compile(r"[\W_]+")
_PRIME = np.uint64((1 << 31) - 1)


@dataclass(frozen=True)
class TextMatch:
    """A text that two sets share.

    Attributes:
        text: The text of the benchmark.
        how: "the same text" or "nearly the same text".
        jaccard: Share of their parts of five characters that both texts have.
    """

    text: str
    how: str
    jaccard: float


class TextIndex:
    """The texts of a benchmark by what they say: exactly, and by MinHash (Broder 1997) in bands.

    Args:
        texts: The texts; short ones, which anybody may have written, are left out.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        draw = np.random.default_rng(0)
        self._factors = draw.integers(1, int(_PRIME), _BANDS * _ROWS, dtype=np.uint64)
        self._shifts = draw.integers(0, int(_PRIME), _BANDS * _ROWS, dtype=np.uint64)
        self._exact: dict[str, str] = {}
        for text in texts:
            key = plain(text)
            if is_telling(key):
                self._exact.setdefault(key, text)
        self._keys = list(self._exact)
        self._bands: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
        for number, key in enumerate(self._keys):
            for band in self._bands_of(shingles(key)):
                self._bands[band].append(number)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, text: str) -> TextMatch | None:
        """The benchmark's text that a text is, if any."""
        key = plain(text)
        if not is_telling(key):
            return None
        if key in self._exact:
            return TextMatch(self._exact[key], "the same text", 1.0)
        parts = shingles(key)
        near = {number for band in self._bands_of(parts) for number in self._bands.get(band, ())}
        scored = [(jaccard(parts, shingles(self._keys[number])), self._keys[number]) for number in sorted(near)]
        score, best = max(scored, default=(0.0, ""), key=lambda item: item[0])
        return (
            TextMatch(self._exact[best], "nearly the same text", round(score, 3)) if score >= _LEAST_JACCARD else None
        )

    def _bands_of(self, parts: set[int]) -> Sequence[tuple[int, bytes]]:
        values = np.fromiter(parts, np.uint64, len(parts))
        hashed: npt.NDArray[np.uint64] = (values[:, None] * self._factors + self._shifts) % _PRIME
        least = hashed.min(0).reshape(_BANDS, _ROWS)
        return [(number, band.tobytes()) for number, band in enumerate(least)]


def plain(text: str) -> str:
    """A text without case, punctuation, and what nobody sees."""
    return _NO_WORD.sub(" ", content_key(text)).strip()


def is_telling(key: str) -> bool:
    """Whether a plain text is so long that nobody writes it twice by chance."""
    return len(key) + len(_DENSE.findall(key)) >= _LEAST_LENGTH


def shingles(key: str) -> set[int]:
    """The parts of five characters of a plain text, as numbers of 31 bits."""
    return {zlib.crc32(key[start : start + _SHINGLE].encode()) >> 1 for start in range(max(1, len(key) - _SHINGLE + 1))}


def jaccard(first: set[int], second: set[int]) -> float:
    """Share of the parts that two sets have in common."""
    return len(first & second) / len(first | second)
