"""Causal attention of rows, and the fused kernel in the number format in which it is fast."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

REDUCED = (torch.bfloat16, torch.float16)


def sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` in the form that is fast on this device.

    On a CPU it is in float32, though its states have fewer bits, and where its gradient is wanted and rows are short,
    not by the fused kernel: its backward pass is made of small products, slow ones in bfloat16. The scores that are
    then kept take at most twice the memory of the states.

    Args:
        query: `(B, heads, T, D)`.
        key: `(B, key heads, S, D)`.
        value: As `key`.
        attn_mask: `(T, S)` or `(B, 1, T, S)` bool.
        dropout_p: As there, like all that follows.
        is_causal: As there.
        scale: As there.
        enable_gqa: As there.

    Returns:
        `(B, heads, T, D)` in the query's dtype.
    """
    settings: dict[str, Any] = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale}
    fused = {**settings, "dropout_p": dropout_p, "enable_gqa": enable_gqa}
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, **fused)
    with torch.autocast("cpu", enabled=False):
        dtype = query.dtype
        query, key, value = (s.float() if s.dtype in REDUCED else s for s in (query, key, value))
        if query.requires_grad and key.shape[2] <= 2 * key.shape[3] and not dropout_p:
            return short_attention(query, key, value, **settings).to(dtype)
        return scaled_dot_product_attention(query, key, value, **fused).to(dtype)


def short_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    is_causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """Attention step by step; heads that share a key are further queries of it."""
    tokens, share = query.shape[2], query.shape[1] // key.shape[1]
    scale = query.shape[3] ** -0.5 if scale is None else scale
    scores = (query.unflatten(1, (-1, share)).flatten(2, 3) * scale) @ key.transpose(2, 3)
    if is_causal:
        attn_mask = torch.ones(tokens, key.shape[2], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask.tile(share, 1), float("-inf"))
    return (scores.softmax(dim=-1) @ value).unflatten(2, (share, tokens)).flatten(1, 2)


def prepend_prefix(prefix: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Prepends each text's prefix: `(G, heads, P, D)` and `(G * K, heads, T, D)` to `(G * K, heads, P + T, D)`."""
    rows = rows.unflatten(0, (len(prefix), -1))
    shared = prefix[:, None].expand(-1, rows.shape[1], -1, -1, -1)
    return torch.cat([shared, rows], dim=3).flatten(0, 1)


def causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int | None,
    settings: dict[str, Any],
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of the last `T` tokens of rows.

    Args:
        query: `(R, heads, T, D)`.
        key: `(R, key heads, S, D)`, `S >= T`; each serves `heads / key heads` neighbouring heads of the query.
        value: As `key`.
        window: Tokens that a sliding window sees.
        settings: `scale` and `dropout_p`.
        mask: `(R, 1, T, S)` bool, which keys queries see, instead of those before them.

    Returns:
        `(R, heads, T, D)`.
    """
    tokens, seen = query.shape[2], key.shape[2]
    share = query.shape[1] // key.shape[1]
    windowed = window is not None and window < seen
    if tokens == seen and not windowed and mask is None:
        return sdpa(query, key, value, is_causal=True, enable_gqa=share > 1, **settings)
    if mask is None and (tokens > 1 or windowed):
        ahead = (
            torch.arange(seen, device=query.device) - torch.arange(seen - tokens, seen, device=query.device)[:, None]
        )
        mask = (ahead <= 0) & (ahead > -window) if windowed and window is not None else ahead <= 0
    if share == 1:
        return sdpa(query, key, value, attn_mask=mask, **settings)
    # The heads that share a key stand behind each other as further queries: no key is repeated in memory.
    folded = query.unflatten(1, (-1, share)).flatten(2, 3)
    repeated = None if mask is None else mask.tile(share, 1)
    return sdpa(folded, key, value, attn_mask=repeated, **settings).unflatten(2, (share, tokens)).flatten(1, 2)
