"""Pooling of hidden states into one vector a row, for either padding side, and vectors of fewer values."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize


def last_token_index(attention_mask: torch.Tensor) -> torch.Tensor:
    """Column of the last attended token of each row.

    Args:
        attention_mask: `(B, L)`, non-zero at tokens, whatever the padding side.

    Returns:
        `(B,)` int64.
    """
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


def truncate_embeddings(vectors: torch.Tensor, dim: int, normalized: bool) -> torch.Tensor:
    """Keeps the first values of each vector.

    Args:
        vectors: `(N, D)`.
        dim: Values that stay.
        normalized: Whether the result has length 1 again.

    Returns:
        `(N, dim)`.

    Raises:
        ValueError: The vectors have fewer values.
    """
    if not 0 < dim <= vectors.shape[-1]:
        raise ValueError(f"dim={dim} does not fit vectors of {vectors.shape[-1]} values.")
    shorter = vectors[..., :dim]
    return normalize(shorter, dim=-1) if normalized else shorter
