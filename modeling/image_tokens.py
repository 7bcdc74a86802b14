"""Rows with images through a backbone's own processor: placeholders expanded, images turned to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from .families import Family
from .images import ImageError
from .truncation import Prompt

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
    try:
        batch = inner(text=strings, images=list(images), **{"padding": True, "return_tensors": "pt", **options})
    except (ValueError, TypeError, IndexError, ZeroDivisionError, RuntimeError) as error:
        for row in range(len(prompts) if len(prompts) > 1 else 0):
            one = slice(row, row + 1)
            expand_images(inner, family, prompts[one], images[one], numbers[one], options)
        sizes = ", ".join(f"{image.width} x {image.height}" for row in images for image in row)
        named = f"row {numbers[0]}" if len(prompts) == 1 else f"rows {', '.join(map(str, numbers))} together"
        raise ImageError(f"{named}: {type(inner).__name__} refuses images of {sizes}: {error}") from error
    if family.blank_is_padding:
        mark_blank_images(batch)
    return batch


def needed_inputs(family: Family, batch: BatchFeature) -> list[str]:
    """Names of per-token inputs worth keeping: tokenizers emit token types of zeros that no backbone asked for."""
    needed = {"input_ids", "mm_token_type_ids", *family.required, *family.required_with_images}
    types = batch.get("token_type_ids")
    if types is not None and bool(types.any()):
        needed.add("token_type_ids")
    return [name for name in batch if name in needed]


def mark_blank_images(batch: BatchFeature) -> None:
    """Keeps all-zero images: sets one value to a number too small to see, so that the backbone sees an image."""
    values = batch["pixel_values"]  # (B, N, 3, height, width), and with padded images a mask without the 3
    blank = ~values.flatten(2).any(dim=2)
    if "pixel_attention_mask" in batch:
        blank &= batch["pixel_attention_mask"].flatten(2).any(dim=2)
    values[..., 0, 0, 0] = torch.where(blank, torch.full_like(values[..., 0, 0, 0], BLANK_VALUE), values[..., 0, 0, 0])
