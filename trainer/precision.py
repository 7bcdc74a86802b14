"""The number format and attention kernel with which this machine trains fastest, and correctly."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def has_fast_bf16() -> bool:
    """Whether bfloat16 is native on the GPU in use, or, without one, in the CPU's vector units and faster there."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    native = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.cpu.get_capabilities().get(
        "avx512_bf16"
    )
    return bool(native) and bf16_wins()


@cache
def bf16_wins(rounds: int = 7) -> bool:
    """Whether bfloat16 autocast trains a small MLP faster than float32, on one thread of this CPU.

    Instructions for it are no proof: of two processors that have them, it halves the time of a step on one (AMD) and
    takes 1.3 to 1.9 times as long as float32 on the other (Intel, without matrix units). The shortest of several
    rounds counts, which other processes do not lengthen.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain, autocast = zip(*((mlp_seconds(False), mlp_seconds(True)) for _ in range(rounds)), strict=True)
    finally:
        torch.set_num_threads(threads)
    return min(autocast) < min(plain)


def mlp_seconds(autocast: bool) -> float:
    """Seconds of a forward and a backward pass."""
    with torch.random.fork_rng(devices=[]):
        states = torch.randn(1024, 128)
        mlp = nn.Sequential(nn.Linear(128, 384), nn.SiLU(), nn.Linear(384, 128))
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = mlp(states).float().square().mean()
    loss.backward()
    return time.perf_counter() - started


def training_precision() -> dict[str, Any]:
    """Flags of `transformers.TrainingArguments`: bfloat16 autocast where it is native, else float32."""
    return {"bf16": has_fast_bf16(), "use_cpu": not torch.cuda.is_available()}


def eager_is_faster() -> bool:
    """Whether eager attention trains faster in bfloat16 than the fused kernel: on a CPU that is fast in it.

    The backward pass of the fused kernel is slow there: 145 ms against 58 ms a step of the tiny model.
    """
    return has_fast_bf16() and not torch.cuda.is_available()


def training_attention(model: PreTrainedModel) -> None:
    """Switches to eager attention where that is faster, see `eager_is_faster`."""
    if eager_is_faster():
        model.set_attn_implementation("eager")
