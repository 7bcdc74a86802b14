"""The forward pass of a batch through a backbone: its hidden states, each row's as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel

from .backbone_inputs import backbone_inputs
from .families import Family
from .image_inputs import join_images, like_shapes


def backbone_states(
    backbone: PreTrainedModel,
    family: Family,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor,
    given: Mapping[str, Any],
) -> torch.Tensor:
    """Hidden states `(B, L, H)` of a batch.

    Args:
        backbone: The vision-language model.
        family: Its family.
        input_ids: `(B, L)` int64, or `None` if embeddings are passed.
        attention_mask: `(B, L)`.
        given: All other inputs by name. A list has the image inputs row by row, `None` for a row without images.

    Raises:
        ValueError: An input is missing without which the backbone would silently compute other vectors.
    """
    if not family.mixes and not family.padded_right:
        return _states(backbone, family, input_ids, attention_mask, given)
    whole = {"input_ids": input_ids, **given}
    by_row = {name: values for name, values in whole.items() if isinstance(values, list)}
    images = [
        {name: values[row] for name, values in by_row.items() if values[row] is not None}
        for row in range(len(attention_mask))
    ]
    order = attention_mask.eq(0).long().argsort(dim=1, stable=True)  # tokens first, then padding
    tokens = {name: _ordered(values, order) for name, values in whole.items() if name not in by_row}
    lengths = attention_mask.ne(0).sum(dim=1).tolist()
    states: torch.Tensor | None = None
    for rows in _passes(family, images, lengths):
        longest = max(lengths[row] for row in rows)
        part = {name: _cut(values, rows, order.shape, longest) for name, values in tokens.items()}
        part |= join_images([images[row] for row in rows])
        mask = _cut(attention_mask.gather(1, order), rows, order.shape, longest)
        result = _states(backbone, family, part.pop("input_ids"), mask, part)
        states = result.new_zeros(*order.shape, result.shape[-1]) if states is None else states
        padded = pad(result, (0, 0, 0, order.shape[1] - longest))
        states = states.index_copy(0, torch.tensor(rows, device=result.device), padded)
    assert states is not None
    return _ordered(states, order.argsort(dim=1))


def _passes(family: Family, images: Sequence[Mapping[str, Any]], lengths: Sequence[int]) -> list[list[int]]:
    """Rows of each pass: those that may meet."""
    if family.mixes == "rows":
        return [[row] for row in range(len(lengths))]
    alike = like_shapes(images)
    if family.mixes != "lengths":
        return alike
    return [[row for row in rows if lengths[row] == length] for rows in alike for length in {lengths[r] for r in rows}]


def _states(
    backbone: PreTrainedModel,
    family: Family,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor,
    given: Mapping[str, Any],
) -> torch.Tensor:
    inputs = backbone_inputs(family, backbone, input_ids, attention_mask, dict(given))
    tokens = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    return _last_states(backbone, {**tokens, **inputs})


def _last_states(backbone: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
    """Hidden states of a base model; of an encoder and decoder, those of the encoder."""
    if backbone.config.is_encoder_decoder:
        mask = inputs["attention_mask"]
        inputs = {**inputs, "decoder_input_ids": torch.zeros(len(mask), 1, dtype=torch.long, device=mask.device)}
    outputs = backbone(return_dict=True, **inputs)
    for name in ("encoder_last_hidden_state", "last_hidden_state", "logits"):
        states = getattr(outputs, name, None)
        if states is not None:
            return states
    raise ValueError(f"{type(backbone).__name__} gives no `last_hidden_state`, so there is nothing to pool.")


def _ordered(values: Any, order: torch.Tensor) -> Any:
    """Per-token values `(B, L, ...)` in another order of tokens; anything else as it is."""
    if not isinstance(values, torch.Tensor) or values.shape[:2] != order.shape:
        return values
    places = order.reshape(*order.shape, *([1] * (values.ndim - 2))).expand_as(values)
    return values.gather(1, places)


def _cut(values: Any, rows: list[int], shape: torch.Size, longest: int) -> Any:
    """These rows of per-token values, as long as the longest row, and without images that none of them has."""
    if not isinstance(values, torch.Tensor) or values.shape[:2] != shape:
        return values
    values = values[rows, :longest]
    if values.ndim == 2:
        return values
    used = values.flatten(3).any(dim=-1).flatten(0, 1).any(dim=0).nonzero() if values.ndim > 3 else None
    if used is None:
        return values
    return values[:, :, : int(used.max()) + 1] if len(used) else None
