"""Adapters in a folder or on the Hub: read, and the model below found by one rule."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from .hub_files import find_file, hub_kwargs, read_json
from .hub_ids import is_path
from .loading import CheckpointError, read_pickle, readable_files
from .lora_settings import LoraSettings
from .lora_weights import Adapter

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTERS_INDEX = "adapters.json"
"""Names the adapters that lie in folders below; its `base` is `HERE` where the model below them lies beside it."""
HERE = "."
OF_THE_ADAPTER = ("revision", "subfolder", "adapter_kwargs", "code_revision", "_commit_hash")
"""Arguments of `from_pretrained`, and what `AutoModel` adds to them, that say where the adapter lies, not its base."""
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


class MissingBaseError(CheckpointError, FileNotFoundError):
    """The model below an adapter is not named, or cannot be loaded.

    Args:
        adapter: Folder or Hub id.
        base: Folder or Hub id of the model below the adapter.
        revision: The base's revision on the Hub.
        reason: Why the base cannot be loaded.
    """

    def __init__(self, adapter: str, base: str, revision: str | None, reason: object) -> None:
        name = f"{base!r}{f' at revision {revision}' if revision else ''}"
        super().__init__(
            f"The adapter {adapter!r} belongs on {name}, which cannot be loaded ({reason}). Pass `base` with the "
            f"folder or id of that model, or correct base_model_name_or_path in {ADAPTER_CONFIG} if it was only moved."
        )


class AdapterBase(NamedTuple):
    """The model below an adapter.

    Attributes:
        source: Folder or Hub id.
        revision: The revision on the Hub, if the adapter names one.
    """

    source: str
    revision: str | None = None


def adapter_base(source: str | os.PathLike[str], hub: Mapping[str, Any] | None = None) -> AdapterBase:
    """The model below an adapter, as its `adapter_config.json` names it.

    A relative path counts from the adapter's folder first, so that both can be moved together, and then from the
    working directory. The revision counts for a Hub id only.

    Raises:
        MissingBaseError: None is named, or a folder that is not there.
    """
    return _resolve_base(source, read_json(source, ADAPTER_CONFIG, hub))


def _resolve_base(source: str | os.PathLike[str], config: Mapping[str, Any]) -> AdapterBase:
    base = str(config.get("base_model_name_or_path") or "")
    if not base:
        raise CheckpointError(f"{ADAPTER_CONFIG} of {os.fspath(source)!r} names no base model: pass `base`.")
    beside = Path(source, base)
    for folder in ([beside] if Path(source).is_dir() else []) + [Path(base)]:
        if folder.is_dir():
            return AdapterBase(str(folder.resolve()))
    if is_path(base):
        raise MissingBaseError(os.fspath(source), base, None, "there is no such folder")
    return AdapterBase(base, config.get("revision"))


def base_options(adapter: Adapter, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments to load the model below an adapter with, from those that the adapter was loaded with."""
    shared = {key: value for key, value in options.items() if key not in OF_THE_ADAPTER}
    if shared.get("config") is not None:  # of the release that holds the adapter, as `AutoModel` read it
        shared["config"] = copy.copy(shared["config"])
        shared["config"]._commit_hash = None
    return shared | ({"revision": adapter.base_revision} if adapter.base_revision else {})


def holds_base(source: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> bool:
    """Whether a folder or Hub id holds a base together with adapters on it."""
    return source is not None and read_json(source, ADAPTERS_INDEX, hub_kwargs(options)).get("base") == HERE


def find_adapter(
    source: str | os.PathLike[str] | None, base: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> Adapter | None:
    """Reads the adapter of a folder or Hub id; `None` where there is a whole model, or nothing.

    Args:
        source: Folder or Hub id; `None` where a caller has the weights in memory.
        base: The model below it instead of the one that its configuration names.
        options: The arguments of `from_pretrained`; `revision` and `subfolder` say where the adapter lies.

    Raises:
        CheckpointError: The adapter is incomplete, or there is none although `base` is given.
    """
    hub = hub_kwargs(options)
    adapter = None if source is None or read_json(source, "config.json", hub) else read_adapter(source, base, hub)
    if adapter is None and base is not None:
        raise CheckpointError(f"{source!r} is no adapter, so it needs no base={os.fspath(base)!r}.")
    return adapter


def find_adapters(
    source: str | os.PathLike[str] | None, base: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> dict[str, Adapter]:
    """As `find_adapter`, by name: the one that there is, or several activated ones that lie in folders of their names.

    Raises:
        CheckpointError: As `find_adapter`, or one of several is not there.
    """
    hub = hub_kwargs(options)
    index = {} if source is None else read_json(source, ADAPTERS_INDEX, hub)
    names = index.get("adapters", [])
    if not names:
        adapter = find_adapter(source, base, options)
        return {} if adapter is None else {"default": adapter}
    place, result = os.fspath(source or ""), {}
    base_is_here = base is None and index.get("base") == HERE
    base = place if base_is_here else base
    for name in names:
        if not is_folder_name(name):
            raise CheckpointError(f"{ADAPTERS_INDEX} of {place!r} names {name!r}, which is no name of a folder in it.")
        folder = "/".join(filter(None, (hub.get("subfolder"), name)))
        adapter = read_adapter(place, base, {**hub, "subfolder": folder})
        if adapter is None:
            raise CheckpointError(f"{ADAPTERS_INDEX} of {place!r} names {name!r}, and there is no adapter in {folder}.")
        result[name] = replace(adapter, base_revision=hub.get("revision")) if base_is_here else adapter
    return result


def is_folder_name(name: Any) -> bool:
    """Whether this names a folder that lies right where it is looked for."""
    return isinstance(name, str) and bool(name.strip(". ")) and not {"/", "\\", ":"} & set(name)


def base_is_embedder(adapter: Adapter, options: Mapping[str, Any]) -> bool:
    """Whether the model below an adapter, loaded with these `options`, is an embedding model already.

    Raises:
        MissingBaseError: There is no such model.
    """
    hub = hub_kwargs(options)
    try:
        config = read_json(adapter.base, "config.json", hub) or read_json(adapter.base, ADAPTER_CONFIG, hub)
    except OSError as error:
        raise MissingBaseError(adapter.source, adapter.base, adapter.base_revision, error) from error
    if not config:
        reason = f"{adapter.base!r} has no config.json"
        raise MissingBaseError(adapter.source, adapter.base, adapter.base_revision, reason)
    return config.get("model_type") == "xvlm2vec" or "model_type" not in config


def refuse_adapter(source: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> None:
    """Raises a `CheckpointError` where transformers would put an adapter on the weights without checking either.

    Args:
        source: Folder or Hub id of what should be a whole model; `None` where a caller has the weights in memory.
        options: The arguments of `from_pretrained`.
    """
    if source is None or find_file(source, ADAPTER_CONFIG, hub_kwargs(options)) is None:
        return
    raise CheckpointError(
        f"{os.fspath(source)!r} has an {ADAPTER_CONFIG}. An adapter is loaded with XVLM2VecModel.from_vlm2vec where "
        "VLM2Vec or xVLM2Vec published it, and with XVLM2VecModel.from_pretrained where this package trained it; both "
        "check that all of it lands. If the folder holds a whole model, take that file away."
    )


def read_adapter(
    source: str | os.PathLike[str], base: str | os.PathLike[str] | None = None, hub: Mapping[str, Any] | None = None
) -> Adapter | None:
    """Reads the adapter of a folder or Hub id; `None` if there is no `adapter_config.json`.

    Args:
        source: Folder or Hub id.
        base: The base instead of the one that the adapter's configuration names.
        hub: What `hub_kwargs` gives.

    Raises:
        CheckpointError: There are no weights, the file is broken, no base is named, or a setting is not supported.
    """
    config = read_json(source, ADAPTER_CONFIG, hub)
    if not config:
        return None
    name = os.fspath(source)
    LoraSettings(config).check(name)
    place = AdapterBase(os.fspath(base)) if base else _resolve_base(source, config)
    weights = next((path for path in (find_file(source, file, hub) for file in ADAPTER_WEIGHTS) if path), None)
    if weights is None:
        raise CheckpointError(f"{name!r} has an {ADAPTER_CONFIG}, but neither {' nor '.join(ADAPTER_WEIGHTS)}.")
    with readable_files(source):
        return Adapter(name, place.source, place.revision, config, _read_weights(weights))


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    logger.warning("%s is a pickle file; it is read with weights_only=True.", file.name)
    return read_pickle(file)
