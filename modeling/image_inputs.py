"""The inputs of a backbone's vision tower: which these are, and those of several rows as one batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch.nn.functional import pad


def parameters_of(function: Callable[..., Any]) -> set[str]:
    """Names of what a method of a backbone takes, under the decorators of transformers."""
    # `inspect.unwrap` keeps ids of methods, which change each time one is looked up; torch.compile stops at that.
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return set(inspect.signature(function).parameters)


def join_images(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The image inputs of several groups as one batch; what only some groups have is theirs alone, as for tiles."""
    names = dict.fromkeys(name for images in groups for name in images)
    return {name: join([images[name] for images in groups if name in images]) for name in names}


def join(batches: Sequence[Any]) -> Any:
    """Joins image inputs `(n, ...)` of several groups along the first axis, smaller ones padded with 0; or lists."""
    if not isinstance(batches[0], torch.Tensor):
        return list(chain.from_iterable(batches))
    largest = [max(sizes) for sizes in zip(*(batch.shape[1:] for batch in batches), strict=True)]
    same_size = []
    for batch in batches:
        missing = [(0, target - size) for target, size in zip(largest, batch.shape[1:], strict=True)]
        same_size.append(pad(batch, list(chain.from_iterable(reversed(missing)))) if any(map(sum, missing)) else batch)
    return torch.cat(same_size)


def like_shapes(groups: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Numbers of groups whose image inputs go together without padding, so that none depends on its neighbours."""
    alike: dict[Any, list[int]] = {}
    for number, images in enumerate(groups):
        shapes = {name: tuple(value.shape[1:]) for name, value in images.items() if isinstance(value, torch.Tensor)}
        alike.setdefault((tuple(sorted(images)), tuple(sorted(shapes.items()))), []).append(number)
    return list(alike.values())
