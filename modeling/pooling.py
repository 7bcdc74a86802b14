"""Pooling of hidden states into one vector a row, for either padding side, and vectors of fewer values."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.nn.functional import normalize


def last_token_index(attention_mask: torch.Tensor) -> torch.Tensor:
    """Column `(B,)` int64 of each row's last attended token, from a mask `(B, L)` padded on either side."""
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask.ne(0) * columns).argmax(dim=1)


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pools hidden states, in their own dtype for the last token and in float32 for the mean.

    Args:
        hidden: `(B, L, H)`.
        attention_mask: `(B, L)`.
        pooling: `"lasttoken"` or `"mean"`.

    Returns:
        `(B, H)`, un-normalised.
    """
    if pooling == "lasttoken":
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return hidden[rows, last_token_index(attention_mask).to(hidden.device)]
    weights = attention_mask.ne(0).unsqueeze(-1).to(torch.float32)
    total = (hidden.to(torch.float32) * weights).sum(dim=1)
    return (total / weights.sum(dim=1)).to(hidden.dtype)


def chosen_dim(dim: int | None, truncate_dim: int | None, config: Any) -> int | None:
    """The vector size that a caller of `encode` wants under either name; `None` for whole vectors.

    Raises:
        ValueError: The two differ, or the model's vectors have fewer values.
    """
    if None not in (dim, truncate_dim) and dim != truncate_dim:
        raise ValueError(f"dim={dim} and truncate_dim={truncate_dim} are two names of one argument: pass one.")
    size = truncate_dim if dim is None else dim
    if size is not None and not 0 < size <= config.hidden_size:
        raise ValueError(f"dim={size} does not fit vectors of {config.hidden_size} values.")
    return size


def warn_of_untrained_dim(dim: int | None, config: Any) -> None:
    """Warns if a model was not trained for vectors of this size (`None`: whole ones)."""
    trained = config.matryoshka_dims or []
    if dim is None or dim in (*trained, config.hidden_size):
        return
    sizes = f"those of {', '.join(map(str, trained))} values" if trained else "whole vectors only (no matryoshka_dims)"
    warnings.warn(
        f"This model was not trained for vectors of {dim} values, but for {sizes}: expect worse scores.", stacklevel=3
    )


def truncate_embeddings(vectors: torch.Tensor, dim: int, normalized: bool) -> torch.Tensor:
    """The first `dim` values of each vector, `(N, D)` to `(N, dim)`, again of length 1 if `normalized`.

    Raises:
        ValueError: The vectors have fewer values.
    """
    if not 0 < dim <= vectors.shape[-1]:
        raise ValueError(f"dim={dim} does not fit vectors of {vectors.shape[-1]} values.")
    shorter = vectors[..., :dim]
    return normalize(shorter, dim=-1) if normalized else shorter
