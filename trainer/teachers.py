"""Where the targets come from: a store of English vectors, the bare adapter's base, a copy, another embedder."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from peft.utils import ModulesToSaveWrapper
from torch import nn
from tqdm.auto import tqdm

from xvlm2vec.common.fingerprint import fingerprint, plain_config, saved_digest
from xvlm2vec.common.store import EmbeddingStore
from xvlm2vec.common.user_cache import cache_folder
from xvlm2vec.modeling.concurrency import evaluation_mode
from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .collators import ParallelBatch, ParallelCollator
from .disk_space import check_room
from .forward_passes import Needs, Passes, RowVectors
from .usable_rows import has_english

logger = logging.getLogger(__name__)

CHUNK = 256
"""Rows that are read, embedded and written at a time: an interruption costs no more."""


class TeacherError(ValueError):
    """A teacher has no vector for a row, or cannot be had for this model or corpus."""


@dataclass(frozen=True)
class EnglishSource:
    """What embeds English rows.

    Args:
        model: The teacher, with gradients off.
        passes: Runs it.
        collator: Prepares rows for it.
    """

    model: nn.Module
    passes: Passes
    collator: ParallelCollator


class ForwardTeacher:
    """A model that embeds the English texts of each batch anew: one more pass a step.

    Args:
        model: A `frozen_copy` of the student, or a `peft.PeftModel`, whose adapter is off meanwhile.
        passes: Runs it.
    """

    def __init__(self, model: nn.Module, passes: Passes) -> None:
        self.model = model
        self.passes = passes

    @torch.no_grad()
    def vectors(self, batch: ParallelBatch) -> RowVectors:
        """Embeds the English texts of a batch."""
        with as_teacher(self.model):
            return self.passes.embed_english(self.model, batch)


class CachedTeacher:
    """English vectors from a store on disk, which one pass over the distinct English rows fills before the training.

    The store is keyed by the weights, the settings of model and processor, the number format, and, row by row, by text
    and image (its encoded bytes, or its pixels where it is not encoded). Epochs, languages and runs share it; what
    was embedded before an interruption, even a `kill -9`, is there afterwards.

    Args:
        folder: Holds the store.
        name: Names the model in it, see `teacher_name`.
        needs: What the loss needs.
        config: The teacher's configuration.
    """

    def __init__(self, folder: str | Path, name: str, needs: Needs, config: XVLM2VecConfig) -> None:
        self.folder, self.name, self.needs = Path(folder), name, needs
        self.width, self.model = config.hidden_size, str(config.name_or_path)
        self.reopen()

    def vectors(self, batch: ParallelBatch) -> RowVectors:
        """Reads the vectors of a batch.

        Raises:
            TeacherError: A row is not in the store.
        """
        english, width = self._read(batch.keys, batch), self.width
        image_only = None
        if self.needs.unimodal:
            image_only = english.new_zeros(len(english), width)
            image_only[batch.has_image] = self._read(batch.image_keys, batch)[:, :width]
        means = english[:, width:] if self.needs.image_means else None
        return RowVectors(english[:, :width], means, image_only=image_only)

    def fill(self, rows: Dataset, source: EnglishSource, show_progress: bool) -> None:
        """Embeds the English rows that the store lacks.

        Args:
            rows: This process's share of the corpus.
            source: Embeds them.
            show_progress: Whether to show a bar.

        Raises:
            DiskSpaceError: The store would not fit on the disk.
        """
        checked = False
        with tqdm(total=len(rows), desc="Teacher", unit="row", disable=not show_progress, dynamic_ncols=True) as bar:
            for start in range(0, len(rows), CHUNK):
                part = [rows[index] for index in range(start, min(start + CHUNK, len(rows)))]
                new = self._lacking(part, source.collator)
                if new and not checked:
                    self._check_room(len(rows) - start)
                    checked = True
                for batch in source.collator.english_batches(new):
                    batch = batch.to(source.passes.embedder.device)
                    self._add(source.passes.embed_english(source.model, batch), batch)
                bar.update(len(part))

    def reopen(self) -> None:
        """Opens the store, also to see what other processes have written."""
        parts = ["alone"] * self.needs.unimodal + [
            "image_means"
        ] * self.needs.image_means  # as stores of old versions are named
        fingerprint = f"{self.name}:{'+'.join(parts)}" if parts else self.name
        self.store = EmbeddingStore(self.folder, fingerprint, model=self.model)

    def _lacking(self, rows: Sequence[dict[str, Any]], collator: ParallelCollator) -> list[dict[str, Any]]:
        """The distinct rows that the store does not hold whole; where texts are alone, without images that it holds."""
        new: list[dict[str, Any]] = []
        coming: set[bytes] = set()
        rows = [row for row in rows if has_english(row, collator.with_images)]
        for row, (text, *images) in zip(rows, collator.keys(rows), strict=True):
            lacking = {key for key in (text, *images) if key not in self.store} - coming
            if lacking:
                new.append(row if collator.with_images or lacking - {text} else {**row, "image": None})
            coming |= lacking
        return new

    def _add(self, vectors: RowVectors, batch: ParallelBatch) -> None:
        english = vectors.english
        parts = [english] if vectors.english_image is None else [english, vectors.english_image]
        self.store.add(batch.keys, torch.cat(parts, dim=1).float().cpu().numpy())
        if vectors.image_only is not None and batch.image_keys:
            image_only = vectors.image_only[batch.has_image]
            filler = [part.new_zeros(len(image_only), part.shape[1]) for part in parts[1:]]
            self.store.add(batch.image_keys, torch.cat([image_only, *filler], dim=1).float().cpu().numpy())

    def _read(self, keys: Sequence[bytes], batch: ParallelBatch) -> torch.Tensor:
        try:
            vectors = self.store.get(keys)
        except KeyError:
            missing = next((name for name, key in zip(batch.ids, batch.keys, strict=True) if key not in self.store), "")
            raise TeacherError(
                f"The teacher's store {self.folder} has no vector for row {missing!r}: it was filled from the "
                'corpus as it was at the start. Rows that are made anew whenever they are read need teacher="copy" or '
                '"adapter-off".'
            ) from None
        return torch.from_numpy(np.ascontiguousarray(vectors)).to(batch.row_of_pair.device)

    def _check_room(self, rows: int) -> None:
        width = self.width * (2 if self.needs.image_means else 1)
        needed = rows * (1 + self.needs.unimodal) * (32 + 4 * width)
        check_room(
            self.folder,
            needed,
            "The teacher's vectors need room",
            'Make room, keep them elsewhere (--teacher-store), or use teacher="copy".',
        )


def check_teacher(kind: str, model: nn.Module, rows: Any, is_other: bool = False) -> None:
    """Raises if a teacher cannot be had for a model or a corpus.

    Args:
        kind: One of `TEACHERS`.
        model: The student.
        rows: The corpus.
        is_other: Whether the teacher is another embedder.
    """
    if kind == "adapter-off" and not hasattr(model, "disable_adapter"):
        raise TeacherError('teacher="adapter-off" needs a model with an adapter; use teacher="cached" or "copy".')
    if kind == "cached" and isinstance(rows, IterableDataset):
        raise TeacherError(
            'teacher="cached" embeds the English rows before the training, but this corpus is streamed; use '
            + ('teacher="copy".' if is_other else 'teacher="adapter-off" with an adapter, else teacher="copy".')
        )


def default_store() -> Path:
    """Where the English vectors of all runs lie: `$XVLM2VEC_CACHE/teacher`, by default in the user's cache."""
    return cache_folder() / "teacher"


def teacher_name(embedder: XVLM2VecModel, processor: XVLM2VecProcessor, precision: str) -> str:
    """What names a teacher in the store: weights without any adapter, settings, processor and number format."""
    settings = {"config": plain_config(embedder.config), "processor": saved_digest(processor), "precision": precision}
    return fingerprint(settings, bare_weights(embedder.state_dict()))


def bare_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a model without those of its adapter, by the names that they have without it."""
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): value
        for name, value in state.items()
        if not re.search(r"\.(lora_|modules_to_save\.)", name)
    }


@contextmanager
def as_teacher(model: Any) -> Iterator[None]:
    """Makes the student its own teacher for a while: without dropout, and without its adapter if it has one."""
    with evaluation_mode(model), model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
        yield


def frozen_copy(model: Any) -> nn.Module:
    """A copy that is never trained, without the adapter if there is one: what `as_teacher` gives."""
    teacher = copy.deepcopy(model)
    if hasattr(teacher, "disable_adapter"):
        for module in teacher.modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.modules_to_save.update({name: module.original_module for name in module.modules_to_save})
        teacher = teacher.unload()
    return teacher.eval().requires_grad_(False)
