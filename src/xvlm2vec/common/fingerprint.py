"""Names a model with its weights and settings: what an `EmbeddingStore` needs to tell models apart."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def fingerprint(settings: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of settings and weights."""
    import torch

    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def plain_config(config: Any) -> dict[str, Any]:
    """A model's settings without where it was loaded from."""
    values = config.to_diff_dict()
    origin = {"_name_or_path", "adopted", "transformers_version"}
    return {name: value for name, value in values.items() if name not in origin}


def saved_digest(processor: Any) -> str:
    """SHA-256 of the files that a tokenizer or processor saves; empty for one that cannot be saved."""
    if not hasattr(processor, "save_pretrained"):
        return ""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()
