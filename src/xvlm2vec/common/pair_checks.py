"""Faults of stored pairs, found before any is trained on: each row is looked at, and no image is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from xvlm2vec.modeling.rows import TextImageRow

from .columns import IMAGE_COLUMNS, INSTRUCTION, NEGATIVE_COLUMNS, PAIR_COLUMNS, TASK
from .pairs import NO_PROMPTS, Pair, read_pair

if TYPE_CHECKING:
    from datasets import Dataset

CHUNK = 1_000
SHOWN = 5
"""So many faults are told; of the others their number."""


def check_pairs(rows: Dataset, prompts: Mapping[str, str] = NO_PROMPTS, name: str = "") -> None:
    """Goes through stored pairs; rows that are made when they are read are left to who reads them.

    Args:
        rows: With the columns of `read_pair`.
        prompts: Instructions by the names of tasks.
        name: Of the data set, for errors.

    Raises:
        ValueError: A row cannot be read as a pair, both its sides are the same, a negative is its positive, or the file
            of an image is missing; names the first rows, and how many there are.
    """
    if rows.format["type"] is not None:
        return
    faults = list(_faults(rows, prompts))
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        of = f" of {name}" if name else ""
        raise ValueError(f"{len(faults)} of {len(rows)} pairs{of} are faulty: {'; '.join(faults[:SHOWN] + more)}")


def _faults(rows: Dataset, prompts: Mapping[str, str]) -> Iterator[str]:
    """The first fault of each row that has one."""
    known = {*PAIR_COLUMNS, *NEGATIVE_COLUMNS, INSTRUCTION, TASK}
    table = rows.select_columns([name for name in rows.column_names if name in known]).with_format("arrow")
    for start in range(0, len(rows), CHUNK):
        part = table[start : start + CHUNK]
        columns = {
            name: list(map(_stored_images, part[name])) if name in IMAGE_COLUMNS else part[name].to_pylist()
            for name in part.column_names
        }
        for place in range(part.num_rows):
            where = f"Row {start + place}"
            fault = _fault({name: values[place] for name, values in columns.items()}, where, prompts)
            if fault:
                yield fault


def _fault(row: Mapping[str, Any], where: str, prompts: Mapping[str, str]) -> str:
    try:
        pair = read_pair(row, where, prompts)
    except ValueError as error:
        return str(error).removesuffix(".")
    return _sameness(pair, row.get("qry") or "", where) or _missing_file(pair, where)


def _sameness(pair: Pair, asked: str, where: str) -> str:
    if _same(TextImageRow(asked, pair.query.images), pair.positive) or _same(pair.query, pair.positive):
        return f"{where}: query and positive are the same ({pair.positive.text!r:.60})"
    for negative in pair.negatives:
        if _same(negative, pair.positive):
            return f"{where}: a negative is the positive ({negative.text!r:.60})"
    return ""


def _same(left: TextImageRow, right: TextImageRow) -> bool:
    if left.text.strip() != right.text.strip() or len(left.images) != len(right.images):
        return False
    return all(map(_same_image, left.images, right.images))


def _same_image(left: Any, right: Any) -> bool:
    """Whether two stored images are the same file; equal pixels in different files are found in training."""
    if not (left["bytes"].is_valid and right["bytes"].is_valid):
        return bool(left["path"].is_valid and left["path"].as_py() == right["path"].as_py())
    return bool(left["bytes"].as_buffer().equals(right["bytes"].as_buffer()))


def _missing_file(pair: Pair, where: str) -> str:
    for side in (pair.query, pair.positive, *pair.negatives):
        for image in side.images:
            path = image["path"].as_py()
            if not image["bytes"].is_valid and not (path and ("://" in path or os.path.isfile(path))):
                return f"{where}: there is no image {path}" if path else f"{where}: an image has neither bytes nor path"
    return ""


def _stored_images(scalar: Any) -> list[Any]:
    """The stored images, undecoded, of a cell with one, with a list of them, or with none."""
    if not scalar.is_valid:
        return []
    values = getattr(scalar, "values", None)
    several = [scalar] if values is None or callable(values) else list(values)
    return [image if image.is_valid else None for image in several]
