"""The modules of a sentence-transformers folder: where the backbone lies, and new ones behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import save_file

from xvlm2vec.common.files import write_json
from xvlm2vec.modeling.hub_files import read_json
from xvlm2vec.modeling.loading import CheckpointError

from .original_files import SAFE
from .staging import ExportError

MODULES = "modules.json"
_OLD_PATHS = "sentence_transformers.models."
_NEW_PATHS = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


@dataclass(frozen=True)
class TaughtHead:
    """A module of sentence-transformers behind the backbone, whose weights were taught, or which is new.

    Args:
        folder: Its folder in the original, such as `"2_Dense"`; for a new one, the folder to make.
        tensors: Its weights by the names in that folder's file, such as `"linear.weight"`.
        config: For a new one, what its `config.json` says, as the class's `get_config_dict` gives it.
        kind: For a new one, its class: `"Dense"`, `"LayerNorm"`, `"Pooling"` or `"Normalize"`.
    """

    folder: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    kind: str = "Dense"


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The entries of a folder's `modules.json`; none if there is no such file.

    Raises:
        CheckpointError: The file is no list of modules, or names a folder outside.
    """
    modules = read_json(folder, MODULES) or []
    fields = ("name", "path", "type")
    if not isinstance(modules, list) or any(
        not isinstance(module, dict) or not all(isinstance(module.get(name), str) for name in fields)
        for module in modules
    ):
        raise CheckpointError(f"{folder / MODULES} is no list of modules with a name, a path and a type each.")
    for module in modules:
        inner_path(module["path"])
    return modules


def inner_path(name: str) -> str:
    """A path in a folder, as it was given, or a `CheckpointError` if it leads out of it."""
    if name and (PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name):
        raise CheckpointError(f"{name!r} leads out of the model's folder.")
    return name


def add_modules(folder: Path, modules: list[dict[str, Any]], heads: Sequence[TaughtHead]) -> None:
    """Writes new modules, and names them in `modules.json`: in their order, before the first `Normalize`.

    Args:
        folder: Where the model is written.
        modules: What the original's `modules.json` names. Where it has none, the first new module must be the pooling,
            which sentence-transformers would otherwise choose without telling.
        heads: The new modules.

    Raises:
        ExportError: A module without a configuration, of an unknown kind, or in a folder that is taken.
    """
    if not heads:
        return
    if not modules:
        if heads[0].kind != "Pooling":
            raise ExportError(f"the original has no {MODULES}, so new modules must begin with its Pooling.")
        modules = [{"idx": 0, "name": "0", "path": "", "type": _NEW_PATHS["Transformer"]}]
    old = any(module["type"].startswith(_OLD_PATHS) for module in modules)
    place = next((at for at, each in enumerate(modules) if each["type"].endswith(".Normalize")), len(modules))
    entries = [{"name": head.folder, "path": head.folder, "type": _class_path(head.kind, old)} for head in heads]
    write_json(folder / MODULES, _numbered([*modules[:place], *entries, *modules[place:]]))
    for head in heads:
        _write_module(folder, head)


def _class_path(kind: str, old: bool) -> str:
    if kind not in _NEW_PATHS:
        raise ExportError(f"{kind!r} is no module that can be added; known are {', '.join(_NEW_PATHS)}.")
    return _OLD_PATHS + kind if old else _NEW_PATHS[kind]


def _numbered(modules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The modules with their numbers, which are their names, too: sentence-transformers keeps one module a name."""
    return [{**{"idx": at, "name": str(at)}, **_without(module, "idx", "name")} for at, module in enumerate(modules)]


def _without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def _write_module(folder: Path, head: TaughtHead) -> None:
    place = folder / inner_path(head.folder)
    if place.exists() or head.config is None:
        problem = "has no configuration" if head.config is None else "has a folder that is taken"
        raise ExportError(f"the new module {head.folder!r} {problem}.")
    place.mkdir(parents=True)
    write_json(place / "config.json", head.config)
    if head.tensors:
        values = {key: value.detach().cpu().contiguous() for key, value in head.tensors.items()}
        save_file(values, place / SAFE, {"format": "pt"})
