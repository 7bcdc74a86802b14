"""Which stored tensor stands for which parameter of a model that runs by its own code: found by value, then by name.

Nobody but that code knows how its weights come out of its files. But a value that is in both, and only once in each, is
the same weight; where several are alike, as fresh layer norms are, names decide, or nothing does.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from xvlm2vec.modeling.loading import read_pickle, readable_files

from .original_files import files_to_give_back

WHOLE = torch.float32
"""The number format in which values are compared: that in which the model was loaded."""


class Place(NamedTuple):
    """Where a tensor is stored: its file, as a path in the model's folder, and its name in there."""

    file: str
    key: str

    def __str__(self) -> str:
        folder = self.file.rpartition("/")[0]
        return f"{folder}/{self.key}" if folder else self.key


@dataclass(frozen=True)
class Value:
    """What two tensors must have in common to be the same weight.

    Args:
        shape: Its shape.
        digest: SHA-256 of its values.
        is_uniform: Whether all its values are alike, so that equality says little.
    """

    shape: tuple[int, ...]
    digest: str
    is_uniform: bool


def value_of(tensor: torch.Tensor) -> Value:
    """What tells a tensor from others."""
    whole = (tensor.detach().cpu().to(WHOLE) if tensor.is_floating_point() else tensor.detach().cpu()).contiguous()
    digest = hashlib.sha256(whole.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
    return Value(tuple(whole.shape), digest, whole.numel() < 2 or bool((whole == whole.reshape(-1)[0]).all()))


def stored_values(folder: Path) -> dict[Place, Value]:
    """The tensors in the files of a model's folder that are given back.

    Raises:
        CheckpointError: A file is damaged.
    """
    result: dict[Place, Value] = {}
    for name, path in files_to_give_back(folder):
        if path.suffix == ".safetensors":
            with readable_files(path), safe_open(path, framework="pt") as file:
                result |= {Place(name, key): value_of(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
        elif path.name.startswith("pytorch_model") and path.suffix == ".bin":
            tensors = {key: value for key, value in read_pickle(path).items() if torch.is_tensor(value)}
            result |= {Place(name, key): value_of(value) for key, value in tensors.items()}
    return result


def places_of(stored: Mapping[Place, Value], state: Mapping[str, torch.Tensor]) -> dict[Place, str]:
    """The parameter that each stored tensor stands for, of those for which it is certain.

    Args:
        stored: What `stored_values` gives.
        state: The model's values as it was loaded, by name; tied ones are the same tensor.
    """
    names, places = _by_value(state), defaultdict(list)
    for place, value in stored.items():
        places[value].append(place)
    result: dict[Place, str] = {}
    for value, here in places.items():
        result |= _matched(here, names.get(value, []), value.is_uniform)
    return result


def _by_value(state: Mapping[str, torch.Tensor]) -> dict[Value, list[str]]:
    """Names by value; one of those that are tied."""
    first: dict[Any, str] = {}
    for name, tensor in state.items():
        first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name, name)
    names = defaultdict(list)
    for name in first.values():
        names[value_of(state[name])].append(name)
    return dict(names)


def _matched(places: list[Place], names: list[str], is_uniform: bool) -> dict[Place, str]:
    """Pairs of stored tensors and names of one value: each the other's nearest by name.

    A single parameter may have several copies in the files, as tied embeddings have, unless its values are all alike.
    """
    if len(names) == 1 and (len(places) == 1 or not is_uniform):
        return dict.fromkeys(places, names[0])
    nearest = {place: _nearest(names, {name: likeness(place, name) for name in names}) for place in places}
    back = {name: _nearest(places, {place: likeness(place, name) for place in places}) for name in names}
    return {place: name for place, name in nearest.items() if name is not None and back[name] == place}


def _nearest(choices: Iterable[Any], scores: Mapping[Any, tuple[int, int]]) -> Any:
    """The choice of the highest score; `None` where two have it, or where it is nothing."""
    ranked = sorted(choices, key=scores.__getitem__, reverse=True)
    if not ranked or scores[ranked[0]] == (0, 0):
        return None
    return None if len(ranked) > 1 and scores[ranked[0]] == scores[ranked[1]] else ranked[0]


def likeness(place: Place, name: str) -> tuple[int, int]:
    """How alike a place and a parameter's name are: parts at their ends, then parts of the folder in the name."""
    parts = name.split(".")
    ends = 0
    for one, other in zip(reversed(place.key.split(".")), reversed(parts), strict=False):
        if one != other:
            break
        ends += 1
    folder = set(re.split(r"[/_.]", place.file.rpartition("/")[0])) - {""}
    return ends, len(folder & set(parts))
