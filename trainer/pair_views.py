"""What some losses of pairs compare beside whole rows: crops of images, a query's conditions, which rows are texts."""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import nn

from xvlm2vec.common.store import content_digest
from xvlm2vec.common.texts import is_blank
from xvlm2vec.modeling.images import load_image
from xvlm2vec.modeling.rows import TextImageRow

CROP, WHOLE_IMAGE, CONDITION = "crop", "whole_image", "condition"
TARGETS = (WHOLE_IMAGE, CONDITION)
"""Columns whose vectors are learned from and get no gradient."""
CROPS = 2
"""Crops of an image for one step."""
SHARE = (0.1, 0.5)
"""The least and the largest part of an image's area that a crop shows."""
LEAST_SIDE = 8
"""Pixels of a crop's side; what is smaller already stays whole."""


@dataclass(frozen=True)
class Views:
    """What is made of the rows of a batch.

    Attributes:
        columns: More rows to embed, by the loss's name of their vectors.
        told: Tensors that the loss takes as they are.
    """

    columns: dict[str, list[TextImageRow]] = field(default_factory=dict)
    told: dict[str, torch.Tensor] = field(default_factory=dict)


def wanted_by(loss: nn.Module) -> frozenset[str]:
    """The keywords of a loss and of the losses inside it."""
    return frozenset(name for part in loss.modules() for name in inspect.signature(part.forward).parameters)


def make_views(wanted: frozenset[str], sides: Mapping[str, Sequence[TextImageRow]], draw: str) -> Views:
    """Makes what a loss wants of the queries and positives of a batch.

    Args:
        wanted: Its keywords.
        sides: Rows by side.
        draw: Crops depend on it and on the image only, so that a resumed run cuts as an uninterrupted one does.
    """
    views = Views()
    for side in ("query", "positive"):
        if f"{side}_is_text" in wanted:
            views.told[f"{side}_is_text"] = torch.tensor([not row.images for row in sides[side]])
    if CROP in wanted:
        _add_crops(views, [*sides["query"], *sides["positive"]], draw)
    if CONDITION in wanted:
        _add_conditions(views, sides["query"])
    return views


def _add_crops(views: Views, rows: Sequence[TextImageRow], draw: str) -> None:
    """Each image of some rows once, and parts of it, without any text."""
    images = {content_digest(image): image for row in rows for image in row.images}
    if not images:
        return
    crops = [crop for digest, image in images.items() for crop in crops_of(image, f"{draw}:{digest.hex()}")]
    views.columns[WHOLE_IMAGE] = [TextImageRow("", (image,)) for image in images.values()]
    views.columns[CROP] = [TextImageRow("", (crop,)) for crop in crops]
    views.told["image_of_crop"] = torch.arange(len(images)).repeat_interleave(CROPS)


def _add_conditions(views: Views, queries: Sequence[TextImageRow]) -> None:
    """The text, with its instruction, and each image of queries that have more than one of these."""
    parts = [(place, row) for place, query in enumerate(queries) for row in conditions_of(query)]
    if not parts:
        return
    views.columns[CONDITION] = [row for _, row in parts]
    views.told["query_of_condition"] = torch.tensor([place for place, _ in parts])
    views.told["condition_is_text"] = torch.tensor([not row.images for _, row in parts])


def conditions_of(query: TextImageRow) -> list[TextImageRow]:
    """The text and the images of a query, each alone; none of a query that is no more than one of them."""
    texts = [] if is_blank(query.text) else [TextImageRow(query.text)]
    parts = [*texts, *(TextImageRow("", (image,)) for image in query.images)]
    return parts if len(parts) > 1 else []


def crops_of(image: Any, draw: str) -> list[Image.Image]:
    """Parts of an image in its shape, of a random size at a random place."""
    whole, generator = load_image(image), random.Random(draw)
    return [_crop(whole, generator) for _ in range(CROPS)]


def _crop(image: Image.Image, generator: random.Random) -> Image.Image:
    scale = generator.uniform(*SHARE) ** 0.5
    width, height = (max(round(side * scale), min(side, LEAST_SIDE)) for side in image.size)
    left, top = generator.randint(0, image.width - width), generator.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))
