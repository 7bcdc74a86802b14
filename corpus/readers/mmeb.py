"""MMEB-train: queries, right and wrong answers in English, a folder of parquet files for each data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.files import files_below
from xvlm2vec.common.image_marks import strip_marks
from xvlm2vec.common.texts import is_blank
from xvlm2vec.corpus.rows import RowFault

from .records import Entries, LeftOut, ReadOptions, Record, rejected
from .tables import parquet_rows

SPLITS = ("original", "diverse_instruction")
SIDES = {"qry": ("qry", "qry_image_path"), "pos": ("pos_text", "pos_image_path"), "neg": ("neg_text", "neg_image_path")}
"""What a row holds: the columns of a text and its image's path; wrong answers are not in every data set."""
NOTHING, NO_TEXT = "sides without text and image", "images without a text"


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """Every side of every row: the query, the right answer and the wrong one, each with its image.

    Raises:
        FileNotFoundError: There is no such data set or split.
    """
    splits = options.splits or SPLITS[:1]
    for folder in inputs:
        for config in options.configs or _configs(folder):
            for split in splits:
                files = files_below(folder / config, f"{split}-*.parquet")
                if not files:
                    raise FileNotFoundError(
                        f"{folder / config} has no file {split}-*.parquet; data sets are {', '.join(_configs(folder))}"
                        f", their splits are {', '.join(SPLITS)}"
                    )
                yield from _rows(files, config, split)


def _configs(folder: Path) -> list[str]:
    names = sorted({path.parent.name for path in files_below(folder, "*/*-*.parquet")})
    if not names:
        raise FileNotFoundError(f"{folder} holds no <data set>/<split>-*.parquet, so it is no copy of MMEB-train")
    return names


def _rows(files: Sequence[Path], config: str, split: str) -> Entries:
    first = 0
    for path in files:
        number = -1
        for number, row in parquet_rows(path):
            place = {"file": str(path), "row": number}
            if isinstance(row, RowFault):
                yield rejected(row, place)
            else:
                yield from _sides(row, place, config, f"{config}/{split}/{first + number}")
        first += number + 1


def _sides(row: Mapping[str, Any], place: Mapping[str, Any], config: str, name: str) -> Entries:
    for side, (text_column, image_column) in SIDES.items():
        if text_column not in row:
            continue
        contents = list(_contents(row[text_column], row.get(image_column)))
        for number, (text, image) in enumerate(contents):
            if is_blank(strip_marks(text)):
                yield LeftOut(NO_TEXT if image else NOTHING)
            else:
                row_id = f"{name}/{side}" + (f"/{number}" if len(contents) > 1 else "")
                yield Record(text, place, f"MMEB-train/{config}", image=image or None, id=row_id)


def _contents(texts: Any, images: Any) -> Iterator[tuple[str, str]]:
    """Texts with their images; wrong answers may be several."""
    several = [texts] if not isinstance(texts, list) else texts
    paths = images if isinstance(images, list) else [images] * len(several)
    for text, image in zip(several, paths, strict=False):
        yield text or "", image or ""
