"""What an embedder has behind its pooling: dense layers, a layer norm, a normalisation between them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

HEADS = ("dense", "layer_norm", "normalize")


class Dense(nn.Module):
    """A linear layer, an activation, and the input added again if `use_residual`.

    The formula and the names of the weights are those of the module of this name in sentence-transformers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "torch.nn.modules.linear.Identity",
        use_residual: bool = False,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = activation_of(activation)
        self.use_residual = use_residual
        if use_residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`(B, in_features)` to `(B, out_features)`."""
        result = self.activation(self.linear(vectors))
        if not self.use_residual:
            return result
        return result + (self.residual(vectors) if hasattr(self, "residual") else vectors)


class LayerNorm(nn.Module):
    """`torch.nn.LayerNorm`, with the names of the module in sentence-transformers."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`(B, D)` to the same."""
        return self.norm(vectors)


class Normalize(nn.Module):
    """Vectors of length 1, between two other heads."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`(B, D)` to the same."""
        return nn.functional.normalize(vectors, dim=-1)


def make_heads(settings: Sequence[Mapping[str, Any]]) -> nn.ModuleList:
    """The modules that `XVLM2VecConfig.heads` describes, without their weights."""
    kinds = {"dense": Dense, "layer_norm": LayerNorm, "normalize": Normalize}
    return nn.ModuleList(
        kinds[head["type"]](**{key: value for key, value in head.items() if key not in ("type", "folder")})
        for head in settings
    )


def check_heads(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The heads as plain data.

    Raises:
        ValueError: A head is of a kind, or has an activation, that this version does not know.
    """
    for head in settings:
        if head.get("type") not in HEADS:
            raise ValueError(f"heads has the type {head.get('type')!r}; known are {', '.join(HEADS)}.")
        if head["type"] == "dense":
            activation_of(head.get("activation", "torch.nn.modules.linear.Identity"))
    return [dict(head) for head in settings]


def width_behind(settings: Sequence[Mapping[str, Any]], width: int) -> int:
    """Values of a vector behind the heads, before them `width`."""
    for head in settings:
        width = head.get("out_features", width)
    return width


def activation_of(path: str) -> nn.Module:
    """An activation of `torch.nn` by the path of its class, as sentence-transformers stores it.

    Raises:
        ValueError: It is none of torch's own: it could be any code, and another one in its place gives other vectors.
    """
    module, _, name = path.rpartition(".")
    if not (module == "torch.nn" or module.startswith("torch.nn.modules.")):
        raise ValueError(f"the activation {path!r} is none of torch.nn, so it is not run.")
    try:
        activation = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"the activation {path!r} is unknown to this torch ({error}).") from error
    if not isinstance(activation, nn.Module):
        raise ValueError(f"{path!r} is no activation.")
    return activation
