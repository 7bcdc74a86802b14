"""Telling memory that ran out from other failures."""

from __future__ import annotations

import gc

import torch

_TEXTS = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is memory that ran out, of a GPU or of the machine; the CPU's allocator raises a `RuntimeError`."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def free_memory() -> None:
    """Gives back what a failed pass held; call it when the exception is no longer handled, as that holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
