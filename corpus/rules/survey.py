"""What only a whole corpus tells: repeated ids and rows, one text for many sources, usual lengths, shifted pairs.

A first pass keeps a few numbers of each row in files, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .batch import Batch
from .copies import ENGLISH_WORDS
from .pairing import Windows
from .rule import Action, Finding, Rule

PART = 1 << 21
"""Rows whose numbers are compared at once."""
_LEAST_SOURCES = 3
_SHARED = 4
"""One word in so many may be in all sources of a translation that are unrelated."""
_LEAST_ROWS = 200
_WORD = re.compile(r"[^\W\d_]{3,}")
_COLUMNS = {"place": np.int64, "id": np.int64, "english": np.int64, "text": np.int64, "pair": np.int64,
            "words": np.uint64}  # fmt: skip

Numbers = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]


@dataclass
class Survey:
    """What a first pass finds.

    Attributes:
        unit: What a place is: "line" or "row".
        ratios: Characters of a translation for each one of English, by language, where there are rows enough.
        repeated_ids: Rows whose id an earlier row has, and the place of that row.
        repeated_rows: Rows that an earlier row holds wholly, and its place.
        one_text: Rows whose translation is that of unrelated sources, and the number of these.
        shared_text: The same for short texts, such as names, which may be right.
        unpaired: Rows in stretches where lengths of both sides have nothing to do with each other, and a note.
    """

    unit: str = "line"
    ratios: dict[str, float] = field(default_factory=dict)
    repeated_ids: dict[int, int] = field(default_factory=dict)
    repeated_rows: dict[int, int] = field(default_factory=dict)
    one_text: dict[int, int] = field(default_factory=dict)
    shared_text: dict[int, int] = field(default_factory=dict)
    unpaired: dict[int, str] = field(default_factory=dict)

    def rules(self) -> tuple[Rule, ...]:
        """The rules that judge by it."""
        unit = self.unit
        return (
            Rule("duplicate-id", "ids of earlier rows", _listed(self.repeated_ids, f"its id is that of {unit} {{}}")),
            Rule("one-text", "one translation for many sources",
                 _listed(self.one_text, "{} unrelated English texts have this translation")),
            Rule("shared-text", "one short translation for several sources",
                 _listed(self.shared_text, "{} English texts have this translation"), Action.TELL),
            Rule("duplicate", "rows that are there already",
                 _listed(self.repeated_rows, f"the same as {unit} {{}}"), Action.TELL),
            Rule("pairing", "stretches of rows that do not belong together", _listed(self.unpaired, "{}"),
                 Action.TELL),
        )  # fmt: skip


def _listed(rows: dict[int, int] | dict[int, str], reason: str) -> Callable[[Batch], Iterator[Finding]]:
    def find(batch: Batch) -> Iterator[Finding]:
        if rows:
            for row, number in enumerate(batch.numbers):
                if number in rows:
                    yield Finding(row, reason.format(rows[number]))

    return find


def survey(batches: Iterable[tuple[Batch, Sequence[str], Sequence[int]]], unit: str) -> Survey:
    """Goes through a corpus once.

    Args:
        batches: Its rows, with their ids (empty where there is none) and their places in the file.
        unit: What a place is.
    """
    found, windows = Survey(unit), Windows()
    with tempfile.TemporaryDirectory(prefix="xvlm2vec-check-") as folder:
        files = {name: open(Path(folder) / name, "wb") for name in _COLUMNS}  # noqa: SIM115
        try:
            for batch, ids, places in batches:
                for name, values in _numbers(batch, ids, places).items():
                    values.tofile(files[name])
                windows.add(batch)
        finally:
            for file in files.values():
                file.close()
        if windows.rows:
            columns: Columns = {name: np.memmap(Path(folder) / name, kind, "r") for name, kind in _COLUMNS.items()}
            _repeated_ids(columns, found)
            _repeated_rows(columns, found)
            _shared_texts(columns, found)
            del columns  # Windows does not remove a file that is mapped
    found.ratios = windows.ratios(_LEAST_ROWS)
    found.unpaired = windows.unpaired
    return found


def _numbers(batch: Batch, ids: Sequence[str], places: Sequence[int]) -> dict[str, npt.NDArray[np.generic]]:
    english, texts = batch.english.texts, batch.text.texts
    named = [hash(name) or 1 if name else 0 for name in ids]
    translated = [hash((code, text)) if text else 0 for code, text in zip(batch.codes, texts, strict=True)]
    pairs = [hash(row) for row in zip(english, translated, map(_image_key, batch.images), strict=True)]
    words = [_words(text) for text in english]
    columns = (places, named, [hash(text) for text in english], translated, pairs, words)
    return {name: np.array(column, kind) for (name, kind), column in zip(_COLUMNS.items(), columns, strict=True)}


def _image_key(image: object) -> object:
    """What names an image: its file's name, or the number of the row that holds it."""
    return image if isinstance(image, str | int | None) else id(image)


def _words(text: str) -> int:
    """The words of a text that carry meaning, each as one of 64 bits, by its first letters."""
    bits = 0
    for word in _WORD.findall(text.casefold()):
        if word not in ENGLISH_WORDS:
            bits |= 1 << zlib.crc32(word[:4].encode()) % 64
    return bits


def _groups(keys: npt.NDArray[np.int64], *others: npt.NDArray[np.int64]) -> Iterator[tuple[Numbers, Numbers]]:
    """Rows with the same key beside each other, in parts that fit in memory.

    Yields:
        Rows, sorted by key, by the other columns and by their order; and where each group begins among them.
    """
    parts = -(-len(keys) // PART)
    for part in range(parts):
        chunks = (np.flatnonzero(keys[start : start + PART] % parts == part) + start
                  for start in range(0, len(keys), PART))  # fmt: skip
        rows = np.concatenate(list(chunks))
        rows = rows[keys[rows] != 0]
        rows = rows[np.lexsort((rows, *(column[rows] for column in reversed(others)), keys[rows]))]
        if len(rows):
            yield rows, _starts(keys[rows])


def _starts(values: npt.NDArray[np.int64]) -> Numbers:
    return np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))


def _repeated_ids(columns: Columns, found: Survey) -> None:
    """Rows with the id of an earlier row and another English text, or the same text in the same language again."""
    ids, english, text, place = (columns[name] for name in ("id", "english", "text", "place"))
    for rows, starts in _groups(ids):
        firsts = np.repeat(rows[starts], np.diff(np.append(starts, len(rows))))
        others = (english[rows] != english[firsts]) & (place[rows] != place[firsts])
        found.repeated_ids.update(zip(rows[others].tolist(), place[firsts[others]].tolist(), strict=True))
    for rows, _ in _groups(ids, english, text):
        before, after = rows[:-1], rows[1:]
        again = place[before] != place[after]
        for column in (ids, english, text):
            again &= column[before] == column[after]
        found.repeated_ids.update(zip(after[again].tolist(), place[before[again]].tolist(), strict=True))


def _repeated_rows(columns: Columns, found: Survey) -> None:
    place = columns["place"]
    for rows, starts in _groups(columns["pair"]):
        firsts = np.repeat(rows[starts], np.diff(np.append(starts, len(rows))))
        again = rows != firsts
        found.repeated_rows.update(zip(rows[again].tolist(), place[firsts[again]].tolist(), strict=True))


def _shared_texts(columns: Columns, found: Survey) -> None:
    """Translations of several English texts that have next to no word in common."""
    english, words = columns["english"], columns["words"]
    for rows, starts in _groups(columns["text"], english):
        changes = np.concatenate(([True], english[rows[1:]] != english[rows[:-1]]))
        sources = np.add.reduceat(changes.astype(np.int64), starts)
        shared = np.bitwise_count(np.bitwise_and.reduceat(words[rows], starts)).astype(np.int64)
        fewest = np.minimum.reduceat(np.bitwise_count(words[rows]).astype(np.int64), starts)
        many = (sources >= _LEAST_SOURCES) & (fewest >= 2) & (shared <= fewest // _SHARED)
        unrelated = many | ((sources >= 2) & (shared == 0))
        sizes = np.diff(np.append(starts, len(rows)))
        for group in unrelated.nonzero()[0].tolist():
            rows_of_group = rows[starts[group] : starts[group] + sizes[group]].tolist()
            (found.one_text if many[group] else found.shared_text).update(
                dict.fromkeys(rows_of_group, int(sources[group]))
            )
