"""Parallel texts from a CSV with a column per language, and a folder of images."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .rows import ENGLISH, ImageFolder, RejectedRow, RowFault, TextCorpus, TextRow

LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*\Z")
_DELIMITERS = (",", ";", "\t")


def read_csv(path: str | Path, images: str | Path | None = None, progress: bool = False) -> TextCorpus:
    """Reads a CSV whose header names languages: `image,en,de,fr` and, if there is one, `id`.

    English may be the only language; the rows then have no translation yet.

    Commas, semicolons or tabs separate the columns, and the file is UTF-8. `image` is a path below the folder of
    images; it may be empty, and the column may be missing. Every image is decoded once, so that a broken one is
    found here rather than in the middle of a training.

    Args:
        path: The file.
        images: The folder of images.
        progress: Whether to show a bar.

    Returns:
        The good rows and the rejected ones.

    Raises:
        ValueError: The file is not UTF-8, is no CSV, or its header does not fit; names the line.
        FileNotFoundError: The file or the folder of images is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    folder = ImageFolder(images)
    line = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            reader = csv.DictReader(file, fieldnames=_header(header, path, folder), delimiter=_delimiter(header))
            corpus = TextCorpus(_languages(reader.fieldnames or ()))
            for number, cells in enumerate(tqdm(reader, desc=f"Reading {path.name}", unit="row", disable=not progress)):
                line = reader.line_num + 1
                row_id = (cells.get("id") or "").strip() or f"row-{number:06d}"
                try:
                    corpus.rows.append(_row(corpus.languages, cells, row_id, folder, path.stem))
                except RowFault as fault:
                    corpus.rejected.append(RejectedRow(*fault.args, line=line, id=row_id))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after line {line}: not UTF-8 ({error.reason}); save the file as UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"{path}, after line {line}: no valid CSV ({error}).") from error
    _check_ids(corpus.rows)
    return corpus


def _delimiter(header: str) -> str:
    """The first of the usual delimiters that makes `en` a column of the header."""
    split = {sign: [name.strip() for name in next(csv.reader([header], delimiter=sign), [])] for sign in _DELIMITERS}
    return next((sign for sign in _DELIMITERS if ENGLISH in split[sign]), ",")


def _header(line: str, path: Path, images: ImageFolder) -> list[str]:
    names = [name.strip() for name in next(csv.reader([line], delimiter=_delimiter(line)), [])]
    where, form = f"{path}, line 1", "the header must look like image,en,de,fr (and id, if rows have ids)"
    if ENGLISH not in names:
        raise ValueError(f"{where}: no column {ENGLISH!r} in {line.strip()!r:.120}; {form}.")
    doubled = [name for name, count in Counter(names).items() if count > 1]
    strange = [name for name in names if name not in {"image", "id"} and not LANGUAGE_CODE.match(name)]
    if doubled or strange:
        raise ValueError(f"{where}: {', '.join(map(repr, doubled + strange))} cannot be a column; {form}.")
    if "image" in names and images.folder is None:
        raise ValueError(f"{where}: there is a column 'image'; name the folder that holds the images (--images).")
    return names


def _languages(names: Sequence[str]) -> tuple[str, ...]:
    return (ENGLISH, *(name for name in names if name not in {ENGLISH, "image", "id"}))


def _row(languages: Sequence[str], cells: Mapping[Any, Any], row_id: str, images: ImageFolder, source: str) -> TextRow:
    if None in cells:
        raise RowFault("too many cells", f"{len(cells[None])} cells too many; put texts with commas in double quotes")
    texts = {code: (cells.get(code) or "").strip() for code in languages}
    if not texts[ENGLISH]:
        raise RowFault("empty English text", "the English text is empty")
    texts = {code: text for code, text in texts.items() if text}
    if len(texts) < 2 <= len(languages):
        raise RowFault("no translation", "there is no translation in any language")
    name = (cells.get("image") or "").strip()
    return TextRow(row_id, texts, images.find(name) if name else None, name, source)


def _check_ids(rows: Sequence[TextRow]) -> None:
    counts = Counter(row.id for row in rows)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ValueError(
            f"the id {repeated[0]!r} occurs {counts[repeated[0]]} times ({len(repeated)} ids are repeated); make them "
            "unique, or remove the column 'id'."
        )
