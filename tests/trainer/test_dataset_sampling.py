"""Batches over many data sets: whole ones, sub-batches, and how often each data set comes."""

from collections import Counter

import pytest
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler, ProportionalBatchSampler
from torch.utils.data import ConcatDataset, RandomSampler

from xvlm2vec.trainer.dataset_sampling import (
    DividedBatchSampler,
    InterleavedBatchSampler,
    TemperatureBatchSampler,
)

SIZES = (4000, 400, 40)


def sampler(kind=ProportionalBatchSampler, batch=4, **options):
    data = ConcatDataset([range(size) for size in SIZES])
    generator = torch.Generator()
    parts = [DefaultBatchSampler(RandomSampler(p, generator=generator), batch, True) for p in data.datasets]
    return kind(data, batch_samplers=parts, generator=generator, seed=0, **options)


def source(place):
    return 0 if place < 4000 else 1 if place < 4400 else 2


@pytest.mark.parametrize(("temperature", "shares"), [(1.0, (100, 10, 1)), (2.0, (10, 3.162, 1)), (1e9, (1, 1, 1))])
def test_a_temperature_evens_out_how_often_data_sets_come(temperature, shares):
    batches = list(sampler(TemperatureBatchSampler, temperature=temperature))
    assert len(batches) == sum(SIZES) // 4
    assert all(len({source(place) for place in batch}) == 1 for batch in batches)
    counts = Counter(source(batch[0]) for batch in batches)
    for number, share in enumerate(shares):
        expected = len(batches) * share / sum(shares)
        assert counts[number] == pytest.approx(expected, abs=4 * expected**0.5)


def test_an_epoch_is_drawn_from_the_seed_and_its_number():
    drawn = sampler(TemperatureBatchSampler, temperature=2.0)
    first = list(drawn)
    assert list(drawn) == first
    drawn.set_epoch(1)
    assert list(drawn) != first


def test_sub_batches_are_of_one_data_set_each_and_lose_no_row():
    whole = InterleavedBatchSampler(sampler(), 4)
    batches = list(whole)
    assert len(batches) == len(whole) == 4440 // 16
    assert {len(batch) for batch in batches} == {whole.batch_size} == {16}
    parts = [batch[start : start + 4] for batch in batches for start in range(0, 16, 4)]
    assert all(len({source(place) for place in part}) == 1 for part in parts)
    assert max(len({source(place) for place in batch}) for batch in batches) > 1
    assert len({place for batch in batches for place in batch}) == len(batches) * 16


def test_processes_divide_batches_of_one_data_set():
    divided = DividedBatchSampler(sampler(batch=4), 2)
    batches = list(divided)
    assert len(batches) == len(divided) == 4440 // 2
    assert {len(batch) for batch in batches} == {divided.batch_size} == {2}
    steps = [first + second for first, second in zip(batches[::2], batches[1::2], strict=True)]
    assert all(len({source(place) for place in step}) == 1 for step in steps)
    assert len({place for step in steps for place in step}) == 4440
    divided.set_epoch(1)
    assert list(divided) != batches
