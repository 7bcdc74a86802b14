"""The number format and attention kernel with which this machine trains fastest, and correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def has_fast_bf16() -> bool:
    """Whether bfloat16 is native: on the GPU in use, or, without one, in the CPU's vector units."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.cpu._is_avx512_bf16_supported())


def training_precision() -> dict[str, Any]:
    """Flags of `transformers.TrainingArguments`: bfloat16 autocast where it is native, else float32."""
    return {"bf16": has_fast_bf16(), "use_cpu": not torch.cuda.is_available()}


def training_attention(model: PreTrainedModel) -> None:
    """Switches to eager attention on a CPU with bfloat16.

    The backward pass of the fused kernel is slow there: 145 ms against 58 ms a step of the tiny model.
    """
    if has_fast_bf16() and not torch.cuda.is_available():
        model.set_attn_implementation("eager")
