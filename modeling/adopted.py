"""An embedder that was taken over by reference: its weights stay in the files that it came from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors.torch import load_file
from transformers import AutoModel

from .configuration_xvlm2vec import XVLM2VecConfig
from .hub_files import hub_kwargs, read_json
from .hub_ids import is_path
from .loading import CheckpointError, check_loading, read_pickle, readable_files

BLOCK = 1 << 20
NOT_MODEL = (".git", ".cache", "onnx", "openvino")
"""Folders beside a model that say nothing of its vectors."""
UNUSED_KEYS = ("pooler.", "cls.predictions.", "lm_head.", "classifier.", "logit_scale", "logit_bias")
"""Weights that no vector depends on, which some folders lack and others have too many of."""
OTHER_FORMATS = ["onnx/*", "openvino/*", "*.h5", "*.msgpack"]


def digest_of(folder: Path) -> str:
    """SHA-256 of all files of a folder that make a model's vectors."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and inside.parts[0] not in NOT_MODEL and path.suffix != ".md":
            digest.update(f"{inside.as_posix()} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
    return digest.hexdigest()


def files_of(source: str, revision: str | None, **hub: Any) -> Path:
    """The folder of an embedder, downloaded where it is a Hub id.

    Raises:
        FileNotFoundError: There is no such folder or repository, or the Hub cannot be reached.
    """
    if is_path(source):
        if not Path(source).is_dir():
            raise FileNotFoundError(f"there is no folder {source}.")
        return Path(source).resolve()
    try:
        return Path(snapshot_download(source, revision=revision, ignore_patterns=OTHER_FORMATS, **hub))
    except (LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(f"{source} is no folder here, and the Hub does not give it: {reason}") from error


def references(source: str | os.PathLike[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    """Where an embedder that was taken over by reference has its weights; empty of any other model."""
    if source is None:
        return {}
    adopted = read_json(source, "config.json", hub_kwargs(options)).get("adopted") or {}
    return adopted if adopted.get("by_reference") else {}


def load_referenced(cls: Any, folder: str | os.PathLike[str], adopted: dict[str, Any], options: dict[str, Any]) -> Any:
    """Loads an `XVLM2VecModel` whose weights lie where it came from.

    Args:
        cls: The model's class.
        folder: Folder or Hub id with its configuration.
        adopted: `XVLM2VecConfig.adopted`.
        options: What `from_pretrained` was given.

    Raises:
        CheckpointError: The files have changed since, or do not fit.
        FileNotFoundError: They are gone.
    """
    hub = hub_kwargs(options)
    config = XVLM2VecConfig.from_pretrained(folder, **hub)
    files = files_of(adopted["source"], adopted.get("revision"))
    if digest_of(files) != adopted["digest"]:
        raise CheckpointError(
            f"{os.fspath(folder)!r} was taken over from {adopted['source']!r}, whose files have changed since: adopt "
            "it anew (`xvlm2vec adopt`), so that it is proven again."
        )
    more = {key: value for key, value in options.items() if key not in hub}
    backbone = load_transformer(files / adopted.get("transformer", ""), AutoModel, adopted["source"], **more)
    config.vlm_config = backbone.config
    model = cls(config, backbone=backbone)
    for head, settings in zip(model.heads, config.heads, strict=True):
        if head.state_dict():
            head.load_state_dict(head_weights(files / settings["folder"]))
    model.config.name_or_path = model.name_or_path = os.fspath(folder)
    model.config.adopted.pop("by_reference")  # what is saved from here on has its own weights
    return model.to(backbone.dtype).eval()


def load_transformer(folder: Path, model_class: Any, name: str, **options: Any) -> Any:
    """A model of transformers, every weight that a vector depends on accounted for.

    Raises:
        CheckpointError: Keys are missing, unexpected or of another shape, or a file is broken.
    """
    with readable_files(folder):
        backbone, info = model_class.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    for kind in ("missing_keys", "unexpected_keys"):
        info[kind] = {key for key in info[kind] if not any(f".{part}" in f".{key}" for part in UNUSED_KEYS)}
    check_loading(info, name)
    return backbone


def head_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a module of sentence-transformers behind the pooling.

    Raises:
        CheckpointError: There are none, or they are damaged.
    """
    stored = folder / "model.safetensors"
    with readable_files(folder):
        return load_file(stored) if stored.is_file() else read_pickle(folder / "pytorch_model.bin")
