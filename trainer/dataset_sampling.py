"""Batches over many data sets: of one data set each, or of sub-batches of one data set each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler, SetEpochMixin
from torch.utils.data import BatchSampler


class TemperatureBatchSampler(MultiDatasetDefaultBatchSampler):
    """Draws each batch from a data set of `n` batches with the weight `n ** (1 / temperature)`.

    At 1 data sets are drawn by their sizes, and the higher the temperature, the more alike. An epoch has as many
    batches as all data sets together; one that runs out before is shuffled and begun again.

    Args:
        *arguments: What `MultiDatasetDefaultBatchSampler` takes.
        temperature: A number from 1 up.
        **options: What `MultiDatasetDefaultBatchSampler` takes.
    """

    def __init__(self, *arguments: Any, temperature: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.temperature = temperature

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator() if self.generator is None else self.generator
        generator.manual_seed(self.seed + self.epoch)
        sizes = torch.tensor([len(sampler) for sampler in self.batch_samplers], dtype=torch.float64)
        weights = (sizes / sizes.max()) ** (1 / self.temperature)
        drawn = torch.multinomial(weights, len(self), replacement=True, generator=generator).tolist()
        starts = [0, *self.dataset.cumulative_sizes]
        running = [iter(sampler) for sampler in self.batch_samplers]
        for number in drawn:
            batch = next(running[number], None)
            if batch is None:
                running[number] = iter(self.batch_samplers[number])
                batch = next(running[number])
            yield [starts[number] + place for place in batch]

    def __len__(self) -> int:
        return sum(map(len, self.batch_samplers))


class _OuterBatchSampler(SetEpochMixin, BatchSampler):
    """Makes other batches of those of a sampler."""

    def __init__(self, sampler: MultiDatasetDefaultBatchSampler, count: int, batch_size: int) -> None:
        super().__init__(sampler, batch_size=batch_size, drop_last=True)
        self.inner, self.count = sampler, count

    def set_epoch(self, epoch: int) -> None:
        """Another epoch shuffles anew."""
        super().set_epoch(epoch)
        self.inner.set_epoch(epoch)


class InterleavedBatchSampler(_OuterBatchSampler):
    """Puts several batches of another sampler together into one: sub-batches of one data set each (VLM2Vec-V2).

    Args:
        sampler: Gives the sub-batches.
        count: How many make a batch; what is left over at the end of an epoch is left out.
    """

    def __init__(self, sampler: MultiDatasetDefaultBatchSampler, count: int) -> None:
        super().__init__(sampler, count, sampler.batch_size * count)

    def __iter__(self) -> Iterator[list[int]]:
        parts = iter(self.inner)
        for whole in zip(*[parts] * self.count, strict=False):
            yield [place for part in whole for place in part]

    def __len__(self) -> int:
        return len(self.inner) // self.count


class DividedBatchSampler(_OuterBatchSampler):
    """Cuts each batch of another sampler into those of several processes, which take them by turns.

    Args:
        sampler: Gives batches of all processes together, each of one data set.
        count: How many processes there are.
    """

    def __init__(self, sampler: MultiDatasetDefaultBatchSampler, count: int) -> None:
        super().__init__(sampler, count, sampler.batch_size // count)

    def __iter__(self) -> Iterator[list[int]]:
        for whole in self.inner:
            yield from (whole[start : start + self.batch_size] for start in range(0, len(whole), self.batch_size))

    def __len__(self) -> int:
        return len(self.inner) * self.count
