"""How long rows will be, known before any image is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .images import measure_image
from .rows import TextImageRow

UNSEEN = (1024, 1024)
"""What a URL's image is taken for until it is fetched."""
TOWER_IMAGE = 256
"""What the tower for images of a two-tower model is taken to cost, in tokens of a text."""
CHUNK = 8192
"""Texts tokenized at a time."""


@dataclass(frozen=True)
class RowSize:
    """What a row will cost.

    Args:
        tokens: Tokens of the whole row: exact without images; with images but for a few marks around them.
        pixels: Pixels of all images.
        shared: Tokens of the images, which rows with the same images can share.
    """

    tokens: int
    pixels: int = 0
    shared: int = 0


def measure_rows(processor: Any, rows: Sequence[TextImageRow], problems: dict[int, str] | None = None) -> list[RowSize]:
    """Measures rows for an `XVLM2VecProcessor`; of image files only the beginnings are read.

    What is wrong with bad rows is written into `problems` by number, and they count nothing.

    Raises:
        ValueError: A row is bad, and there is no `problems`.
    """
    prompts = [""] * len(rows)
    sizes: list[tuple[tuple[int, int], ...]] = [()] * len(rows)
    seen: dict[int, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        try:
            prompts[number] = processor.prompt_of(row, number).string
            sizes[number] = _image_sizes(processor, row, number, seen)
        except ValueError as error:
            if problems is None:
                raise
            problems[number] = str(error)
    texts = _text_tokens(processor, prompts)
    distinct = list(dict.fromkeys(size for row in sizes for size in row))
    tokens = dict(zip(distinct, image_tokens(processor, distinct), strict=True))
    return [
        RowSize(text + shared, sum(width * height for width, height in row), shared)
        for text, row in zip(texts, sizes, strict=True)
        for shared in [sum(tokens[size] for size in row)]
    ]


def image_tokens(processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Tokens that images of these sizes (width, height) become, as the backbone's own processor counts them."""
    if not sizes:
        return []
    if processor.recipe.two_towers:
        return [TOWER_IMAGE] * len(sizes)
    count = getattr(processor.inner, "_get_num_multimodal_tokens", None)
    if count is not None:
        return count(image_sizes=[(height, width) for width, height in sizes]).num_image_tokens
    # A processor that cannot count prepares a blank image of each size.
    blanks = (TextImageRow("", (Image.new("RGB", size),)) for size in sizes)
    return [int(processor.prepare([row])[0]["attention_mask"].sum()) for row in blanks]


def _image_sizes(
    processor: Any, row: TextImageRow, number: int, seen: dict[int, tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    for index, image in enumerate(row.images):
        if id(image) not in seen:
            size = measure_image(
                image,
                allow_urls=processor.allow_urls,
                name=f"row {number}, image {index}",
                max_aspect_ratio=processor.max_aspect_ratio,
            )
            seen[id(image)] = (size or UNSEEN) if processor.square is None else (processor.square, processor.square)
    return tuple(seen[id(image)] for image in row.images)


def _text_tokens(processor: Any, prompts: Sequence[str]) -> list[int]:
    tokenizer, added = processor.locked_tokenizer, processor.recipe.special_tokens
    return [
        len(ids)
        for start in range(0, len(prompts), CHUNK)
        for ids in tokenizer(list(prompts[start : start + CHUNK]), add_special_tokens=added)["input_ids"]
    ]
