"""Reading the published Phi-3.5-V checkpoints: their files, their key names, and what must match."""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .hub_files import find_file, hub_kwargs
from .loading import read_pickle

logger = logging.getLogger(__name__)

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where weights are looked for, best first."""

IGNORED_KEYS = (r"^lm_head\.", r"(^|\.)vision_embed_tokens\.wte\.")
"""Keys of the original that a base model leaves behind: the head, and the second name of the token embedding."""

WTE_RENAMING = {r"vision_embed_tokens\.wte\.": "embed_tokens."}
"""For checkpoints that name the token embedding only as the image part knows it."""


def inspect_checkpoint(folder_or_id: str | os.PathLike[str], kwargs: dict[str, Any]) -> dict[str, str]:
    """Finds the weights of a checkpoint and says how its keys must be renamed.

    Pickled weights are read with `weights_only=True` only, and with a warning; `kwargs` is made to say so.

    Returns:
        The `key_mapping` for `from_pretrained`, usually empty. Also empty where this function knows no weight file (an
        adapter, a variant): transformers then finds it or says that there is none.

    Raises:
        FileNotFoundError: A shard is missing.
        ValueError: The two names of the token embedding hold different weights.
    """
    files = find_weights(folder_or_id, kwargs)
    if any(file.suffix != ".safetensors" for file in files.values()):
        logger.warning(
            "%s holds pickled weights; they are read with weights_only=True. Save the model to get safetensors.",
            folder_or_id,
        )
        kwargs.update(use_safetensors=False, weights_only=True)
    wte = next((key for key in files if key.endswith("vision_embed_tokens.wte.weight")), None)
    embed_tokens = next((key for key in files if key in ("model.embed_tokens.weight", "embed_tokens.weight")), None)
    if wte is None:
        return {}
    if embed_tokens is None:
        return dict(WTE_RENAMING)
    if not torch.equal(_read_tensor(files[wte], wte), _read_tensor(files[embed_tokens], embed_tokens)):
        raise ValueError(
            f"{folder_or_id}: {wte} and {embed_tokens} are one embedding under two names, but their weights differ. "
            "Remove the wrong one from the checkpoint."
        )
    return {}


def find_weights(folder_or_id: str | os.PathLike[str], kwargs: dict[str, Any]) -> dict[str, Path]:
    """The file of each key of a checkpoint, safetensors before `.bin`; empty if no file has one of the usual names.

    Raises:
        FileNotFoundError: The index names a shard that is not there.
    """
    if kwargs.get("variant") is not None or kwargs.get("gguf_file") is not None:
        return {}
    hub = hub_kwargs(kwargs)
    names = [name for name in WEIGHT_FILES if kwargs.get("use_safetensors") is not False or ".bin" in name]
    for name in names:
        path = find_file(folder_or_id, name, hub)
        if path is not None:
            return _read_keys(folder_or_id, path, hub)
    return {}


def _read_keys(folder_or_id: str | os.PathLike[str], path: Path, hub: dict[str, Any]) -> dict[str, Path]:
    if path.suffix != ".json":
        return dict.fromkeys(_stored_keys(path), path)
    weight_map: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    shards: dict[str, Path] = {}
    for name in sorted(set(weight_map.values())):
        shard = find_file(folder_or_id, name, hub)
        if shard is None:
            raise FileNotFoundError(f"{folder_or_id}: {path.name} names the shard {name}, but there is no such file.")
        shards[name] = shard
    return {key: shards[name] for key, name in weight_map.items()}


def _stored_keys(file: Path) -> Iterable[str]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as tensors:
            return list(tensors.keys())
    return list(read_pickle(file, device="meta"))


def _read_tensor(file: Path, key: str) -> torch.Tensor:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as tensors:
            return tensors.get_tensor(key)
    return read_pickle(file)[key]
