"""Held-out rows, each measured once, whatever the number of processes."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainingArguments

from .collators import FilledRows, ParallelCollator


def held_out_loader(rows: Any, collator: ParallelCollator, args: TrainingArguments) -> DataLoader:
    """The batches of held-out rows; with several processes, filled up so that all have as many.

    Args:
        rows: A corpus with a length.
        collator: Prepares them.
        args: The training's settings.
    """
    if args.world_size > 1:
        rows = FilledRows(rows, args.eval_batch_size * args.world_size)
    return DataLoader(
        rows,
        args.eval_batch_size,
        collate_fn=collator,
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
    )
