"""Adapters that act on chosen tokens only: what they do not act on has the states of the base, bit for bit.

An adapter (LoRA, rank-stabilised LoRA, DoRA) lies beside the linear layers that it changes, and a copy of the token
embeddings beside these where they are trained, too. Hooks add what it makes of the tokens that `Routes` name, and do
nothing in a pass without routes. Several adapters may act in one pass, each on its own tokens.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

LORA, EMBEDDINGS = "activated", "modules_to_save"
"""Names of the children that hold adapters by name: of a linear layer, and of the token embeddings."""
_PASS = threading.local()


@dataclass(frozen=True)
class Routes:
    """Which tokens of a pass adapters act on.

    Args:
        tokens: Number `N` of tokens of the pass.
        places: For each adapter's name the places `(n,)` int64 of its tokens; `None` stands for all of them.
    """

    tokens: int
    places: Mapping[str, torch.Tensor | None]

    def of(self, tokens: torch.Tensor) -> Routes:
        """The routes of a part of a layer that is given these tokens of the pass, `(n,)` int64, some perhaps twice."""
        places: dict[str, torch.Tensor | None] = {}
        for name, mine in self.places.items():
            if mine is not None:
                chosen = torch.zeros(self.tokens, dtype=torch.bool, device=mine.device)
                chosen[mine] = True
                mine = chosen[tokens].nonzero()[:, 0]
            places[name] = mine
        return Routes(len(tokens), places)


def current_routes() -> Routes | None:
    """The routes of this thread's pass; `None` where no adapter acts."""
    return getattr(_PASS, "routes", None)


def set_routes(routes: Routes | None) -> None:
    """Adapters act in this thread as the routes say until others are set; `acting` is for what has an end."""
    _PASS.routes = routes


@contextmanager
def acting(routes: Routes | None) -> Iterator[None]:
    """Adapters act in this thread as the routes say, until the context is left."""
    before = current_routes()
    set_routes(routes)
    try:
        yield
    finally:
        set_routes(before)


@dataclass(frozen=True)
class LoraShape:
    """What an adapter is made of.

    Args:
        rank: Columns of the one matrix and rows of the other.
        scale: Factor of their product.
        dora: Whether each output's weights have a length of their own (arXiv 2402.09353).
    """

    rank: int
    scale: float
    dora: bool = False


class LoraChange(nn.Module):
    """One adapter of one linear layer; fresh, it changes nothing.

    Args:
        layer: The layer, whose weight is `(out, in)`.
        shape: What it is made of.
    """

    def __init__(self, layer: nn.Linear, shape: LoraShape) -> None:
        super().__init__()
        # In float32 below a base in half precision, as PEFT keeps them: most updates are smaller than it can add.
        options: dict[str, Any] = {"dtype": _trained_dtype(layer), "device": layer.weight.device}
        self.scale = shape.scale
        self.lora_A = nn.Parameter(torch.empty(shape.rank, layer.in_features, **options))
        self.lora_B = nn.Parameter(torch.zeros(layer.out_features, shape.rank, **options))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.lora_magnitude_vector = None
        if shape.dora:
            self.lora_magnitude_vector = nn.Parameter(self._lengths(layer))

    def forward(self, layer: nn.Linear, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What is to be added `(n, out)` to what the layer made of `inputs` `(n, in)`, its `output`."""
        change = linear(linear(inputs.to(self.lora_A.dtype), self.lora_A), self.lora_B) * self.scale
        if self.lora_magnitude_vector is not None:
            factor = self.lora_magnitude_vector / self._lengths(layer)
            bare = output if layer.bias is None else output - layer.bias
            change = (factor - 1) * bare + factor * change
        return change.to(output.dtype)

    @torch.no_grad()
    def _lengths(self, layer: nn.Linear) -> torch.Tensor:
        """Lengths `(out,)` of the weights of each output; constants for the gradient, as in section 4.3 of DoRA."""
        weight = whole_weight(layer).to(self.lora_A.dtype) + self.scale * (self.lora_B @ self.lora_A)
        return weight.norm(dim=1)


def put_adapter(model: nn.Module, name: str, shapes: Mapping[str, LoraShape], embeddings: str | None = None) -> None:
    """Puts a fresh adapter beside linear layers, and beside the token embeddings if their path is given.

    Args:
        model: The model.
        name: Of the adapter.
        shapes: For the path of each layer what its adapter is made of.
        embeddings: Path of token embeddings that get a copy to train.
    """
    for path, shape in shapes.items():
        layer: Any = model.get_submodule(path)
        _children(layer, LORA, _change_output)[name] = LoraChange(layer, shape)
    if embeddings is not None:
        table = model.get_submodule(embeddings)
        own = _without_adapters(table)
        _children(table, EMBEDDINGS, _replace_embeddings)[name] = own


def remove_adapter(model: nn.Module, name: str) -> None:
    """Takes an adapter away."""
    for module in model.modules():
        for kind in (LORA, EMBEDDINGS):
            if name in getattr(module, kind, ()):
                del getattr(module, kind)[name]


def adapter_weights(
    model: nn.Module, name: str, state: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The weights of an adapter under the keys that PEFT gives them.

    Args:
        model: Holds the adapter.
        name: Of the adapter.
        state: The weights of the model by their names; by default those in it.
    """
    marks = [f".{LORA}.{name}.", f".{EMBEDDINGS}.{name}."]
    result: dict[str, torch.Tensor] = {}
    for path, weight in (state or dict(model.named_parameters())).items():
        mark = next((mark for mark in marks if mark in path), None)
        if mark is not None:
            ending = ".weight" if path.endswith(("lora_A", "lora_B")) else ""
            result[f"base_model.model.{path.replace(mark, '.')}{ending}"] = weight
    return result


def adapter_names(model: nn.Module) -> list[str]:
    """The names of the adapters beside the layers of a model."""
    holders: list[Any] = [getattr(module, LORA) for module in model.modules() if has(module, LORA)]
    return sorted({name for holder in holders for name in holder})


def has(module: nn.Module, kind: str) -> bool:
    """Whether a module has adapters of a kind beside it."""
    return isinstance(getattr(module, kind, None), nn.ModuleDict)


def follow_routes(checkpoint: Callable[..., Any], layer: Callable[..., Any], *inputs: Any) -> Any:
    """Runs a layer under activation checkpointing so that adapters act in it alike when it is run again.

    That happens in the backward pass, when the routes of the pass are gone, and perhaps in another thread.

    Args:
        checkpoint: What runs the layer, as transformers calls it.
        layer: The layer's forward.
        *inputs: What it takes.
    """
    return checkpoint(partial(_run_layer, current_routes(), layer), *inputs)


def _run_layer(routes: Routes | None, layer: Callable[..., Any], *inputs: Any) -> Any:
    with acting(routes):
        return layer(*inputs)


def whole_weight(layer: nn.Linear) -> torch.Tensor:
    """The weight `(out, in)` of a linear layer, also of one in 4 bits."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return layer.weight
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    whole: torch.Tensor = dequantize_bnb_weight(layer.weight, state)  # type: ignore[arg-type]  # a parameter in 4 bits
    return whole


def _trained_dtype(layer: nn.Linear) -> torch.dtype:
    return torch.float64 if layer.weight.dtype == torch.float64 else torch.float32


def _children(module: nn.Module, kind: str, hook: Any) -> nn.ModuleDict:
    """The adapters of a kind beside a module, with the hook that applies them."""
    if not has(module, kind):
        module.add_module(kind, nn.ModuleDict())
        module.register_forward_hook(hook)
    result: nn.ModuleDict = getattr(module, kind)
    return result


def _without_adapters(table: nn.Module) -> nn.Module:
    """A copy of token embeddings in float32 at least, without the adapters beside them."""
    own = copy.deepcopy(table)
    if has(own, EMBEDDINGS):
        delattr(own, EMBEDDINGS)
    own.requires_grad_(True)
    return own if next(own.parameters()).dtype == torch.float64 else own.float()


def _change_output(layer: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
    """A forward hook: adds what the adapters of the pass make of their tokens."""
    routes = current_routes()
    if routes is None:
        return None
    states, result = inputs[0].flatten(0, -2), output.flatten(0, -2)
    _check_tokens(layer, len(states), routes)
    bare = result
    for name, places in routes.places.items():
        if name not in layer.activated:
            continue
        change = layer.activated[name]
        if places is None:
            result = result + change(layer, states, bare)
        else:
            result = result.index_add(0, places, change(layer, states[places], bare[places]))
    return result.view_as(output)


def _replace_embeddings(table: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
    """A forward hook: the tokens of adapters that have token embeddings of their own get these."""
    routes = current_routes()
    if routes is None or not has(table, EMBEDDINGS):  # a copy that is an adapter itself keeps the hook
        return None
    ids, result = inputs[0].flatten(), output.flatten(0, -2)
    _check_tokens(table, len(ids), routes)
    for name, places in routes.places.items():
        if name not in table.modules_to_save:
            continue
        own = table.modules_to_save[name]
        if places is None:
            result = own(ids).to(output.dtype)
        else:
            result = result.index_copy(0, places, own(ids[places]).to(output.dtype))
    return result.view_as(output)


def _check_tokens(module: nn.Module, tokens: int, routes: Routes) -> None:
    if tokens != routes.tokens:
        raise ValueError(
            f"{type(module).__name__} got {tokens} tokens of a pass of {routes.tokens}, so which of them belong to the "
            "adapter is not known: this backbone sends tokens to parts of a layer. Train it with --adapter lora."
        )
