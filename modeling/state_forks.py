"""Recurrent layers over packs: what a layer remembers of a prefix is computed once, and forked for each of its texts.

Linear attention, state-space layers and short convolutions mix tokens by a state that runs along the row, and take and
give that state through transformers' cache. In a pack such a layer (a **mixer**) therefore runs several times by its
own code: over a bucket's prefixes as one batch, with an empty cache that keeps the states behind their last tokens, and
over each block of texts with a cache that hands every text the states of its prefix. Gradients flow through the states.
Prefixes of a bucket are of one length, and texts are filled up at their ends, so that no state is read behind padding.
The states behind prefixes can be kept for a later pass that runs texts only. Adapters act in each run on the tokens of
the pack that it is given.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from .activated import Routes, acting, current_routes, set_routes
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
        place: Where its tokens begin in the pack.
        block: The block of texts; `None` for prefixes.
        numbers: Numbers of the groups whose prefixes these are.
    """

    rows: torch.Tensor
    states: States
    place: int
    block: Block | None = None
    numbers: tuple[int, ...] = ()

    def tokens(self, rows: torch.Tensor) -> torch.Tensor:
        """What the mixer made of the rows, as the tokens `(1, tokens, H)` of the pack."""
        if self.block is None:
            return rows.flatten(0, 1)[None]
        return self.block.gather(rows[:, None, : self.block.width])[:, :, 0]

    def places(self) -> torch.Tensor:
        """Which tokens of the pack the rows hold, `(B * T,)` int64."""
        device = self.rows.device
        if self.block is None:
            return self.place + torch.arange(self.rows.shape[0] * self.rows.shape[1], device=device)
        pad = self.block.pad
        places = self.place + (torch.arange(self.block.tokens, device=device) if pad is None else pad)
        return places.repeat_interleave(2) if self.block.width == 1 else places


@dataclass(frozen=True)
class LastStates(States):
    """The cache of a mixer's last run over a pack, which knows what the runs before it gave.

    Args:
        run: The last run.
        pieces: `(1, tokens, H)` of each earlier run, in the order of the pack.
        routes: The tokens of the pack that adapters act on.
    """

    run: Run | None = None
    pieces: tuple[torch.Tensor, ...] = ()
    routes: Routes | None = None


def fork_states(backbone: nn.Module) -> None:
    """Lets all mixers of a backbone take packs. Without a layout among their arguments they run as before."""
    with _GUARD:
        if getattr(backbone, MARK, False):
            return
        for module in backbone.modules():
            if is_mixer(module):
                module.register_forward_pre_hook(before_mixer, with_kwargs=True)
                module.register_forward_hook(after_mixer, with_kwargs=True, always_call=True)
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
    runs, routes = runs_of(layout, hidden, module), current_routes()
    pieces = []
    for _ in range(count_runs(layout) - 1):
        run = next(runs)
        with acting(routes and routes.of(run.places())):
            pieces.append(run.tokens(module.forward(run.rows, **others, **{cache: run.states})))
        if layout.prefixes is not None and run.block is None:
            layout.prefixes.states.keep_memory(module, run.numbers, run.states.end)
    last = next(runs)
    set_routes(routes and routes.of(last.places()))  # until `after_mixer`
    states = LastStates(last.states.start, run=last, pieces=tuple(pieces), routes=routes)
    return (last.rows,), {**others, cache: states}


def after_mixer(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], rows: Any) -> torch.Tensor | None:
    """Joins what a mixer made of all parts of a pack, `(1, N, H)`; called also when its last run failed."""
    states = next((value for value in options.values() if isinstance(value, LastStates)), None)
    if states is None or states.run is None:
        return None
    set_routes(states.routes)
    return None if rows is None else torch.cat([*states.pieces, states.run.tokens(rows)], dim=1)


def count_runs(layout: TreeLayout) -> int:
    """How many runs a pack takes."""
    known = layout.prefixes is not None and layout.prefixes.known
    return sum(bool(bucket.prefix and not known) + len(bucket.blocks) for bucket in layout.buckets)


def runs_of(layout: TreeLayout, hidden: torch.Tensor, module: nn.Module) -> Iterator[Run]:
    """The runs of a mixer over the tokens `(1, N, H)` of a pack. Each must be through before the next one is asked for.

    Where prefixes are known, the tokens are those of the texts, which start from the states that were kept.
    """
    prefixes = layout.prefixes
    known = prefixes is not None and prefixes.known
    place = 0
    for number, bucket in enumerate(layout.buckets):
        groups = prefixes.numbers[number] if prefixes is not None else ()
        sizes = bucket.sizes[1:] if known else bucket.sizes
        parts = iter(hidden[:, place : place + sum(sizes)].split(sizes, dim=1))
        states = States()
        if not known:
            front = next(parts)
            if bucket.prefix:
                yield Run(front[0].unflatten(0, (bucket.groups, bucket.prefix)), states, place, numbers=groups)
            place += bucket.sizes[0]
        elif bucket.prefix and prefixes is not None:
            states = States(end=prefixes.states.memory(module, groups))
        for block, tokens in zip(bucket.blocks, parts, strict=True):
            yield Run(spread(block, tokens), states.fork(block.texts), place, block)
            place += block.tokens


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
