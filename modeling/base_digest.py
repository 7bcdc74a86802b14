"""What names the weights of a base, so that an adapter is put on these and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .activated import EMBEDDINGS, LORA

CHUNK = 2**20
"""Values that are looked at at a time."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MIXED = 0x9E3779B97F4A7C15


def base_digest(model: nn.Module) -> dict[str, str]:
    """What names the weights below a model's adapters, whatever their names in this version of transformers.

    Returns:
        `dtype`, the number formats of the weights; `exact`, of their values in these; and `rounded`, of their values in
        bfloat16, which also tells when the base was loaded in another format. Empty where there are no weights yet, or
        some are in 4 bits, which differ from machine to machine.
    """
    weights = base_weights(model)
    if any(weight.is_meta or not weight.is_floating_point() for weight in weights.values()):
        return {}
    dtypes = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights.values()})
    multipliers = torch.arange(CHUNK, dtype=torch.int64) * 2 * (_MIXED >> 3) + 1  # odd: a changed value changes the sum
    exact = _digest(weights, multipliers, None)
    rounded = exact if dtypes == ["bfloat16"] else _digest(weights, multipliers, torch.bfloat16)
    return {"dtype": "+".join(dtypes), "exact": exact, "rounded": rounded}


def same_base(model: nn.Module, digest: Mapping[str, str]) -> bool:
    """Whether the weights below a model's adapters are those of a digest; true where one of them is not known."""
    mine = base_digest(model)
    if not mine or not digest:
        return True
    kind = "exact" if mine["dtype"] == digest["dtype"] else "rounded"
    return mine[kind] == digest[kind]


def base_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a model without those of its adapters, tied ones once."""
    seen: set[tuple[int, torch.Size]] = set()
    result: dict[str, torch.Tensor] = {}
    for name, weight in model.state_dict().items():
        place = (weight.data_ptr(), weight.shape)
        if is_base(name) and (weight.is_meta or place not in seen) and _is_weight(weight):
            seen.add(place)
            result[name] = weight
    return result


def is_base(name: str) -> bool:
    """Whether a weight of this name belongs to the model below the adapters."""
    return not {LORA, EMBEDDINGS} & set(name.split("."))


def _is_weight(weight: Any) -> bool:
    return bool(weight.is_floating_point() or weight.dtype == torch.uint8)


def _digest(weights: Mapping[str, torch.Tensor], multipliers: torch.Tensor, dtype: torch.dtype | None) -> str:
    lines = [f"{tuple(weight.shape)} {_sums(weight.detach(), multipliers, dtype)}" for weight in weights.values()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _sums(weight: torch.Tensor, multipliers: torch.Tensor, dtype: torch.dtype | None) -> str:
    """A sum over the bits of each chunk, modulo 2^64, hashed."""
    factors = multipliers.to(weight.device)
    values = weight.reshape(-1)
    sums = []
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        part = part if dtype is None else part.to(dtype)
        bits = part.contiguous().view(_BITS[part.element_size()]).to(torch.int64)
        sums.append(int((bits * factors[: len(bits)]).sum()))
    return hashlib.sha256(repr(sums).encode()).hexdigest()
