"""What a backbone gets beside the tokens: checks that nothing is missing that would silently change vectors."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig

from .families import Family

PICTURE_PREFIXES = ("pixel_", "image_", "batch_num_images")


def backbone_inputs(
    family: Family,
    config: PreTrainedConfig,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor,
    given: dict[str, Any],
) -> dict[str, Any]:
    """Completes and checks the inputs of one forward pass.

    Picture inputs of a batch whose tokens hold no picture are dropped (a slice of a mixed batch may carry them), and
    positions are counted over attended tokens for backbones that count tokens.

    Args:
        family: The backbone's family.
        config: The backbone's configuration.
        input_ids: `(B, L)` int64 or `None` if embeddings are given.
        attention_mask: `(B, L)`.
        given: The caller's inputs; not changed.

    Raises:
        ValueError: An input is missing without which the backbone would silently compute other vectors.
    """
    inputs = {name: value for name, value in given.items() if value is not None}
    holds_pictures = _holds_pictures(config, input_ids)
    if holds_pictures is False:
        inputs = {name: value for name, value in inputs.items() if not name.startswith(PICTURE_PREFIXES)}
    if holds_pictures and not _has_pictures(inputs):
        raise ValueError(
            "The tokens hold pictures, but there are no `pixel_values`. Was the batch cut into parts? Rows of "
            "sentence-transformers without a picture must have no `image` key rather than None there."
        )
    needed = family.required
    if any(name.startswith(PICTURE_PREFIXES) for name in inputs):
        needed = (*needed, *family.required_with_pictures)
    missing = [name for name in needed if name not in inputs]
    if missing:
        raise ValueError(
            f"A {config.model_type} backbone needs {', '.join(f'`{name}`' for name in missing)}; without, its vectors "
            "would be other ones. Pass everything that XVLM2VecProcessor returns."
        )
    if family.first_position is not None and "position_ids" not in inputs:
        positions = attention_mask.ne(0).long().cumsum(dim=1) - 1
        inputs["position_ids"] = positions.clamp(min=0) + family.first_position
    return inputs


def _holds_pictures(config: PreTrainedConfig, input_ids: torch.Tensor | None) -> bool | None:
    """Whether the tokens hold a picture's placeholder; `None` where nobody can tell, as in a compiled graph."""
    token = getattr(config, "image_token_id", None)
    if input_ids is None or token is None or torch.compiler.is_compiling():
        return None
    return bool((input_ids == token).any())


def _has_pictures(inputs: dict[str, Any]) -> bool:
    if "pixel_values" in inputs:
        return len(inputs["pixel_values"]) > 0
    return any(name.startswith((*PICTURE_PREFIXES, "mm_encoder_outputs")) for name in inputs)
