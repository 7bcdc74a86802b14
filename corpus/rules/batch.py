"""Many rows at once: texts side by side in one string, so that a regular expression passes all of them in one go."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .scripts import SCRIPTS, script_numbers

SEPARATOR = "\0"
"""Stands behind each text. It is no blank, letter or digit, so that patterns end there if they name what they take."""
START = r"(?<=\0)"
"""Beginning of a text within a column, for patterns."""

_LEAST_WORDS_OF_INSTRUCTION = 3
# Digits of all scripts; none stands behind these code points.
_DECIMAL = np.array([chr(point).isdecimal() for point in range(0x1FC00)])


class Column:
    """Texts of one side of a batch: the English ones, or the translations.

    Args:
        texts: The texts.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    @cached_property
    def joined(self) -> str:
        """All texts, with the separator before and behind each."""
        joined = SEPARATOR.join(("", *self.texts, ""))
        if joined.count(SEPARATOR) > len(self.texts) + 1:  # a text holds one
            joined = SEPARATOR.join(("", *(text.replace(SEPARATOR, "\ufffd") for text in self.texts), ""))
        return joined

    @cached_property
    def folded(self) -> Column:
        """The texts in small letters."""
        return Column([text.casefold() for text in self.texts])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each text."""
        return np.fromiter(map(len, self.texts), np.int64, len(self.texts))

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each text ends in `joined`, behind its separator."""
        return np.cumsum(self.lengths + 1) + 1

    @cached_property
    def points(self) -> npt.NDArray[np.uint32]:
        """Code points of `joined`."""
        return np.frombuffer(self.joined.encode("utf-32-le", "surrogatepass"), np.uint32)

    @cached_property
    def scripts(self) -> npt.NDArray[np.int64]:
        """Letters of each text in each of `SCRIPTS`."""
        numbers = script_numbers(self.points)
        rows = np.concatenate(([0], np.repeat(np.arange(len(self.texts)), self.lengths + 1)))
        counts = np.bincount(rows * (len(SCRIPTS) + 1) + numbers, minlength=len(self.texts) * (len(SCRIPTS) + 1))
        return counts[: len(self.texts) * (len(SCRIPTS) + 1)].reshape(-1, len(SCRIPTS) + 1)[:, 1:]

    @cached_property
    def letters(self) -> npt.NDArray[np.int64]:
        """Letters of each text."""
        return self.scripts.sum(1)

    def row_at(self, places: Sequence[int] | npt.NDArray[np.int64]) -> list[int]:
        """The texts in which places of `joined` lie."""
        return np.searchsorted(self.ends, np.asarray(places, np.int64), side="right").tolist()

    def rows_with(self, pattern: re.Pattern[str]) -> list[int]:
        """The texts in which a pattern occurs, in their order."""
        return list(dict.fromkeys(self.row_at([match.start() for match in pattern.finditer(self.joined)])))

    def rows_with_any(self, *parts: str) -> list[int]:
        """The texts in which one of some strings occurs, in their order: far faster than a pattern that names them.

        Args:
            parts: The strings; a separator at one's beginning or end is the beginning or end of a text.
        """
        places: list[int] = []
        for part in parts:
            place = self.joined.find(part)
            while place >= 0:
                row = self.row_at([place + part.startswith(SEPARATOR)])[0]
                places.append(row)
                place = self.joined.find(part, int(self.ends[row]) - 1)
        return sorted(set(places))

    @cached_property
    def rows_with_digits(self) -> list[int]:
        """The texts that hold digits of any script, in their order."""
        places = np.flatnonzero(_DECIMAL[np.minimum(self.points, len(_DECIMAL) - 1)])
        return list(dict.fromkeys(self.row_at(places))) if len(places) else []


def _shared_instruction(source: str, text: str) -> int:
    """Characters of an instruction with which a text and its translation begin."""
    pairs = enumerate(zip(source, text, strict=False))
    shared = source[: next((place for place, (one, other) in pairs if one != other), min(len(source), len(text)))]
    length = max(shared.rfind(end) + len(end) if end in shared else 0 for end in (": ", "\n"))
    return length if len(shared[:length].split()) >= _LEAST_WORDS_OF_INSTRUCTION else 0


@dataclass
class Batch:
    """Rows of a corpus, each an English text and one translation.

    Attributes:
        english: The English texts.
        text: The translations.
        codes: Their languages' codes in normal form; what cannot be a code stays as it is.
        given: The codes as they were given.
        images: What names or holds each row's image; None where there is none.
        numbers: Each row's number within the whole corpus, for what only the whole corpus tells.
        places: Where each stands: rows of one place have the same English text and image.
    """

    english: Column
    text: Column
    codes: list[str]
    given: list[str] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.given = self.given or self.codes
        self.images = self.images or [None] * len(self)
        self.numbers = self.numbers or list(range(len(self)))
        self.places = self.places or self.numbers
        self.bases = [code.split("-")[0] for code in self.codes]

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str, str]]) -> Batch:
        """A batch of rows (English text, translation, code of its language)."""
        english, texts, codes = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(Column(english), Column(texts), list(codes))

    def __len__(self) -> int:
        return len(self.codes)

    def replace(self, english: dict[int, str], text: dict[int, str]) -> None:
        """Puts texts in the places of others."""
        for side, changes in (("english", english), ("text", text)):
            if changes:
                texts = list(getattr(self, side).texts)
                for row, changed in changes.items():
                    texts[row] = changed
                setattr(self, side, Column(texts))

    def without_instructions(self) -> tuple[Column, Column]:
        """The English texts and the translations without instructions that are in English in both.

        An instruction is what both begin with, up to the last colon or line break in it.
        """
        english, texts = list(self.english.texts), list(self.text.texts)
        for row, (source, text) in enumerate(zip(english, texts, strict=True)):
            length = _shared_instruction(source, text)
            english[row], texts[row] = source[length:], text[length:]
        same = texts == self.text.texts
        return (self.english, self.text) if same else (Column(english), Column(texts))

    def sides(self) -> Iterator[tuple[str, Column]]:
        """Both columns, with their names in `Finding`."""
        yield "english", self.english
        yield "text", self.text
