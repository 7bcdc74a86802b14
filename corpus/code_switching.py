"""Code-switching, after M3P (arXiv 2006.02635): English texts in which some words are written in other languages.

M3P replaces words of English captions by dictionary translations, so that the words of all languages meet in one
context, beside the image. In distillation the code-switched text is one more translation of its row. The English text
itself stays as it is: the teacher must read plain English to give the target, and the student must keep the vector of
just that text. The student then learns to give "ein Hund on the beach" the vector that the teacher gives to "a dog on
the beach".
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvlm2vec.common.languages import comparable_code, normal_code

from .csv_reader import CsvTable
from .rows import ENGLISH

MIXED = "mul"
"""ISO 639-2 for a text in several languages: how code-switched texts are labelled among the translations."""

Words = tuple[str, ...]
_EDGES = "\"'“”‘’«»„()[]{}.,;:!?…¿¡،؛؟、。"


class LexiconError(ValueError):
    """A lexicon cannot be used: the message says where and why."""


@dataclass(frozen=True)
class Lexicon:
    """English words and phrases with their translations.

    Attributes:
        entries: One or more translations of case-folded English words, by language and words.
    """

    entries: Mapping[str, Mapping[Words, tuple[str, ...]]]

    @property
    def longest(self) -> int:
        """Words of the longest English phrase."""
        return max(len(words) for entries in self.entries.values() for words in entries)

    def find(self, words: Words, languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The translations of some words, by language; only languages that have one."""
        translations = {code: self._language(code).get(words) for code in languages}
        return {code: texts for code, texts in translations.items() if texts}

    def has(self, code: str) -> bool:
        """Whether there are words in a language."""
        return bool(self._language(code))

    def _language(self, code: str) -> Mapping[Words, tuple[str, ...]]:
        """The entries of a language, however its code is spelled."""
        if code in self.entries:
            return self.entries[code]
        key = comparable_code(code)
        return next((entries for name, entries in self.entries.items() if comparable_code(name) == key), {})


def read_lexicon(path: str | Path) -> Lexicon:
    """Reads a CSV with a column per language, `en,de,fr`, and an entry per line.

    An English entry may be a phrase, may stand on several lines with several translations, and cells may be empty.

    Raises:
        FileNotFoundError: There is no such file.
        LexiconError: It is no UTF-8, its header names no English or nothing else, or it has no entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no lexicon {path}")
    entries: dict[str, dict[Words, tuple[str, ...]]] = {}
    try:
        table = CsvTable(path, (ENGLISH,), rename=normal_code)
        if len(table.columns) < 2:
            raise table.fault("there is no language beside English; the header must name languages, like en,de,fr")
        for record in table:
            if record.excess:
                cells = len(table.columns) + record.excess
                raise LexiconError(f"{path}, line {record.line}: {cells} cells under {len(table.columns)} languages.")
            words = _fold(record.cells[ENGLISH].split())
            for code, text in ((code, cell.strip()) for code, cell in record.cells.items()):
                earlier = entries.setdefault(code, {}).get(words, ())
                if code != ENGLISH and words and text and text not in earlier:
                    entries[code][words] = (*earlier, text)
    except ValueError as error:
        raise LexiconError(str(error)) from error
    lexicon = Lexicon({code: texts for code, texts in entries.items() if texts})
    if not lexicon.entries:
        raise LexiconError(f"{path} has no English entry with a translation.")
    return lexicon


class CodeSwitcher:
    """Adds a code-switched text to rows of a parallel corpus.

    Each English word (or phrase of the lexicon, the longest that fits) is replaced with the given probability; the
    language of each is drawn from those of the row's translations, so that no language is taught that the row does not
    have. Its translation comes from the row's own alignment, where the translation has an entry `alignment` (pairs of
    word numbers as word aligners write them, `"0-0 1-2"`, words being parted by spaces), else from the lexicon. A row
    in which nothing is replaced stays as it is.

    What is drawn depends on the seed, the epoch, and the row's id and text alone: a resumed run draws the same.

    For `datasets`: `corpus.with_transform(switcher)`, or `stream.map(switcher, batched=True)` for a stream.

    Args:
        probability: With which each word is replaced, in (0, 1].
        lexicon: Translations of words; only alignments if `None`.
        seed: Decides which words are replaced.

    Attributes:
        epoch: Another epoch draws other words.

    Raises:
        ValueError: The probability is not in (0, 1].
    """

    def __init__(self, probability: float, lexicon: Lexicon | None = None, seed: int = 0) -> None:
        if not 0 < probability <= 1:
            raise ValueError(f"the probability of code-switching must be above 0 and at most 1, not {probability}.")
        self.probability, self.lexicon, self.seed = probability, lexicon, seed
        self.epoch = 0

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Rows by column, as `datasets` hands them over."""
        columns = {name: list(values) for name, values in rows.items()}
        if "translations" in columns:
            ids, texts = columns["id"], columns["text_en"]
            columns["translations"] = [
                self.switch(*row) for row in zip(ids, texts, columns["translations"], strict=True)
            ]
        return columns

    def switch(self, row_id: str, english: str, translations: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """The translations of a row as `lang` and `text`, followed by a code-switched text if there is one."""
        plain = [{"lang": item["lang"], "text": item["text"]} for item in translations]
        if any(item["lang"] == MIXED for item in plain):
            return plain
        draw = random.Random(f"{self.seed}:{self.epoch}:{row_id}:{english}")
        words, others = english.split(), [item for item in translations if item["lang"] != ENGLISH]
        aligned = [(item["lang"], _aligned(words, item)) for item in others]
        mixed: list[str] = []
        place = 0
        while place < len(words):
            length, choices = self._replacements(words, place, aligned)
            if choices and draw.random() < self.probability:
                texts = choices[draw.choice(sorted(choices))]
                mixed.append(_replace(words[place : place + length], draw.choice(texts)))
            else:
                mixed += words[place : place + length]
            place += length
        text = " ".join(mixed)
        return [*plain, {"lang": MIXED, "text": text}] if mixed != words else plain

    def _replacements(
        self, words: Sequence[str], place: int, aligned: Sequence[tuple[str, Mapping[int, str]]]
    ) -> tuple[int, dict[str, tuple[str, ...]]]:
        """How many words are replaced together, and by what, by language."""
        from_row: dict[str, tuple[str, ...]] = {code: (pairs[place],) for code, pairs in aligned if place in pairs}
        languages = [code for code, _ in aligned]
        longest = self.lexicon.longest if self.lexicon is not None else 0
        for length in range(min(longest, len(words) - place), 0, -1):
            entries = self.lexicon.find(_fold(words[place : place + length]), languages) if self.lexicon else {}
            if entries:
                return length, entries | (from_row if length == 1 else {})
        return 1, from_row


def folded_words(text: str) -> Words:
    """The words of a text as a lexicon has them: in small letters, without punctuation around them."""
    return _fold(text.split())


def _fold(words: Sequence[str]) -> Words:
    return tuple(word.strip(_EDGES).casefold() for word in words)


def _replace(words: Sequence[str], text: str) -> str:
    """A translation with the punctuation that stood before and after the words."""
    first, last = words[0], words[-1]
    before = first[: len(first) - len(first.lstrip(_EDGES))]
    after = last[len(last.rstrip(_EDGES)) :]
    return f"{before}{text}{after}"


def _aligned(words: Sequence[str], item: Mapping[str, str]) -> dict[int, str]:
    """By number of an English word the words that translate it; without words that translate several English ones."""
    translated = item["text"].split()
    pairs = [tuple(pair.split("-")) for pair in (item.get("alignment") or "").split()]
    try:
        numbers = sorted({(int(source), int(target)) for source, target in pairs})
        uses = Counter(target for _, target in numbers)
        words_of: dict[int, list[str]] = {}
        for source, target in numbers:
            _ = words[source]  # raises for a number that no word has
            if uses[target] == 1:
                words_of.setdefault(source, []).append(translated[target].strip(_EDGES))
            else:
                words_of.setdefault(source, [""])
    except (ValueError, IndexError):
        raise ValueError(
            f"the alignment {item['alignment']!r} does not fit {' '.join(words)!r} and {item['text']!r}: it must be "
            'pairs of word numbers, counted from 0, like "0-0 1-2".'
        ) from None
    return {number: " ".join(texts) for number, texts in words_of.items() if all(texts)}
