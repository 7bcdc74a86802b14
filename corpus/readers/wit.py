"""WIT: captions of Wikipedia's images in a hundred languages, as TSV files in which fields hold line breaks.

A record is a caption on one page; records of one image become a row, if one of them is in English. The captions of an
image were written apart from each other: they speak of the same thing, but are no translations.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from xvlm2vec.common.columns import LANG, TEXT
from xvlm2vec.common.texts import is_blank
from xvlm2vec.corpus.rows import ENGLISH, RowFault

from .lines import decoded, read_lines
from .records import Entries, LeftOut, ReadOptions, Record, files_of, rejected

CAPTION = "caption_reference_description"
"""The caption below the image, in the language of the page; others are the alternative text and the attribution."""
_LANGUAGE, _IMAGE = "language", "image_url"
_LONGEST = 1 << 20
"""Letters of a field: a quotation mark that nothing closes swallows no more."""


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """The records with a caption, brought together by the address of their image.

    Raises:
        ValueError: A file lacks a column.
    """
    column = options.text_column or CAPTION
    for path in files_of(inputs, ("**/*.tsv.gz", "**/*.tsv"), "TSV file"):
        rows = _rows(path)
        _, header = next(rows, (1, []))
        missing = [name for name in (_LANGUAGE, _IMAGE, column) if name not in header] if header else [column]
        if missing or isinstance(header, RowFault):
            raise ValueError(f"{path} has no column {', '.join(missing)}: is it a TSV file of WIT?")
        for number, cells in rows:
            place = {"file": str(path), "line": number}
            if isinstance(cells, RowFault):
                yield rejected(cells, place)
            elif len(cells) != len(header):
                problem = f"{len(cells)} cells for {len(header)} columns"
                yield rejected(RowFault("number of cells", problem), place)
            else:
                yield _record(dict(zip(header, cells, strict=True)), column, place)


def _record(row: dict[str, str], column: str, place: dict[str, Any]) -> Record | LeftOut:
    if is_blank(row[column]):
        return LeftOut(f"no {column}")
    text, code = " ".join(row[column].split()), row[_LANGUAGE]
    is_english = code == ENGLISH
    return Record(
        text if is_english else None,
        place,
        "WIT",
        [] if is_english else [{LANG: code, TEXT: text}],
        image_name(row[_IMAGE]),
        f"WIT/{row[_IMAGE]}",
        row[_IMAGE],
    )


def image_name(url: str) -> str:
    """The file's name in an image's address, which is its name in a folder of images."""
    return unquote(urlparse(url).path.rpartition("/")[2])


class _Texts(Iterator[str]):
    """A file's lines as text; where the current record begins, and what could not be read before it."""

    def __init__(self, path: Path) -> None:
        self._lines = read_lines(path, blank=True)
        self.begins = 0
        self.faults: list[tuple[int, RowFault]] = []

    def __next__(self) -> str:
        for number, line in self._lines:
            try:
                if isinstance(line, RowFault):
                    raise line
                text = decoded(line, number) + "\n"
            except RowFault as fault:
                self.faults.append((number, fault))
            else:
                self.begins = self.begins or number
                return text
        raise StopIteration


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The cells of each record with the line on which it begins; a fault in the place of what cannot be read."""
    csv.field_size_limit(_LONGEST)  # of the whole process; the library's own is smaller than some fields of WIT
    texts = _Texts(path)
    reader = csv.reader(texts, delimiter="\t")
    while (cells := _next(reader)) is not None:
        if cells:
            yield texts.begins, cells
        yield from texts.faults
        texts.begins, texts.faults = 0, []
    yield from texts.faults


def _next(reader: Iterator[list[str]]) -> list[str] | RowFault | None:
    """The cells of the next record; nothing behind the last one."""
    try:
        return next(reader, None)
    except csv.Error as error:
        return RowFault("quotation mark", f"a record that nothing ends ({error})")
