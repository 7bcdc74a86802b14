"""An image tower whose weights were stored by another library: moved into timm's module, and proven equal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TimmWrapperConfig, TimmWrapperModel

ARCHITECTURE, WIDTH, SIDE, PATCH = "tf_efficientnet_lite0", 1280, 224, 32
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""The tower reads (x - 127) / 128, x from 0 to 255."""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The stored weights; the file may hold nothing else."""
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def make_tower(weights: Mapping[str, torch.Tensor], architecture: str = ARCHITECTURE) -> TimmWrapperModel:
    """The module of timm with the weights in it, without the classifier behind its features."""
    config = TimmWrapperConfig(architecture=architecture, do_pooling=False, initializer_range=0.02)
    tower = TimmWrapperModel(config)
    config.hidden_size = int(tower.timm_model.num_features)
    tower.timm_model.load_state_dict(moved(weights, tower.timm_model))
    return tower.eval()


def moved(weights: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """The weights under the names of another module, which has them in the same order.

    The first are taken: what is left over must be the classifier, a matrix and its bias.

    Raises:
        ValueError: A shape differs, or something else is left over.
    """
    wanted, values = module.state_dict(), list(weights.items())
    left = [tuple(value.shape) for _, value in values[len(wanted) :]]
    if len(values) < len(wanted) or [len(shape) for shape in left] not in ([], [2, 1]):
        raise ValueError(f"{len(values)} weights do not fit the {len(wanted)} of a {type(module).__name__}")
    found = {}
    for (name, place), (old, value) in zip(wanted.items(), values, strict=False):
        if place.shape != value.shape:
            raise ValueError(f"the weight {old} {tuple(value.shape)} does not fit {name} {tuple(place.shape)}")
        found[name] = value
    return found


@torch.no_grad()
def feature_difference(wheel: Path, weights: Mapping[str, torch.Tensor], tower: nn.Module) -> float:
    """How far the tower's features are from those of the code that the weights were made for, at most.

    Args:
        wheel: The package of that code; it runs in this process.
        weights: The stored weights.
        tower: The module of `transformers`.
    """
    with _importable(wheel):
        from efficientnet_lite_pytorch import EfficientNet

        original = EfficientNet.from_name("efficientnet-lite0").eval()
    original.load_state_dict(dict(weights))
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features: Any = tower(pixels).last_hidden_state
    return float((original.extract_features(pixels) - features).abs().max())


@contextmanager
def _importable(wheel: Path) -> Iterator[None]:
    sys.path.insert(0, str(wheel.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(wheel.resolve()))
