"""The weights that lie in a folder: which file holds which, and one fingerprint of them all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from xvlm2vec.modeling.adapters import ADAPTERS_INDEX, holds_base

from .own_code import digest_of_weights, runs_by_own_code

GOLDEN_VECTORS = "golden.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class GoldenError(ValueError):
    """The golden files are missing, damaged, or do not belong to their model."""


def weights_fingerprint(folder: str | os.PathLike[str]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all saved tensors, whatever their distribution over shards.

    Those of adapters in folders below count, too.

    Raises:
        GoldenError: There are no weights, or a shard is missing.
    """
    folder, digest = Path(folder), hashlib.sha256()
    if runs_by_own_code(folder):
        return digest_of_weights(folder, but=GOLDEN_VECTORS)
    beside = adapters_beside(folder)
    if not beside or holds_base(folder, {}):
        _add_tensors(digest, tensor_places(folder))
    for name in beside:
        digest.update(f"adapter {name}\n".encode())
        _add_tensors(digest, tensor_places(folder / name))
    return digest.hexdigest()


def adapters_beside(folder: Path) -> list[str]:
    """The adapters that lie in folders of their names below a folder."""
    path = folder / ADAPTERS_INDEX
    return list(json.loads(path.read_text(encoding="utf-8"))["adapters"]) if path.is_file() else []


def _add_tensors(digest: Any, places: Mapping[str, Path]) -> None:
    for name in sorted(places):
        with safe_open(places[name], framework="pt") as file:
            tensor = file.get_tensor(name).contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())


def tensor_places(folder: Path) -> dict[str, Path]:
    """The file of each saved tensor, by the tensor's name.

    Raises:
        GoldenError: There are no weights, or a shard is missing.
    """
    folder = transformer_folder(folder)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        places = {key: folder / file for key, file in files.items()}
    else:
        weights = [folder / name for name in ("model.safetensors", ADAPTER_WEIGHTS) if (folder / name).is_file()]
        if not weights:
            raise GoldenError(
                f"{folder} holds neither model.safetensors nor {ADAPTER_WEIGHTS}; save the model there first."
            )
        with safe_open(weights[0], framework="pt") as file:
            places = dict.fromkeys(file.keys(), weights[0])
    missing = sorted({path.name for path in places.values() if not path.is_file()})
    if missing:
        raise GoldenError(f"{folder} lacks {', '.join(missing)}, which its index names; the copy is incomplete.")
    return places


def transformer_folder(folder: Path) -> Path:
    """Where a folder has its transformer: in itself, or where the first entry of `modules.json` says."""
    modules = folder / "modules.json"
    if (folder / "config.json").is_file() or not modules.is_file():
        return folder
    first = min(json.loads(modules.read_text(encoding="utf-8")), key=lambda module: module["idx"])
    return folder / first["path"]
