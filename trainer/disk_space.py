"""Foresees a disk that will be full before a training is through."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class DiskSpaceError(RuntimeError):
    """The disk has less room than a run needs; the message gives both sizes."""


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
    return max(count * each - there, 0) + weight_bytes(model)


def checkpoint_bytes(model: nn.Module, args: TrainingArguments) -> int:
    """Bytes of one checkpoint."""
    return weight_bytes(model) + (0 if args.save_only_model else optimizer_bytes(model))


def merged_bytes(model: nn.Module) -> int:
    """Bytes of the base of an adapter, which is frozen, once the adapter is merged: unpacked if it is in 4 bits."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    whole: list[Any] = [getattr(parameter, "quant_state", None) or parameter for parameter in frozen]
    return sum(part.shape.numel() * part.dtype.itemsize for part in whole)


def weight_bytes(model: nn.Module) -> int:
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
