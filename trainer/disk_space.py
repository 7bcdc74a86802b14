"""Foresees a disk that will be full before a training is through."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback, TrainerState, TrainingArguments

from xvlm2vec.common.files import readable_size


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
        sizes = readable_size(needed), readable_size(free)
        raise DiskSpaceError(f"{what}: about {sizes[0]} in {folder}, but only {sizes[1]} are free there. {remedy}")


def free_bytes(folder: str | Path) -> int:
    """What is free on the disk of a folder, which need not exist yet."""
    existing = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


class DiskSpaceCheck(TrainerCallback):
    """Foresees, before the first step, a disk that will be full before the last.

    Args:
        model: What is saved: all weights, or those of an adapter.
    """

    final = "the final model"

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Compares what the checkpoints and the final model need with what is free.

        Raises:
            DiskSpaceError: It is not enough.
        """
        if not state.is_world_process_zero:
            return
        each = checkpoint_bytes(self.model, args)
        count = checkpoints_at_once(args, state)
        what = f"{count} checkpoint{'s' if count != 1 else ''} of {readable_size(each)} each and {self.final} need room"
        remedy = "Make room, keep fewer checkpoints (--save-total-limit), or write elsewhere."
        needed = bytes_to_come(self.model, args, state) + self.more_bytes()
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


def bytes_to_come(model: nn.Module, args: TrainingArguments, state: TrainerState) -> int:
    """What a training will write beyond what lies there: its checkpoints and the final model."""
    each, count = checkpoint_bytes(model, args), checkpoints_at_once(args, state)
    there = sum(path.stat().st_size for path in Path(str(args.output_dir)).glob("checkpoint-*/*") if path.is_file())
    return max(count * each - there, 0) + weight_bytes(model)


def checkpoint_bytes(model: nn.Module, args: TrainingArguments) -> int:
    """Bytes of one checkpoint."""
    if args.save_only_model:
        return weight_bytes(model)
    copies = 2 if isinstance(model, FSDPModule) else 1  # accelerate saves the weights of FSDP2 once more
    return copies * weight_bytes(model) + optimizer_bytes(model)


def merged_bytes(model: nn.Module) -> int:
    """Bytes of the base of an adapter, which is frozen, once the adapter is merged: unpacked if it is in 4 bits."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    whole: list[Any] = [getattr(parameter, "quant_state", None) or parameter for parameter in frozen]
    return sum(part.shape.numel() * part.dtype.itemsize for part in whole)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the weights that a checkpoint holds: the trained ones of an adapter, else all."""
    adapter = hasattr(model, "peft_config") or bool(getattr(model, "language_adapters", None))
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad or not adapter)


def optimizer_bytes(model: nn.Module) -> int:
    """Bytes of the two moments of AdamW for what is trained: the most that an optimizer here keeps."""
    return sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def checkpoints_at_once(args: TrainingArguments, state: TrainerState) -> int:
    """The most checkpoints that lie on the disk at one time: one more than are kept, while the newest is written.

    Args:
        args: Say when one is written, and how many are kept.
        state: At the beginning of the training: `max_steps` and `num_train_epochs` are counted by then.
    """
    saves = number_of_times(args.save_strategy, args.save_steps, state)
    if args.save_strategy == "best":  # at most as often as something is measured
        saves = number_of_times(args.eval_strategy, args.eval_steps, state)
    limit = args.save_total_limit
    if limit is None or limit <= 0:  # none is removed
        return saves
    return min(saves, max(limit, 2 if args.load_best_model_at_end else 1) + 1)  # the best and the last one stay


def number_of_times(strategy: str, every: float | None, state: TrainerState) -> int:
    """How often a training saves or evaluates: `every` counts steps or, below 1, is a share of the training."""
    if strategy == "steps":
        steps = math.ceil(state.max_steps * every) if every and every < 1 else int(every or 1)
        return math.ceil(state.max_steps / max(steps, 1))
    if strategy == "epoch":  # of a stream nobody knows how many passes the steps make; one is sure
        return 1 if state.num_train_epochs == sys.maxsize else min(int(state.num_train_epochs), state.max_steps)
    return 0
