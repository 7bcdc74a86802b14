"""What stops a training before it does harm: a loss that is no number, a disk that will be full."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .collators import ParallelBatch

logger = logging.getLogger(__name__)

ROWS_FILE = "rows.json"


class NonFiniteLossError(RuntimeError):
    """The loss is a NaN or infinite; the message names the folder with the batch."""


class DiskSpaceError(RuntimeError):
    """The disk has less room than a run needs; the message gives both sizes."""


def stop_at(folder: str | Path, step: int, what: str, batches: Sequence[ParallelBatch]) -> NonFiniteLossError:
    """Saves the batches of a step that went wrong and makes the error that stops the training.

    Args:
        folder: Of the run; the batches go into `bad-batch-<step>` below it.
        step: The step that was not taken.
        what: What is no number.
        batches: All batches of this process that may be the cause.
    """
    place = Path(folder) / f"bad-batch-{step}"
    try:
        save_batches(place, batches)
        saved = f"Its rows are in {place / ROWS_FILE}, the tensors beside it"
    except OSError as error:  # on a full disk the message matters more than the file
        saved = f"Its rows could not be saved ({error})"
    names = [name for batch in batches for name in batch.ids]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return NonFiniteLossError(
        f"{what} in step {step} (rows {shown}); the weights are as they were before. {saved}. Look for empty or "
        "broken rows there; if there are none, lower the learning rate, or train in float32. The same command goes on "
        "from the newest checkpoint."
    )


def save_batches(folder: Path, batches: Sequence[ParallelBatch]) -> None:
    """Writes the rows of batches as JSON, and what the model was given as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for number, batch in enumerate(batches):
        tensors |= {f"batch{number}.{name}": value for name, value in _tensors(batch).items()}
    save_file(tensors, folder / "inputs.safetensors")
    rows = [row for batch in batches for row in _rows(batch)]
    draft = folder / f"{ROWS_FILE}.tmp"
    draft.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, folder / ROWS_FILE)


def _rows(batch: ParallelBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"id": name, "image": digest is not None, "text_en": text, "translations": []}
        for name, digest, text in zip(batch.ids, batch.digests, batch.texts, strict=True)
    ]
    for row, language, text in zip(batch.row_of_pair.tolist(), batch.languages, batch.translations, strict=True):
        rows[row]["translations"].append({"lang": language, "text": text})
    return rows


def _tensors(batch: ParallelBatch) -> dict[str, torch.Tensor]:
    named: dict[str, torch.Tensor] = {}
    for kind in ("english", "translated", "images_alone", "translations_alone"):
        named |= {f"{kind}.{name}": value for name, value in (getattr(batch, kind) or {}).items()}
    for number, group in enumerate(batch.groups or ()):
        named |= {f"row{number}.{name}": value for name, value in group.images.items()}
        named[f"row{number}.prefix"] = torch.tensor(group.prefix, dtype=torch.long)
        named |= {f"row{number}.text{i}": torch.tensor(ids, dtype=torch.long) for i, ids in enumerate(group.texts)}
    return {name: value.detach().cpu().contiguous().clone() for name, value in named.items()}


def check_room(folder: str | Path, needed: int, what: str, remedy: str) -> None:
    """Raises if a disk has less room than something needs.

    Args:
        folder: Where it will be written; it need not exist yet.
        needed: Bytes.
        what: What needs them.
        remedy: What a person can do.

    Raises:
        DiskSpaceError: There are fewer bytes free.
    """
    free = free_bytes(folder)
    if free < needed:
        raise DiskSpaceError(
            f"{what}: about {size(needed)} in {folder}, but only {size(free)} are free there. {remedy}"
        )


def free_bytes(folder: str | Path) -> int:
    """What is free on the disk of a folder, which need not exist yet."""
    existing = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def size(count: int) -> str:
    """Bytes for people."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


class DiskSpaceCheck(TrainerCallback):
    """Foresees, before the first step, a disk that will be full before the last.

    Args:
        model: What is saved: all weights, or those of an adapter.
    """

    final = "the final model"

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compares what the checkpoints and the final model need with what is free.

        Raises:
            DiskSpaceError: It is not enough.
        """
        if not state.is_world_process_zero:
            return
        each = checkpoint_bytes(self.model, args)
        count = checkpoints_at_once(args, state.max_steps)
        what = f"{count} checkpoint{'s' if count != 1 else ''} of {size(each)} each and {self.final} need room"
        remedy = "Make room, keep fewer checkpoints (--save-total-limit), or write elsewhere."
        needed = bytes_to_come(self.model, args, state.max_steps) + self.more_bytes()
        check_room(str(args.output_dir), needed, what, remedy)

    def more_bytes(self) -> int:
        """What is written beside checkpoints and final model."""
        return 0


class MergedSpaceCheck(DiskSpaceCheck):
    """As `DiskSpaceCheck`, for an adapter that is merged into its base at the end: this model is written, too."""

    final = "the final model, alone and merged,"

    def more_bytes(self) -> int:
        """All weights of the base."""
        return merged_bytes(self.model)


def bytes_to_come(model: nn.Module, args: TrainingArguments, max_steps: int) -> int:
    """What a training will write beyond what lies there: its checkpoints and the final model."""
    each, count = checkpoint_bytes(model, args), checkpoints_at_once(args, max_steps)
    there = sum(path.stat().st_size for path in Path(str(args.output_dir)).glob("checkpoint-*/*") if path.is_file())
    return max(count * each - there, 0) + saved_bytes(model)


def checkpoint_bytes(model: nn.Module, args: TrainingArguments) -> int:
    """Bytes of one checkpoint."""
    return saved_bytes(model) + (0 if args.save_only_model else optimizer_bytes(model))


def merged_bytes(model: nn.Module) -> int:
    """Bytes of the base of an adapter, which is frozen, once the adapter is merged: unpacked if it is in 4 bits."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    whole: list[Any] = [getattr(parameter, "quant_state", None) or parameter for parameter in frozen]
    return sum(part.shape.numel() * part.dtype.itemsize for part in whole)


def saved_bytes(model: nn.Module) -> int:
    """Bytes of the weights that a checkpoint holds: the trained ones of an adapter, else all."""
    adapter = hasattr(model, "peft_config")
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad or not adapter)


def optimizer_bytes(model: nn.Module) -> int:
    """Bytes of the two moments of AdamW for what is trained: the most that an optimizer here keeps."""
    return sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def checkpoints_at_once(args: TrainingArguments, max_steps: int) -> int:
    """The most checkpoints that lie on the disk at one time: one more than are kept, while the newest is written."""
    if args.save_strategy == "no":
        return 0
    every = args.save_steps if args.save_strategy == "steps" else max_steps / max(float(args.num_train_epochs), 1)
    saves = max(int(max_steps // max(every, 1)), 1) if every >= 1 else max_steps
    limit = args.save_total_limit
    if limit is None or limit <= 0:  # none is removed
        return saves
    return min(saves, max(limit, 2 if args.load_best_model_at_end else 1) + 1)  # the best and the last one stay
