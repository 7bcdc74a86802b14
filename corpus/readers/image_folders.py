"""Folders of images: with `metadata.csv` or `metadata.jsonl`, with a text file beside each, or named by their texts."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import LANG, TEXT, TRANSLATIONS
from xvlm2vec.common.files import files_below, is_leftover
from xvlm2vec.common.languages import language
from xvlm2vec.corpus.csv_reader import CsvTable
from xvlm2vec.corpus.rows import RejectedRow, RowFault

from .fields import parse_line, record_of
from .lines import decoded, read_lines
from .records import Entries, LeftOut, LineFields, ReadOptions, Record, rejected
from .webdataset import IMAGES

_FILE, _CSV, _JSONL = "file_name", "metadata.csv", "metadata.jsonl"
_ENGLISH = ("text", "caption", "en")
"""What the column of English texts may also be called."""
NO_TEXT = "images without a text"


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """The images that tables name, or all of a folder without a table.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    for folder in inputs:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        tables = (
            [] if options.folder_names else [*files_below(folder, f"**/{_CSV}"), *files_below(folder, f"**/{_JSONL}")]
        )
        for table in tables:
            for place, values in _rows(table):
                yield _of_table(table, folder, place, values, options)
        if not tables:
            for image in _images(folder):
                yield _of_folder(image, folder) if options.folder_names else _with_texts(image, folder)


def _rows(table: Path) -> Iterator[tuple[dict[str, Any], Mapping[str, Any] | RowFault]]:
    if table.suffix == ".csv":
        for record in CsvTable(table, (_FILE,)):
            fault = RowFault("too many cells", f"{record.excess} cells too many") if record.excess else None
            yield {"file": str(table), "line": record.line}, fault or record.cells
        return
    for number, line in read_lines(table):
        place = {"file": str(table), "line": number}
        try:
            yield place, line if isinstance(line, RowFault) else parse_line(line)
        except RowFault as fault:
            yield place, fault


def _of_table(
    table: Path, folder: Path, place: dict[str, Any], values: Mapping[str, Any] | RowFault, options: ReadOptions
) -> Record | RejectedRow:
    """A row whose image lies below the table's folder; columns named by languages are translations."""
    try:
        if isinstance(values, RowFault):
            raise values
        names = (options.fields.english, *_ENGLISH)
        english = next((name for name in names if name in values), names[0])
        fields = LineFields(english, text="", language="", image=_FILE)
        codes = [name for name, text in values.items() if text and name != english and _is_code(name)]
        row = dict(values)
        if codes and TRANSLATIONS not in row:
            row[TRANSLATIONS] = [{LANG: code, TEXT: values[code]} for code in codes]
        below = table.parent.relative_to(folder)
        if isinstance(row.get(_FILE), str) and row[_FILE]:
            row[_FILE] = (below / row[_FILE]).as_posix()
        return record_of(row, fields, place, folder.name)
    except RowFault as fault:
        return rejected(fault, place)


def _is_code(name: str) -> bool:
    return bool(name) and name not in (TEXT, LANG) and language(name).name != name


def _images(folder: Path) -> Iterator[Path]:
    """The images below a folder, folder by folder, in the order of their names; links to folders are not followed."""
    for below, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_leftover(name))
        for name in sorted(names):
            if not is_leftover(name) and name.rpartition(".")[2].lower() in IMAGES:
                yield Path(below, name)


def _of_folder(image: Path, folder: Path) -> Record:
    name = image.relative_to(folder).as_posix()
    text = image.parent.name if image.parent != folder else ""
    return Record(text.replace("_", " "), {"file": str(image)}, folder.name, image=name, id=name)


def _with_texts(image: Path, folder: Path) -> Record | LeftOut | RejectedRow:
    """An image with the text files beside it: `cat.txt` is English, `cat.de.txt` German."""
    name, place = image.relative_to(folder).as_posix(), {"file": str(image)}
    english = image.with_suffix(".txt")
    if not english.is_file():
        return LeftOut(NO_TEXT)
    try:
        others = [path for path in files_below(image.parent, f"{glob.escape(image.stem)}.*.txt")
                  if _is_code(_between(path, image))]  # fmt: skip
        items = [{LANG: _between(path, image), TEXT: _text(path)} for path in others]
        return Record(_text(english), place, folder.name, items, name, name)
    except RowFault as fault:
        return rejected(fault, place)


def _between(path: Path, image: Path) -> str:
    """What stands between an image's name and `.txt`."""
    return path.name.removeprefix(f"{image.stem}.").removesuffix(".txt")


def _text(path: Path) -> str:
    with open(path, "rb") as file:
        return " ".join(decoded(file.read(1 << 20), 1).split())
