"""Adapters on a whole embedding model, as this package trains and releases them: found, with their base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backbone_processors import read_json
from .loading import CheckpointError
from .published_checkpoints import ADAPTER_CONFIG, Adapter, base_is_gone, read_adapter

HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


@dataclass(frozen=True)
class AdapterPlace:
    """An adapter to be put on its base.

    Args:
        adapter: The adapter.
        base: Folder or Hub id of the model below it.
        options: Arguments to load the base with.
    """

    adapter: Adapter
    base: str
    options: dict[str, Any]


def find_adapter(
    source: str | os.PathLike[str] | None, base: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> AdapterPlace | None:
    """Reads the adapter of a folder or Hub id; `None` where there is a whole model, or nothing.

    Args:
        source: Folder or Hub id; `None` where a caller has the weights in memory.
        base: The model below it instead of the one that its configuration names.
        options: The arguments of `from_pretrained`; `revision` and `subfolder` say where the adapter lies.

    Raises:
        CheckpointError: The adapter is incomplete, or there is none although `base` is given.
    """
    hub = {key: options[key] for key in HUB_KEYS if options.get(key) is not None}
    adapter = None if source is None or read_json(source, "config.json", hub) else read_adapter(source, base, hub)
    if source is None or adapter is None:
        if base is not None:
            raise CheckpointError(f"{source!r} is no adapter, so it needs no base={os.fspath(base)!r}.")
        return None
    kept = {key: value for key, value in options.items() if key not in ("revision", "subfolder")}
    revision = adapter.config.get("revision") if base is None else None
    if revision:
        kept["revision"] = revision
    return AdapterPlace(adapter, _beside(source, adapter.base), kept)


def base_is_embedder(place: AdapterPlace) -> bool:
    """Whether the model below an adapter is an embedding model already, rather than a plain backbone.

    Raises:
        CheckpointError: There is no such model.
    """
    hub = {key: place.options[key] for key in HUB_KEYS if place.options.get(key) is not None}
    revision = place.options.get("revision")
    try:
        config = read_json(place.base, "config.json", hub) or read_json(place.base, ADAPTER_CONFIG, hub)
    except OSError as error:
        raise base_is_gone(place.adapter, place.base, revision, error) from error
    if not config:
        raise base_is_gone(place.adapter, place.base, revision, f"{place.base!r} has no config.json")
    return config.get("model_type") == "xvlm2vec" or "model_type" not in config


def _beside(source: str | os.PathLike[str], base: str) -> str:
    """A relative path counts from the adapter's folder first, so that both can be moved together."""
    beside = Path(source) / base
    return str(beside.resolve()) if beside.is_dir() else base
