"""Recurrent layers over packs: what a layer remembers of a prefix is computed once, and forked for each of its texts.

Linear attention, state-space layers and short convolutions mix tokens by a state that runs along the row, and take and
give that state through transformers' cache. In a pack such a layer (a **mixer**) therefore runs several times by its
own code: over a bucket's prefixes as one batch, with an empty cache that keeps the states behind their last tokens, and
over each block of texts with a cache that hands every text the states of its prefix. Gradients flow through the states.
Prefixes of a bucket are of one length, and texts are filled up at their ends, so that no state is read behind padding.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from .tree_attention import Block, TreeLayout

CACHES = ("cache_params", "past_key_values")
"""What mixers call their cache."""
MASKS = ("attention_mask", "conv_mask")
"""What mixers call the mask of padding, of which a pack has none."""
RECURRENT = frozenset({"linear_attention", "conv"})
"""Kinds of layers that mix tokens by a mixer alone."""
OTHER_KINDS = frozenset({"full_attention", "sliding_attention", "reference_sliding_attention", "moe", "mlp"})
"""Kinds of layers that go through the attention `"tree"`, or do not mix tokens."""
MARK = "forks_states"
"""An attribute of backbones whose mixers have their hooks, which copies of a backbone have, too."""

_GUARD = threading.Lock()
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class States:
    """A mixer's cache in one run: the states that it starts from, and those that it leaves behind.

    The methods are those of transformers' `Cache` that mixers call; nothing is written in place or detached.

    Args:
        start: States to start from, by kind and number: convolution inputs `(B, C, W)`, and recurrent states.
        end: The same behind the last token.
    """

    start: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)
    end: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        """The inputs of a convolution before the first token."""
        return self.start.get(("conv", state_idx))

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        """The recurrent state before the first token."""
        return self.start.get(("recurrent", state_idx))

    def update_conv_state(
        self, conv_states: torch.Tensor, layer_idx: int, state_idx: int = 0, conv_kernel_size: int = 0, **_: Any
    ) -> torch.Tensor:
        """Keeps the last inputs `(B, C, W)` of a convolution; returns all, those before the first token included."""
        before = self.start.get(("conv", state_idx))
        whole = conv_states if before is None else torch.cat([before, conv_states], dim=-1)
        whole = pad(whole, (max(conv_kernel_size - whole.shape[-1], 0), 0))
        self.end["conv", state_idx] = whole[..., -conv_kernel_size:]
        return whole

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> torch.Tensor:
        """Keeps the recurrent state behind the last token."""
        self.end["recurrent", state_idx] = recurrent_states
        return recurrent_states

    def fork(self, texts: int) -> States:
        """Hands the states behind each of `G` prefixes to that many texts of it, `G * texts` in all."""
        return States({name: state.repeat_interleave(texts, dim=0) for name, state in self.end.items()})


@dataclass(frozen=True)
class Run:
    """One call of a mixer: the prefixes of a bucket, or a block of its texts.

    Args:
        rows: `(B, T, H)`, padded at their ends.
        states: What the rows start from; what the call leaves behind is kept there.
        block: The block of texts; `None` for prefixes.
    """

    rows: torch.Tensor
    states: States
    block: Block | None = None

    def tokens(self, rows: torch.Tensor) -> torch.Tensor:
        """What the mixer made of the rows, as the tokens `(1, tokens, H)` of the pack."""
        if self.block is None:
            return rows.flatten(0, 1)[None]
        return self.block.gather(rows[:, None, : self.block.width])[:, :, 0]


@dataclass(frozen=True)
class LastStates(States):
    """The cache of a mixer's last run over a pack, which knows what the runs before it gave.

    Args:
        run: The last run.
        pieces: `(1, tokens, H)` of each earlier run, in the order of the pack.
    """

    run: Run | None = None
    pieces: tuple[torch.Tensor, ...] = ()


def fork_states(backbone: nn.Module) -> None:
    """Lets all mixers of a backbone take packs. Without a layout among their arguments they run as before."""
    with _GUARD:
        if getattr(backbone, MARK, False):
            return
        for module in backbone.modules():
            if is_mixer(module):
                module.register_forward_pre_hook(before_mixer, with_kwargs=True)
                module.register_forward_hook(after_mixer, with_kwargs=True)
        setattr(backbone, MARK, True)


def is_mixer(module: nn.Module) -> bool:
    """Whether a module mixes tokens by states, and takes them, and the layout of a pack, as arguments."""
    parameters = inspect.signature(module.forward).parameters.values()
    return has_states(module) and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def has_states(module: nn.Module) -> bool:
    """Whether a module convolves along the tokens, and takes a cache."""
    return any(isinstance(child, nn.Conv1d) for child in module.children()) and bool(cache_name(module))


def unknown_layers(decoder: Any, kinds: Sequence[str]) -> list[str]:
    """Kinds of a decoder's layers, as its configuration names them, through which a pack cannot go."""
    if any(has_states(module) and not is_mixer(module) for module in decoder.modules()):
        return ["recurrent"]
    pairs = [
        (kind, layer)
        for kind, layer in zip(kinds, getattr(decoder, "layers", ()), strict=False)
        if kind not in OTHER_KINDS
    ]
    return sorted({kind for kind, layer in pairs if kind not in RECURRENT or not any(map(is_mixer, layer.modules()))})


def before_mixer(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Arguments | None:
    """Runs a mixer over all of a pack but the last block of texts, over which its own call then goes."""
    layout: TreeLayout | None = options.get("tree")
    if layout is None:
        return None
    hidden = args[0] if args else options["hidden_states"]
    cache = cache_name(module)
    others = {name: value for name, value in options.items() if name not in ("tree", "hidden_states", cache, *MASKS)}
    runs = runs_of(layout, hidden)
    pieces = []
    for _ in range(count_runs(layout) - 1):
        run = next(runs)
        pieces.append(run.tokens(module.forward(run.rows, **others, **{cache: run.states})))
    last = next(runs)
    states = LastStates(last.states.start, run=last, pieces=tuple(pieces))
    return (last.rows,), {**others, cache: states}


def after_mixer(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], rows: Any) -> torch.Tensor | None:
    """Joins what a mixer made of all parts of a pack, `(1, N, H)`."""
    states = next((value for value in options.values() if isinstance(value, LastStates)), None)
    if states is None or states.run is None:
        return None
    return torch.cat([*states.pieces, states.run.tokens(rows)], dim=1)


def count_runs(layout: TreeLayout) -> int:
    """How many runs a pack takes."""
    return sum(bool(bucket.prefix) + len(bucket.blocks) for bucket in layout.buckets)


def runs_of(layout: TreeLayout, hidden: torch.Tensor) -> Iterator[Run]:
    """The runs over the tokens `(1, N, H)` of a pack. Each must be through before the next one is asked for."""
    for bucket, parts in zip(layout.buckets, split_by_bucket(layout, hidden), strict=True):
        states = States()
        if bucket.prefix:
            yield Run(parts[0][0].unflatten(0, (bucket.groups, bucket.prefix)), states)
        for block, tokens in zip(bucket.blocks, parts[1:], strict=True):
            yield Run(spread(block, tokens), states.fork(block.texts), block)


def split_by_bucket(layout: TreeLayout, hidden: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """The tokens of each bucket: all its prefixes, and those of each block."""
    sizes = [bucket.sizes for bucket in layout.buckets]
    parts = iter(hidden.split(list(chain.from_iterable(sizes)), dim=1))
    return (list(islice(parts, len(of_bucket))) for of_bucket in sizes)


def spread(block: Block, tokens: torch.Tensor) -> torch.Tensor:
    """Texts on end, `(1, tokens, H)`, as padded rows `(R, T, H)`.

    Rows are of two tokens at least: for one that has a state, mixers write into that state, and take another kernel.
    """
    rows = block.spread(tokens[:, None])[:, 0]
    return rows.expand(-1, 2, -1) if block.width == 1 else rows


def cache_name(module: nn.Module) -> str:
    """What a module calls its cache; empty if it takes none."""
    parameters = inspect.signature(module.forward).parameters
    return next((name for name in CACHES if name in parameters), "")
