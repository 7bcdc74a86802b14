"""The tensors in a folder's safetensors files, rewritten where they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from xvlm2vec.modeling.loading import CheckpointError, readable_files

from .original_files import SAFE, SAFE_INDEX
from .staging import ExportError

_LENGTH_BYTES = 8  # a safetensors file begins with the length of its header


class StoredTensors:
    """The tensors of a folder's safetensors files, which are rewritten in place: nothing else in a file moves.

    Args:
        folder: The folder, with one `model.safetensors`, or with shards and their index.
        files: The files in it, where they have other names.

    Raises:
        CheckpointError: There are no such files, one is missing or damaged, or the index names files elsewhere.
    """

    def __init__(self, folder: Path, files: Sequence[Path] | None = None) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        for path in self._weight_files() if files is None else files:
            with readable_files(path), safe_open(path, framework="pt") as file:
                self.files |= dict.fromkeys(file.keys(), path)

    def _weight_files(self) -> list[Path]:
        if (self.folder / SAFE).is_file():
            return [self.folder / SAFE]
        if not (self.folder / SAFE_INDEX).is_file():
            hint = "it is an adapter: merge it first" if (self.folder / "adapter_config.json").is_file() else "none"
            raise CheckpointError(f"the original has no file of weights that could be given back ({hint}).")
        try:
            names = set(json.loads((self.folder / SAFE_INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{SAFE_INDEX} of the original is no index of weights: {error}") from error
        strange = sorted(name for name in names if Path(name).name != name)
        if strange:
            raise CheckpointError(f"{SAFE_INDEX} of the original names a file elsewhere: {strange[0]}.")
        return [self.folder / name for name in sorted(names)]

    def read(self, key: str) -> torch.Tensor:
        """A tensor as it is stored now."""
        with readable_files(self.files[key]), safe_open(self.files[key], framework="pt") as file:
            return file.get_tensor(key)

    def write(self, key: str, value: torch.Tensor) -> None:
        """Puts a value in a tensor's place, in its dtype.

        Raises:
            ExportError: Another shape, or a value that is not finite in that dtype.
        """
        stored = self.read(key)
        if value.shape != stored.shape:
            raise ExportError(f"{key} was taught as {tuple(value.shape)}, and is stored as {tuple(stored.shape)}.")
        value = value.detach().cpu().to(stored.dtype).contiguous()
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise ExportError(f"the taught values of {key} are not all finite in {stored.dtype}.")
        content = value.reshape(-1).view(torch.uint8).numpy().data
        with self.files[key].open("r+b") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            begin, end = json.loads(file.read(length))[key]["data_offsets"]
            if end - begin != content.nbytes:
                raise ExportError(f"{key} is stored in a form that cannot be rewritten.")
            file.seek(_LENGTH_BYTES + length + begin)
            file.write(content)

    def dtypes(self) -> set[torch.dtype]:
        """The floating dtypes in the files."""
        dtypes = {self.read(key).dtype for key in self.files}
        return {dtype for dtype in dtypes if dtype.is_floating_point}


def is_same(value: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether a value is a stored one, cast to its dtype."""
    return value.shape == stored.shape and torch.equal(value, stored.to(value.dtype))
