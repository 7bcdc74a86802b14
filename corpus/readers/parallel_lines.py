"""Files with a text in each line, one file a language: line 17 of one is a translation of line 17 of another."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import LANG, TEXT
from xvlm2vec.corpus.rows import ENGLISH, RowFault

from .lines import decoded, read_lines
from .records import Entries, Record, rejected


def read_parallel(files: Mapping[str, Path], images: Path | None, source: str, image_name: str = "{}") -> Entries:
    """The lines of some files together. A language whose file has more or fewer lines than the English one is left out.

    Args:
        files: The files by the codes of their languages, English among them.
        images: The file with the images' names, a line each.
        source: Name of the data set.
        image_name: How a line names an image's file.
    """
    length = _length(files[ENGLISH])
    whole: dict[str, Path] = {}
    for code, path in [*files.items(), *([("image", images)] if images else [])]:
        count = _length(path)
        if count == length:
            whole[code] = path
        else:
            problem = f"{count} lines for {length} of {files[ENGLISH]}: nothing tells which belong together"
            yield rejected(RowFault("number of lines", f"{problem}; left out"), {"file": str(path)})
    if images and "image" not in whole:
        return
    with ExitStack() as stack:
        lines = {code: stack.enter_context(closing(_texts(path))) for code, path in whole.items()}
        for number, texts in enumerate(zip(*lines.values(), strict=True), 1):
            row = dict(zip(lines, texts, strict=True))
            place = {"file": str(files[ENGLISH]), "line": number}
            try:
                yield _record(row, place, source, image_name, number)
            except RowFault as fault:
                yield rejected(fault, place)


def _record(row: dict[str, Any], place: dict[str, Any], source: str, image_name: str, number: int) -> Record:
    image, english = row.pop("image", ""), row.pop(ENGLISH)
    for text in (english, image):
        if isinstance(text, RowFault):
            raise text
    items = [{LANG: code, TEXT: text} for code, text in row.items() if not isinstance(text, RowFault)]
    name = image_name.format(image.partition("#")[0].strip()) if image else None
    return Record(english, place, source, items, name, f"{source}/{number - 1}")


def _texts(path: Path) -> Generator[str | RowFault]:
    """The text of each line, blank ones too: else all that follow would move."""
    for number, line in read_lines(path, blank=True):
        try:
            yield line if isinstance(line, RowFault) else decoded(line, number).strip()
        except RowFault as fault:
            yield fault


def _length(path: Path) -> int:
    with closing(read_lines(path, blank=True)) as lines:
        return sum(1 for _ in lines)
