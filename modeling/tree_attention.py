"""Attention over packed rows in which several texts continue one prefix: each text sees its prefix and itself.

Registered with transformers as the attention implementation `"tree"`. A forward pass that is given a `TreeLayout` as
its keyword `tree` runs causal attention over the prefixes, and then over `[prefix, own text]` for all texts of a bucket
at once, so that nothing is computed that would be masked away. Any other forward pass runs the plain `"sdpa"`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .causal_attention import causal, prepend_prefix, sdpa
from .concurrency import attention_to_change, set_attention
from .prefix_states import PackPrefixes, known_attention

NAME = "tree" if __name__.startswith("xvlm2vec.") else f"tree in {__name__}"
"""The attention's name: transformers has one table for all, and each release in a process its own code."""


UNKNOWN = ("softcap", "position_bias", "s_aux", "sinks", "cache")
"""What some layers ask of their attention, and this one does not compute."""


@dataclass(frozen=True)
class Block:
    """Texts of like length, side by side in a pack.

    Args:
        texts: Texts of each group of the bucket.
        rows: Number `R` of texts of all groups in the bucket.
        tokens: Tokens of all texts together.
        width: Tokens `T` of the longest text.
        pad: `(R * T,)` int64, for each place of the padded texts a token of the block; `None` if every text has `T`
            tokens.
        unpad: `(tokens,)` int64, the place of each token among the padded texts; `None` like `pad`.
    """

    texts: int
    rows: int
    tokens: int
    width: int
    pad: torch.Tensor | None = None
    unpad: torch.Tensor | None = None

    def spread(self, states: torch.Tensor) -> torch.Tensor:
        """Texts on end, `(1, heads, tokens, D)`, as padded rows `(R, heads, T, D)`."""
        if self.pad is not None:
            states = states.index_select(2, self.pad)
        return states[0].unflatten(1, (self.rows, self.width)).transpose(0, 1)

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Padded rows `(R, heads, T, D)` as texts on end, `(1, tokens, heads, D)`."""
        states = rows.transpose(1, 2).flatten(0, 1)
        return (states if self.unpad is None else states.index_select(0, self.unpad))[None]


@dataclass(frozen=True)
class Bucket:
    """Groups of one shape, side by side in a pack: all their prefixes, then their texts, the short ones first.

    Args:
        groups: Number of groups `G`.
        prefix: Tokens `P` of each prefix; may be 0.
        blocks: The texts; each block has the same number of every group.
    """

    groups: int
    prefix: int
    blocks: tuple[Block, ...]

    @property
    def sizes(self) -> list[int]:
        """Tokens of all prefixes, and of each block."""
        return [self.groups * self.prefix, *(block.tokens for block in self.blocks)]

    def to(self, device: torch.device) -> Bucket:
        """The same bucket on another device."""
        return move(self, device, blocks=tuple(move(block, device) for block in self.blocks))


@dataclass(frozen=True)
class TreeLayout:
    """Where prefixes and texts lie in a pack of `N` tokens.

    Args:
        buckets: They follow each other.
        group: `(N,)` int64, the group of each token.
        text: `(N,)` int64, the text of each token, numbered over the pack; -1 in a prefix.
        index: `(N,)` int64, the place of each token in its full row.
        dense: Mask one attention over all tokens instead: far slower, for checks.
        images: `(N,)` int64, for backbones whose images' tokens see each other in both directions: the number of each
            token's image, counted over the pack, and -1 where it is of none.
        image_layers: In which layers they do so, as in `Family.image_layers`.
        prefixes: Keeps what the pass makes of prefixes, or holds it, so that the pass has the tokens of texts only.
    """

    buckets: tuple[Bucket, ...]
    group: torch.Tensor
    text: torch.Tensor
    index: torch.Tensor
    dense: bool = False
    images: torch.Tensor | None = None
    image_layers: str = ""
    prefixes: PackPrefixes | None = None

    def to(self, device: torch.device) -> TreeLayout:
        """The same layout on another device."""
        return move(self, device, buckets=tuple(bucket.to(device) for bucket in self.buckets))

    def mask(self, window: int | None) -> torch.Tensor:
        """`(N, N)` bool, whether the query (row) sees the key (column), within a sliding window if there is one."""
        query, key = (..., None), (None, ...)
        sees = self.sees(self.index, self.images, window) & (self.group[query] == self.group[key])
        return sees & ((self.text[key] == -1) | (self.text[key] == self.text[query]))

    def prefix_masks(self, window: int | None) -> list[torch.Tensor | None]:
        """What tokens of each bucket's prefixes see, `(G, 1, P, P)` bool; `None` where that is what stands before."""
        if self.images is None or (self.image_layers == "windows" and window is None):
            return [None] * len(self.buckets)
        masks: list[torch.Tensor | None] = []
        start = 0
        for bucket in self.buckets:
            place, shape = slice(start, start + bucket.sizes[0]), (bucket.groups, bucket.prefix)
            index, images = (part[place].unflatten(0, shape) for part in (self.index, self.images))
            masks.append(self.sees(index, images, window)[:, None])
            start += sum(bucket.sizes)
        return masks

    def sees(self, index: torch.Tensor, images: torch.Tensor | None, window: int | None) -> torch.Tensor:
        """Which tokens `(..., N, N)` of one row see each other, given their places and images `(..., N)`."""
        back = index[..., :, None] - index[..., None, :]
        within = back < window if window is not None else torch.ones_like(back, dtype=torch.bool)
        sees = (back >= 0) & within
        if images is None or (self.image_layers == "windows" and window is None):
            return sees
        same = (images[..., :, None] == images[..., None, :]) & (images[..., :, None] >= 0)
        return sees | (same if self.image_layers == "any distance" else same & within)


def move(instance: Any, device: torch.device, **changes: Any) -> Any:
    """A copy of a dataclass with its tensors on a device, and with these `changes` to its fields."""
    fields = {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}
    moved = {name: value.to(device) for name, value in fields.items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(instance, **{**moved, **changes})


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    tree: TreeLayout | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls for an attention layer.

    Args:
        module: The layer.
        query: `(B, heads, N, D)`; with a layout `B` is 1.
        key: `(B, key heads, N, D)`.
        value: As `key`.
        attention_mask: For the plain attention only.
        tree: The layout of the pack; `None` runs the plain attention.
        **options: `dropout`, `scaling`, `sliding_window`, and what concerns the plain attention only.

    Returns:
        `(B, N, heads, D)`, and nothing in place of attention weights.

    Raises:
        ValueError: The layer wants something that this attention does not compute.
    """
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    unknown = [name for name in UNKNOWN if options.get(name) is not None]
    if unknown:
        raise ValueError(f"Tree attention knows no `{unknown[0]}`, which {type(module).__name__} asks for.")
    settings: dict[str, Any] = {"scale": options.get("scaling"), "dropout_p": options.get("dropout") or 0.0}
    window = options.get("sliding_window")
    if tree.dense:
        settings["attn_mask"] = tree.mask(window)
        result = sdpa(query, key, value, enable_gqa=query.shape[1] != key.shape[1], **settings)
        return result.transpose(1, 2).contiguous(), None
    known = tree.prefixes is not None and tree.prefixes.known
    sizes = [size for bucket in tree.buckets for size in (bucket.sizes[1:] if known else bucket.sizes)]
    parts = iter(zip(*(states.split(sizes, dim=2) for states in (query, key, value)), strict=True))
    pieces = []
    for place, (bucket, mask) in enumerate(zip(tree.buckets, tree.prefix_masks(window), strict=True)):
        prefix = None if known else next(parts)
        texts = list(islice(parts, len(bucket.blocks)))
        if tree.prefixes is not None:
            numbers = tree.prefixes.numbers[place]
            if prefix is None:
                pieces += known_attention(module, bucket, numbers, texts, tree.prefixes.states, window, settings)
                continue
            keep_prefixes(tree.prefixes, module, bucket, numbers, prefix)
        if prefix is not None:
            pieces += bucket_attention(bucket, prefix, texts, window, settings, mask)
    return torch.cat(pieces, dim=1), None


def keep_prefixes(
    prefixes: PackPrefixes, layer: torch.nn.Module, bucket: Bucket, numbers: Sequence[int], states: States
) -> None:
    """Keeps the keys and values of a bucket's prefixes, of whose groups these are the numbers."""
    if bucket.prefix:
        shape = (bucket.groups, bucket.prefix)
        key, value = (part[0].unflatten(1, shape).transpose(0, 1) for part in states[1:])
        prefixes.states.keep(layer, numbers, key, value)


States = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values."""


def bucket_attention(
    bucket: Bucket,
    prefixes: States,
    texts: list[States],
    window: int | None,
    settings: dict[str, Any],
    mask: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Attention of one bucket.

    Args:
        bucket: The bucket.
        prefixes: Queries, keys and values `(1, heads, G * P, D)` of its prefixes.
        texts: The same `(1, heads, tokens, D)` of each block.
        window: Tokens that a sliding window sees.
        settings: `scale` and `dropout_p`.
        mask: `(G, 1, P, P)` bool, what tokens of the prefixes see, where that is not just what stands before.

    Returns:
        `(1, G * P, heads, D)`, and `(1, tokens, heads, D)` of each block.
    """
    rows: list[States] = [
        (block.spread(query), block.spread(key), block.spread(value))
        for block, (query, key, value) in zip(bucket.blocks, texts, strict=True)
    ]
    pieces = []
    if bucket.prefix:
        shape = (bucket.groups, bucket.prefix)
        query, key, value = (states[0].unflatten(1, shape).transpose(0, 1) for states in prefixes)
        seen = causal(query, key, value, window=window, settings=settings, mask=mask)
        pieces.append(seen.transpose(1, 2).flatten(0, 1)[None])
        rows = [(first, prepend_prefix(key, second), prepend_prefix(value, third)) for first, second, third in rows]
    attended = [causal(*states, window=window, settings=settings) for states in rows]
    return pieces + [block.gather(states) for block, states in zip(bucket.blocks, attended, strict=True)]


def use_tree(backbone: PreTrainedModel) -> None:
    """Sets the attention of a backbone's language model to `"tree"`; without a layout it stays the plain attention.

    Raises:
        ValueError: Its language model runs another attention than `"sdpa"`.
    """
    config = backbone.config.get_text_config()
    with attention_to_change(config):
        if config._attn_implementation == NAME:
            return
        if config._attn_implementation != "sdpa":
            raise ValueError(
                f"Packed rows need the attention 'sdpa', not {config._attn_implementation!r}: load the model with "
                "attn_implementation='sdpa'."
            )
        set_attention(config, NAME)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
