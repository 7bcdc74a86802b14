"""Rows with pictures through a backbone's own processor: placeholders expanded, pictures turned to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from .families import Family
from .images import PictureError
from .truncation import Prompt

BLANK_VALUE = 1e-4  # far below one step of an 8-bit picture, and above the smallest numbers of float16


def expand_pictures(
    inner: ProcessorMixin,
    family: Family,
    prompts: Sequence[Prompt],
    pictures: Sequence[list[Any]],
    numbers: Sequence[int],
    options: dict[str, Any],
) -> BatchFeature:
    """Runs the backbone's processor on rows that all have pictures.

    Args:
        inner: The backbone's processor.
        family: Its family.
        prompts: Each row's prompt.
        pictures: Each row's RGB images.
        numbers: How errors number the rows.
        options: Further arguments of the processor.

    Returns:
        A padded batch of torch tensors.

    Raises:
        PictureError: The processor refuses a row; the message names the first such row.
    """
    own = len(family.after_text)  # the backbone's processor writes this part itself
    strings = [prompt.string[: len(prompt.string) - own] for prompt in prompts]
    try:
        batch = inner(text=strings, images=list(pictures), **{"padding": True, "return_tensors": "pt", **options})
    except (ValueError, TypeError, IndexError, ZeroDivisionError, RuntimeError) as error:
        for row in range(len(prompts) if len(prompts) > 1 else 0):
            one = slice(row, row + 1)
            expand_pictures(inner, family, prompts[one], pictures[one], numbers[one], options)
        sizes = ", ".join(f"{picture.width} x {picture.height}" for row in pictures for picture in row)
        named = f"row {numbers[0]}" if len(prompts) == 1 else f"rows {', '.join(map(str, numbers))} together"
        raise PictureError(f"{named}: {type(inner).__name__} refuses pictures of {sizes}: {error}") from error
    if family.blank_is_padding:
        mark_blank_pictures(batch)
    return batch


def token_inputs(family: Family, batch: BatchFeature) -> list[str]:
    """Names of per-token inputs worth keeping: tokenizers emit token types of zeros that no backbone asked for."""
    needed = {"input_ids", "mm_token_type_ids", *family.required, *family.required_with_pictures}
    types = batch.get("token_type_ids")
    if types is not None and bool(types.any()):
        needed.add("token_type_ids")
    return [name for name in batch if name in needed]


def mark_blank_pictures(batch: BatchFeature) -> None:
    """Keeps all-zero pictures: sets one value to a number too small to see, so that the backbone sees a picture.

    Args:
        batch: `pixel_values` `(B, N, 3, height, width)`, and `pixel_attention_mask` `(B, N, height, width)` where
            pictures were padded.
    """
    values = batch["pixel_values"]
    blank = ~values.flatten(2).any(dim=2)
    if "pixel_attention_mask" in batch:
        blank &= batch["pixel_attention_mask"].flatten(2).any(dim=2)
    values[..., 0, 0, 0] = torch.where(blank, torch.full_like(values[..., 0, 0, 0], BLANK_VALUE), values[..., 0, 0, 0])
