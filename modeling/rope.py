"""Positions: what a backbone's RoPE counts, and from how many tokens on it counts in another way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig

from .image_inputs import parameters_of


def rope_positions(backbone: Any, tokens: list[int], images: Mapping[str, Any]) -> torch.Tensor:
    """M-RoPE positions `(A, P)` int64 of tokens with these images, on the CPU, as the backbone itself counts them."""
    ids = torch.tensor([tokens], dtype=torch.long)
    if not images:
        return torch.arange(len(tokens)).expand(rope_axes(backbone.config), -1)
    types = ids.eq(backbone.config.image_token_id).long()
    offered = {"input_ids": ids, "mm_token_type_ids": types, "attention_mask": torch.ones_like(ids), **images}
    wanted = parameters_of(backbone.get_rope_index)
    positions = backbone.get_rope_index(**{name: value for name, value in offered.items() if name in wanted})[0]
    return positions[:, 0].long()


def rope_axes(config: PreTrainedConfig) -> int:
    """Number of axes along which M-RoPE counts tokens: 3, but for backbones that also count images."""
    sections = [kind.get("mrope_section") for kind in rope_kinds(config.get_text_config())]
    return max([len(section) for section in sections if section] or [3])


def rope_kinds(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The RoPE parameters of a language model: one entry, or one for each kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters] if "rope_type" in parameters else list(parameters.values())
    return [kind for kind in kinds if isinstance(kind, dict) and "rope_type" in kind]


def rope_limit_of(config: PreTrainedConfig) -> int | None:
    """Tokens of a row beyond which a backbone uses other RoPE factors (longrope); `None` if it never does."""
    text = config.get_text_config()
    longrope = [kind for kind in rope_kinds(text) if kind["rope_type"] == "longrope"]
    if not longrope:
        return None
    return longrope[0].get("original_max_position_embeddings") or text.original_max_position_embeddings
