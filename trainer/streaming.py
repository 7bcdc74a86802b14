"""Training on a stream: every process reads its own share of the rows, and all take equally many steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate.utils import gather_object
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader
from transformers import TrainingArguments


class StreamError(ValueError):
    """A stream cannot be shared between the processes."""


def stream_loader(
    rows: IterableDataset, batch_size: int, collator: Callable[..., Any], args: TrainingArguments
) -> DataLoader:
    """Batches of this process's share of a stream; accelerate would read all rows in one process and send them."""
    return DataLoader(
        split_dataset_by_node(rows, rank=args.process_index, world_size=args.world_size),
        batch_size=batch_size,
        collate_fn=collator,
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
    )


def fill_up(samples: list[Any], idle: Any | None) -> list[Any]:
    """Adds idle samples until there are as many as in the process with the most; all processes must call it.

    Args:
        samples: Those of this process.
        idle: A sample that weighs nothing; `None` if this process never had a row to make it of.

    Raises:
        StreamError: A process has no row at all.
    """
    states = gather_object([(len(samples), idle is not None)])
    most = max(count for count, _ in states)
    if most and not all(has_rows for _, has_rows in states):
        raise StreamError(
            f"the stream has fewer rows, or fewer shards with rows, than there are processes ({len(states)})."
        )
    return samples + [idle] * (most - len(samples))
