"""The images of rows, opened from paths or stored bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .ranking import Row

if TYPE_CHECKING:
    from PIL import Image


def open_image(image: Any) -> Image.Image:
    """The image of a path or of stored bytes, or a `PIL.Image`, as models of this package read it.

    That is in RGB, upright, on white where it was transparent. Anything else is given on as it is.

    Raises:
        ValueError: It cannot be read; names the file, if it comes from one.
    """
    from PIL import Image

    from xvlm2vec.modeling.images import load_image

    if not isinstance(image, str | Path | Mapping | Image.Image):
        return image
    return load_image(image, name=file_of(image) or "image")


def row_images(rows: Sequence[Row], images: Mapping[str, Any]) -> list[Any]:
    """The image of each row as `images` has it (a path, encoded bytes, a `PIL.Image`), the list of its images, or None.

    Rows of one image get the same object, so that its work can be shared. Nothing is decoded here: a chunk of rows may
    hold hundreds of photographs.
    """
    fetched: dict[Any, Any] = {}
    for key in dict.fromkeys(row.image for row in rows if row.image is not None):
        fetched[key] = images[key] if isinstance(key, str) else [images[name] for name in key]
    return [None if row.image is None else fetched[row.image] for row in rows]


def opened_images(rows: Sequence[Row], images: Mapping[str, Any]) -> list[Any]:
    """As `row_images`, decoded: the image of several rows once."""
    opened: dict[Any, Any] = {}
    for row in rows:
        if row.image is not None and row.image not in opened:
            (image,) = row_images([row], images)
            opened[row.image] = [open_image(part) for part in image] if isinstance(image, list) else open_image(image)
    return [None if row.image is None else opened[row.image] for row in rows]


def file_of(image: Any) -> str:
    """Where an image comes from; empty if that is not known."""
    if isinstance(image, Mapping):
        image = image.get("path")
    return str(image) if isinstance(image, str | Path) else ""
