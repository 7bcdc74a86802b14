"""Tokens of rows that one language model reads, and the images among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .image_tokens import expand_images, needed_inputs
from .padding import TokenRow, split_rows, spread_rows
from .truncation import Prompt

_NOT_IMAGES = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids", "labels"}


def token_inputs(
    processor: Any,
    prompts: Sequence[Prompt],
    images: Sequence[list[Any]],
    numbers: Sequence[Any],
    options: dict[str, Any],
) -> tuple[list[TokenRow], dict[str, Any]]:
    """Tokens of each row and the image inputs of the batch.

    Args:
        processor: The model's `XVLM2VecProcessor`.
        prompts: The string of each row.
        images: The RGB images of each row.
        numbers: The row numbers for errors.
        options: Further arguments of the backbone's processor.
    """
    family = processor.family
    tokens: list[TokenRow] = [{} for _ in prompts]
    plain = [index for index, row_images in enumerate(images) if not row_images]
    with_images = [index for index, row_images in enumerate(images) if row_images]
    extras: dict[str, Any] = {}
    if with_images:
        if not processor.recipe.special_tokens:
            options = {**options, "add_special_tokens": False}
        with processor.lock:
            batch = expand_images(
                processor.inner,
                family,
                [prompts[index] for index in with_images],
                [images[index] for index in with_images],
                [numbers[index] for index in with_images],
                options,
            )
        for index, row in zip(with_images, split_rows(batch, needed_inputs(family, batch)), strict=True):
            tokens[index] = row
        extras = {name: value for name, value in batch.items() if name not in _NOT_IMAGES}
        for name in extras.keys() & set(family.row_inputs):
            extras[name] = spread_rows(torch.as_tensor(extras[name]), with_images, len(prompts))
    for index, row_ids in zip(plain, processor.text_ids([prompts[index].string for index in plain]), strict=True):
        ids = torch.as_tensor(row_ids, dtype=torch.long)
        tokens[index] = {"input_ids": ids} | {name: torch.zeros_like(ids) for name in family.required}
    return tokens, extras
