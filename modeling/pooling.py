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


POOLINGS = ("lasttoken", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "image_span")
"""Ways to pool; several joined by `+` give their vectors side by side. The names are those of sentence-transformers,
`image_span` aside: the mean over an image and the marks around it, over all tokens of a row without (jina-v4)."""


def check_pooling(pooling: str) -> str:
    """The pooling, or a `ValueError` if it is unknown."""
    unknown = [mode for mode in pooling.split("+") if mode not in POOLINGS]
    if unknown:
        raise ValueError(f"pooling={pooling!r} is unknown; choose one of {', '.join(POOLINGS)}, or several with +.")
    return pooling


def pool(
    hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: str, span: torch.Tensor | None = None
) -> torch.Tensor:
    """Pools hidden states, in their own dtype for single tokens and at least in float32 for means.

    Args:
        hidden: `(B, L, H)`.
        attention_mask: `(B, L)`.
        pooling: One of `POOLINGS`, or several joined by `+`.
        span: `(B, L)` bool, the tokens of `image_span`.

    Returns:
        `(B, H)` for each way, side by side, un-normalised.
    """
    mask = attention_mask.ne(0).to(hidden.device)
    return torch.cat([_pool_one(hidden, mask, mode, span) for mode in pooling.split("+")], dim=-1)


def _pool_one(hidden: torch.Tensor, mask: torch.Tensor, mode: str, span: torch.Tensor | None) -> torch.Tensor:
    if mode in ("lasttoken", "cls"):
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        columns = last_token_index(mask) if mode == "lasttoken" else mask.int().argmax(dim=1)
        return hidden[rows, columns]
    if mode == "max":
        return hidden.masked_fill(~mask[..., None], float("-inf")).amax(dim=1)
    if mode == "image_span" and span is not None:
        mask = span.to(hidden.device)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    weights = mask.to(wide)
    if mode == "weightedmean":
        weights = weights * mask.cumsum(dim=1).to(wide)
    total = (hidden.to(wide) * weights[..., None]).sum(dim=1)
    count = weights.sum(dim=1, keepdim=True)
    return (total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)).to(hidden.dtype)


def image_span(config: Any, input_ids: torch.Tensor | None, attention_mask: torch.Tensor) -> torch.Tensor | None:
    """The tokens of `image_span`, `(B, L)` bool: from an image's first mark through its last; `None` if not needed.

    Args:
        config: An `XVLM2VecConfig`, whose backbone names the marks.
        input_ids: `(B, L)` int64.
        attention_mask: `(B, L)`.

    Raises:
        ValueError: There are no ids to look for the marks.
    """
    if "image_span" not in config.pooling.split("+"):
        return None
    if input_ids is None:
        raise ValueError("pooling='image_span' looks for the marks around images: pass `input_ids`.")
    start, end = config.vlm_config.vision_start_token_id, config.vlm_config.vision_end_token_id
    opened, closed = input_ids.eq(start).cumsum(dim=1), input_ids.eq(end).cumsum(dim=1)
    inside = (opened > closed) | input_ids.eq(end)
    attended = attention_mask.ne(0)
    return torch.where(opened[:, -1:] > 0, inside & attended, attended)


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
