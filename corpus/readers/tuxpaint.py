"""Tux Paint's stamps for training: all but those whose captions are held out for tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from xvlm2vec.common.captioned.captions import Captioned, is_held_out, locale_code
from xvlm2vec.common.captioned.tuxpaint import draw, stamp_sets, stamps_folder
from xvlm2vec.common.columns import LANG, TEXT
from xvlm2vec.corpus.rows import RowFault

from .records import Entries, Entry, ImageBytes, LeftOut, ReadOptions, Record, rejected

DRAWINGS = "drawings"
NEED_SVG = "drawings, which need pip install 'xvlm2vec[svg]'"


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """The captioned images of the package's folder.

    Raises:
        FileNotFoundError: The folder has none.
        ValueError: A caption file is not in UTF-8; names it and the line.
    """
    for path in inputs:
        folder = stamps_folder(path)
        sets = stamp_sets(folder)
        if not any(sets.values()):
            raise FileNotFoundError(f"there is no file {folder}/**/*.txt with an image beside it; "
                                    "`xvlm2vec data tuxpaint --output DIR` gets the stamps")  # fmt: skip
        for name, items in sets.items():
            for item in items:
                yield in_part(item, options.part) or _stamp(item, folder, name)


def _stamp(item: Captioned, folder: Path, name: str) -> Entry:
    path = folder / item.image
    if path.suffix == ".svg":
        if not importlib.util.find_spec("resvg_py"):
            return LeftOut(NEED_SVG)
        try:
            content = draw(path)
        except ValueError as error:
            return rejected(RowFault("unreadable image", str(error)), {"file": str(path)})
    else:
        content = path.read_bytes()
    return captioned_record(item, f"Tux Paint/{name}", str(path), content)


def captioned_record(item: Captioned, source: str, file: str, content: bytes) -> Record:
    """A captioned image as a record."""
    items = [{LANG: locale_code(spelling), TEXT: text} for spelling, text in item.others.items() if text.strip()]
    name = item.image.strip("/")
    return Record(item.english, {"file": file}, source, items, ImageBytes(name, content), f"{source}/{name}")


def in_part(item: Captioned, part: str) -> LeftOut | None:
    """What is left out because it belongs to another part."""
    if part == "all" or (part == "test") == is_held_out(item.english):
        return None
    return LeftOut("held out for tests" if part == "train" else "for training")
