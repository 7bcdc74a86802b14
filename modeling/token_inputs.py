"""Tokens of rows that one language model reads, and the images among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .family_entry import Family
from .image_tokens import NOT_IMAGES, expand_images, token_names
from .padding import TokenRow, split_rows, spread_rows
from .truncation import Prompt


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
    if not processor.recipe.special_tokens:
        options = {**options, "add_special_tokens": False}
    for rows in _parts(family, with_images):
        result, output = _expanded(
            processor,
            [prompts[row] for row in rows],
            [images[row] for row in rows],
            [numbers[row] for row in rows],
            options,
        )
        for row, row_tokens in zip(rows, result, strict=True):
            tokens[row] = row_tokens
        for name, values in output.items():
            if family.mixes:
                extras.setdefault(name, [None] * len(prompts))[rows[0]] = values
            elif name in family.row_inputs:
                extras[name] = spread_rows(torch.as_tensor(values), rows, len(prompts))
            else:
                extras[name] = values
    for index, row_ids in zip(plain, processor.text_ids([prompts[index].string for index in plain]), strict=True):
        ids = torch.as_tensor(row_ids, dtype=torch.long)
        tokens[index] = {"input_ids": ids} | {name: torch.zeros_like(ids) for name in family.required}
    return tokens, extras


def _parts(family: Family, rows: list[int]) -> list[list[int]]:
    """Rows with images that go through the family's processor together; one by one where they must not meet."""
    if family.mixes:
        return [[row] for row in rows]
    return [rows] if rows else []


def _expanded(
    processor: Any,
    prompts: Sequence[Prompt],
    images: Sequence[list[Any]],
    numbers: Sequence[Any],
    options: dict[str, Any],
) -> tuple[list[TokenRow], dict[str, Any]]:
    """Rows with images through the family's processor: the tokens of each, and the image inputs of all."""
    family = processor.family
    with processor.lock:
        batch = expand_images(processor.inner, family, prompts, images, numbers, options)
    names = token_names(family, batch)
    rows = split_rows(batch, names)
    check_images_shown(processor, rows, prompts, numbers)
    return rows, {name: value for name, value in batch.items() if name not in {*names, *NOT_IMAGES}}


def check_images_shown(
    processor: Any, rows: Sequence[TokenRow], prompts: Sequence[Prompt], numbers: Sequence[Any]
) -> None:
    """Raises a `ValueError` for a row with images none of whose tokens stands for one, as they would be lost."""
    tokens = set(image_ids(processor.inner))
    for row, prompt, number in zip(rows, prompts, numbers, strict=True):
        ids = row["input_ids"].tolist()
        if not tokens or any(value in tokens or value < 0 for value in ids):
            continue
        # Some write other tokens than they name, as Ovis 2's does; a row that has not grown holds none.
        if len(ids) <= len(processor.locked_tokenizer(prompt.string)["input_ids"]):
            raise ValueError(
                f"row {number}: {type(processor.inner).__name__} writes no token for its images, so they would be "
                "lost. Is it the processor of this model, and are its `patch_size` and image token right?"
            )


def image_ids(inner: Any) -> list[int]:
    """Ids of the tokens that a processor may write for an image; empty if it does not say."""
    result = [getattr(inner, "image_token_id", None), *(getattr(inner, "image_token_ids", None) or ())]
    token = getattr(inner, "image_token", None)
    if token:
        result.append(inner.tokenizer.convert_tokens_to_ids(str(token)))
    return [value for value in result if isinstance(value, int)]
