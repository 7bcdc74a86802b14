"""Rows with images through a backbone's own processor: placeholders expanded, images turned to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from .families import Family
from .family_entry import TYPES
from .images import ImageError
from .truncation import Prompt

NOT_IMAGES = ("input_ids", "attention_mask", TYPES, "token_type_ids", "labels")
"""What a processor returns for tokens, whether it is kept or not."""
_NOT_TOKENS = ("attention_mask", "labels", "pixel_values", "image_sizes", "image_grid_thw", "image_position_ids")
# What processors raise for rows that they cannot take.
_REFUSED = (ValueError, TypeError, IndexError, KeyError, AttributeError, ZeroDivisionError, RuntimeError)
BLANK_VALUE = 1e-4  # far below one step of an 8-bit image, and above the smallest numbers of float16


def expand_images(
    inner: ProcessorMixin,
    family: Family,
    prompts: Sequence[Prompt],
    images: Sequence[list[Any]],
    numbers: Sequence[int],
    options: dict[str, Any],
) -> BatchFeature:
    """Runs the backbone's processor on rows that all have images.

    Args:
        inner: The backbone's processor.
        family: The backbone's family.
        prompts: The prompt of each row.
        images: The RGB images of each row.
        numbers: The row numbers for errors.
        options: Further arguments of the processor.

    Returns:
        A padded batch of torch tensors.

    Raises:
        ImageError: The processor refuses a row; the message names the first such row.
    """
    # The backbone's processor writes `after_text` itself.
    strings = [prompt.string.removesuffix(family.after_text) for prompt in prompts]
    options = {"padding": True, "return_tensors": "pt", **options}
    if TYPES in family.required_with_images:
        options.setdefault(f"return_{TYPES}", True)
    try:
        batch = _called(inner, family, strings, images, options)
    except _REFUSED as error:
        for row in range(len(prompts) if len(prompts) > 1 else 0):
            one = slice(row, row + 1)
            expand_images(inner, family, prompts[one], images[one], numbers[one], options)
        sizes = ", ".join(f"{image.width} x {image.height}" for row in images for image in row)
        named = f"row {numbers[0]}" if len(prompts) == 1 else f"rows {', '.join(map(str, numbers))} together"
        raise ImageError(f"{named}: {type(inner).__name__} refuses images of {sizes}: {error}") from error
    for name, other in family.renamed.items():
        if name in batch:
            batch[other] = batch.pop(name)
    if family.blank_is_padding:
        mark_blank_images(batch)
    return batch


def _called(
    inner: ProcessorMixin, family: Family, strings: list[str], images: Sequence[list[Any]], options: dict[str, Any]
) -> BatchFeature:
    """What a processor makes of rows; images of one row that have other numbers of tiles are put side by side."""
    if family.flat_images:
        return inner(text=strings, images=[image for row in images for image in row], **options)
    try:
        return inner(text=strings, images=list(images), **options)
    except ValueError:
        if len(strings) != 1 or len(images[0]) == 1:
            raise
        output = inner(text=strings, images=list(images), **{**options, "return_tensors": None})
        tiles = output.get("pixel_values")
        if not isinstance(tiles, list) or not all(isinstance(part, torch.Tensor) for part in tiles):
            raise
        output["pixel_values"] = torch.cat(tiles)[None]
        return BatchFeature({name: torch.as_tensor(value) for name, value in output.items()})


def token_names(family: Family, batch: BatchFeature) -> list[str]:
    """Names of what a batch has for each token, told by its shape: these inputs are padded and cut with the tokens.

    The attention mask is made anew, and tokenizers emit token types of zeros that no backbone asked for.
    """
    shape = batch["input_ids"].shape
    like_tokens = [
        name
        for name, value in batch.items()
        if name not in _NOT_TOKENS and isinstance(value, torch.Tensor) and value.shape[:2] == shape
    ]
    types = batch.get("token_type_ids")
    if (
        types is not None
        and not bool(types.any())
        and "token_type_ids"
        not in (
            *family.required,
            *family.required_with_images,
        )
    ):
        like_tokens.remove("token_type_ids")
    return like_tokens


def mark_blank_images(batch: BatchFeature) -> None:
    """Keeps all-zero images: sets one value to a number too small to see, so that the backbone sees an image."""
    values = batch["pixel_values"]  # (B, N, 3, height, width), and with padded images a mask without the 3
    blank = ~values.flatten(2).any(dim=2)
    if "pixel_attention_mask" in batch:
        blank &= batch["pixel_attention_mask"].flatten(2).any(dim=2)
    values[..., 0, 0, 0] = torch.where(blank, torch.full_like(values[..., 0, 0, 0], BLANK_VALUE), values[..., 0, 0, 0])
