"""Folders of embedders that run by their own code: what is known of them without running it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from xvlm2vec.common.adoption.sources import open_source
from xvlm2vec.modeling.loading import CheckpointError

MODULES = "modules.json"


def has_own_code(folder: Path) -> bool:
    """Whether sentence-transformers loads a folder only with code that it does not have itself."""
    if not (folder / MODULES).is_file():
        return False
    source = open_source(str(folder))
    return bool(source.foreign_types) or (source.begins_with_transformer and "auto_map" in source.config)


def runs_by_own_code(folder: Path) -> bool:
    """Whether a folder's modules are others than a transformer of the library and what stands behind it."""
    if not (folder / MODULES).is_file():
        return False
    source = open_source(str(folder))
    return bool(source.foreign_types) or not source.begins_with_transformer


def digest_of_weights(folder: Path, but: str) -> str:
    """SHA-256 over the weights of a folder, file by file, wherever its own code looks for them.

    Args:
        folder: The folder.
        but: Name of a file that does not count.

    Raises:
        CheckpointError: There are none.
    """
    files = [path for path in sorted(folder.rglob("*.safetensors")) if path.name != but]
    if not files:
        raise CheckpointError(f"{folder} holds no safetensors; save the model there first.")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
