"""What the base below an activated adapter made of each row, kept on disk for the next epoch: it is never trained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments

from xvlm2vec.common.fingerprint import fingerprint, saved_digest
from xvlm2vec.modeling.base_digest import base_digest
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import PrefixStates, TokenGroup
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .distillation_config import SelfDistillationConfig
from .image_cache import DiskCache, KeepImages, UsesCache

FOLDER = "prefix-states"
OfBase = tuple[torch.Tensor, torch.Tensor | None, dict[bool, PrefixStates]]
"""English vectors `(G, H)`, means over images, and the states of prefixes, for rows beyond the RoPE limit apart."""


@dataclass(frozen=True)
class KeptRow:
    """What the base made of one row.

    Attributes:
        pooled: `(H,)`, the vector of its English text.
        mean: `(H,)`, the mean state of its image, if the loss needs it.
        beyond: Whether the row is so long that the backbone uses other RoPE factors.
        states: Those of its prefix, under the number 0.
    """

    pooled: torch.Tensor
    mean: torch.Tensor | None
    beyond: bool
    states: PrefixStates


def key_of(group: TokenGroup, digest: bytes | None) -> bytes:
    """Names what the base makes of a row: its images, what the texts share, and the English text."""
    hashed = hashlib.sha256(digest or b"")
    for ids in (group.prefix, group.texts[0]):
        hashed.update(np.array([len(ids), *ids], dtype=np.int64).tobytes())
    return hashed.digest()


def split_rows(pooled: torch.Tensor, means: torch.Tensor | None, kept: dict[bool, PrefixStates]) -> list[KeptRow]:
    """The rows of a pass of the base."""
    rows = []
    for number, vector in enumerate(pooled):
        beyond = next(beyond for beyond, states in kept.items() if number in states.hidden)
        rows.append(
            KeptRow(vector, None if means is None else means[number], beyond, kept[beyond].renumbered([number]))
        )
    return rows


def join_rows(rows: Sequence[KeptRow]) -> OfBase:
    """What one pass over these rows would have given."""
    kept: dict[bool, PrefixStates] = {}
    for number, row in enumerate(rows):
        kept.setdefault(row.beyond, PrefixStates()).take(row.states, {0: number})
    means = [row.mean for row in rows if row.mean is not None]
    return torch.stack([row.pooled for row in rows]), torch.stack(means) if means else None, kept


class PrefixCache(DiskCache):
    """Rows of the base by `key_of`.

    Args:
        folder: Where the files lie.
        budget: Bytes of all of them.
        embedder: The model, whose layers keep their names from process to process.
    """

    what = "prefixes"

    def __init__(self, folder: str | Path, budget: int, embedder: XVLM2VecModel) -> None:
        super().__init__(folder, budget)
        self._layers = dict(embedder.named_modules())
        self._names = {id(layer): name for name, layer in self._layers.items()}

    def get(self, key: bytes, device: torch.device) -> KeptRow | None:
        """What the base made of a row, or `None` if it is not here."""
        tensors = self.read(key, device)
        if tensors is None:
            return None
        states = PrefixStates(hidden={0: tensors["hidden"]})
        for name, tensor in tensors.items():
            kind, _, place = name.partition("/")
            if kind == "key":
                pair = (tensor, tensors[f"value/{place}"])
                states.layers[id(self._layers[place])] = {0: pair}
            elif kind == "memory":
                path, what, number = place.rsplit("/", 2)
                memory = states.recurrent.setdefault(id(self._layers[path]), {0: {}})
                memory[0][what, int(number)] = tensor
        return KeptRow(tensors["pooled"], tensors.get("mean"), bool(tensors["beyond"]), states)

    def put(self, key: bytes, row: KeptRow) -> None:
        """Keeps what the base made of a row, if there is room."""
        tensors = {"pooled": row.pooled, "beyond": torch.tensor(row.beyond), "hidden": row.states.hidden[0]}
        if row.mean is not None:
            tensors["mean"] = row.mean
        for layer, pairs in row.states.layers.items():
            for part, tensor in zip(("key", "value"), pairs.get(0, ()), strict=False):
                tensors[f"{part}/{self._names[layer]}"] = tensor
        for layer, memories in row.states.recurrent.items():
            for (what, number), tensor in memories.get(0, {}).items():
                tensors[f"memory/{self._names[layer]}/{what}/{number}"] = tensor
        self.write(key, tensors)


class UsesPrefixes(UsesCache, Protocol):
    """What computes with kept rows where there are some, as `activated_passes.ActivatedPasses` does."""

    needs: Any
    prefixes: PrefixCache | None


class KeepPrefixes(KeepImages):
    """Gives a training of several epochs a `PrefixCache`, and removes it at the end, as `KeepImages` does.

    Args:
        passes: Gets the cache.
        processor: Prepares the rows.
        budget: Bytes.
    """

    folder = FOLDER

    def __init__(self, passes: UsesPrefixes, processor: XVLM2VecProcessor, budget: int) -> None:
        super().__init__(passes, processor, budget)
        self.user = passes

    def _open(self, folder: Path) -> DiskCache:
        self.user.prefixes = PrefixCache(folder, self.budget, self.user.embedder)
        return self.user.prefixes

    def _close(self) -> None:
        self.user.prefixes = None

    def _name(self, args: TrainingArguments) -> str:
        settings = {
            "base": base_digest(self.user.embedder),
            "processor": saved_digest(self.processor),
            "bf16": args.bf16,
            "fp16": args.fp16,
            "means": self.user.needs.image_means,
        }
        return fingerprint(settings, {})[:16]


def keepers(
    passes: Any, processor: XVLM2VecProcessor, args: SelfDistillationConfig, images: bool
) -> list[TrainerCallback]:
    """What keeps states of rows from epoch to epoch: what a frozen vision tower made of images, and prefixes.

    Args:
        passes: What runs the student.
        processor: Prepares its rows.
        args: The settings.
        images: Whether images are seen, by a frozen tower.

    Raises:
        ValueError: Prefixes are to be kept of a model whose base is trained, or by several processes.
    """
    found: list[TrainerCallback] = [KeepImages(passes, processor, int(args.image_cache_gb * 10**9))] if images else []
    if not args.keep_prefix:
        return found
    if not hasattr(passes, "prefixes"):
        raise ValueError(
            "--keep-prefix keeps what a base made of a row, which changes where all weights or a LoRA adapter are "
            "trained: leave it out, or use --adapter activated."
        )
    if args.world_size > 1:
        raise ValueError("--keep-prefix goes with one process; several would wait for each other's passes.")
    return [*found, KeepPrefixes(passes, processor, int(args.keep_prefix * 10**9))]
