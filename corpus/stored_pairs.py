"""Stored pairs for contrastive training: which columns they have, and images that lie in a folder beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.columns import IMAGE_COLUMNS, INSTRUCTION, LANG, NEGATIVE_COLUMNS, PAIR_COLUMNS, PATH, TASK
from xvlm2vec.modeling.rows import is_several

from .stored import open_rows

if TYPE_CHECKING:
    from datasets import Dataset

SIDES = {"query": ("qry", "qry_image"), "positive": ("pos_text", "pos_image")}
KNOWN = (*PAIR_COLUMNS, *NEGATIVE_COLUMNS, INSTRUCTION, TASK, LANG)
PREFIXES = ("qry", "pos_", "neg_")


def load_pairs(path_or_id: str | Path, split: str = "train", images: str | Path | None = None) -> Dataset:
    """Opens contrastive pairs in the columns of MMEB's training sets; see `open_rows`.

    Args:
        path_or_id: Where they are.
        split: Which part, where there are several.
        images: The folder below which the paths in `qry_image_path` and so on lie.

    Raises:
        FileNotFoundError: There is nothing of this name.
        ValueError: They are damaged, have no column for a side, a column that looks like one of a pair and is none, or
            paths without a folder of images.
    """
    from datasets import Image, List

    rows = open_rows(path_or_id, split)
    for column in IMAGE_COLUMNS:
        if column + PATH in rows.column_names:
            rows = _with_images(rows, column, images, str(path_or_id))
    _check_names(rows.column_names, str(path_or_id))
    rows = rows.select_columns([name for name in rows.column_names if name in KNOWN])
    for column in IMAGE_COLUMNS:
        if column in rows.column_names and rows.features[column] not in (Image(), List(Image())):
            rows = rows.cast_column(column, List(Image()) if isinstance(rows.features[column], List) else Image())
    return rows


def _check_names(names: Sequence[str], place: str) -> None:
    strange = [name for name in names if name.startswith(PREFIXES) and name not in KNOWN]
    if strange:
        raise ValueError(f"{place} has the column {strange[0]!r}, none of those of pairs: {', '.join(KNOWN)}.")
    for side, columns in SIDES.items():
        if not set(columns) & set(names):
            raise ValueError(
                f"{place} has no {side}: neither {' nor '.join(columns)} is among its columns {', '.join(names)}."
            )


def _with_images(rows: Dataset, column: str, folder: str | Path | None, place: str) -> Dataset:
    """Rows whose column of paths has become one of images, which are read when a batch is made."""
    from datasets import Image, List

    if column in rows.column_names:
        raise ValueError(f"{place} has the columns {column} and {column}{PATH}; one of them says what the images are.")
    paths = rows.with_format(None).select_columns([column + PATH])[column + PATH][:]
    if not any(paths):
        return rows.remove_columns([column + PATH])
    if folder is None:
        raise ValueError(f"{place} names its images by paths ({column}{PATH}); say below which folder: --image-folder.")
    several = any(map(is_several, paths))
    stored: list[Any] = [
        [_stored(path, folder, f"{place}, row {index}") for path in _paths(value)]
        if several
        else _stored(value, folder, f"{place}, row {index}")
        for index, value in enumerate(paths)
    ]
    rows = rows.remove_columns([column + PATH])
    return rows.add_column(column, stored, feature=List(Image()) if several else Image())


def _paths(value: Any) -> list[str | None]:
    if not value:
        return []
    return list(value) if is_several(value) else [value]


def _stored(path: str | None, folder: str | Path, where: str) -> dict[str, Any] | None:
    """An image as `datasets` stores it, left in its file; `None` for an empty path."""
    if not path:
        return None
    relative = PurePosixPath(path.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"{where}: the image {path!r} leads out of the folder {folder}; refused.")
    return {"bytes": None, "path": str(Path(folder) / relative)}
