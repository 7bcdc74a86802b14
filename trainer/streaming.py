"""Training on a stream: every process reads its own share of the rows, and all take equally many steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader
from transformers import Trainer


class StreamError(ValueError):
    """A stream cannot be shared between the processes."""


class StreamingTrainer(Trainer):
    """A `transformers.Trainer` that also takes a `datasets.IterableDataset`, on any number of processes.

    Each process reads its own part of the rows: whole shards, if their number is a multiple of that of the processes,
    else every n-th row. In each pass over the stream all rows are used once and none twice. Processes whose part ends
    earlier go on with a batch of weight 0 until the last one is through, so that collective operations meet.

    An interrupted run goes on exactly where it was within its first pass over the stream; after that, the order of the
    rows differs from an uninterrupted run's, because `transformers.Trainer` does not know how long a pass is.
    """

    _idle: dict[str, Any] | None = None

    def get_train_dataloader(self) -> DataLoader:
        """The share of this process, for a stream; accelerate would read all rows in one process and send them."""
        rows = self.train_dataset
        if not isinstance(rows, IterableDataset):
            return super().get_train_dataloader()
        args = self.args
        return DataLoader(
            split_dataset_by_node(rows, rank=args.process_index, world_size=args.world_size),
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of a step; of a stream, as many as the process with the most has.

        Raises:
            StreamError: A process has no row at all.
        """
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.args.world_size == 1 or not isinstance(self.train_dataset, IterableDataset):
            return samples, items
        if samples and self._idle is None:
            self._idle = {"batches": [replace(samples[0]["batches"][0], weight=0.0)]}
        states = gather_object([(len(samples), self._idle is not None)])
        most = max(count for count, _ in states)
        if most and not all(has_rows for _, has_rows in states):
            raise StreamError(
                f"the stream has fewer rows, or fewer shards with rows, than there are processes ({len(states)})."
            )
        return samples + [self._idle] * (most - len(samples)), items
