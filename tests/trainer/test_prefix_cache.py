"""What the base made of a row is kept for the next epoch, and a training with it learns the same."""

from __future__ import annotations

import copy

import pytest
import torch
from datasets import Dataset
from steps import close, make_trainer, named

from xvlm2vec.modeling.packing import PrefixStates
from xvlm2vec.trainer.activated import add_activated
from xvlm2vec.trainer.adapters import AdapterConfig
from xvlm2vec.trainer.losses import SelfDistillationLoss
from xvlm2vec.trainer.prefix_cache import FOLDER, KeptRow, PrefixCache, join_rows


def trained(folder, model, processor, rows, **settings):
    """The adapter's weights after some epochs, and how many tokens the base's passes took in each step."""
    mine = add_activated(copy.deepcopy(model), AdapterConfig(rank=2, activated=True))
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in mine.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    options = {"num_train_epochs": 3, "max_steps": -1, "per_device_train_batch_size": 3, **settings}
    trainer = make_trainer(folder, mine, processor, rows, SelfDistillationLoss(), **options)
    passes, tokens = trainer.passes, []
    run = passes._run_base

    def counted(model, batch):
        tokens.append(len(batch.groups))
        return run(model, batch)

    passes._run_base = counted
    trainer.train()
    weights = {name: part.detach().clone() for name, part in mine.named_parameters() if part.requires_grad}
    return weights, tokens


def test_rows_of_later_epochs_are_read_and_the_training_is_the_same(tmp_path, model, processor, rows):
    corpus = Dataset.from_list(rows)
    plain, all_rows = trained(tmp_path / "plain", model, processor, corpus)
    kept, some_rows = trained(tmp_path / "kept", model, processor, corpus, keep_prefix=0.1)
    assert sum(all_rows) == 3 * len(corpus)
    assert sum(some_rows) == len(corpus)
    for name, weight in plain.items():
        close(kept[name], weight)
    assert not (tmp_path / "kept" / FOLDER).exists()
    few, most_rows = trained(tmp_path / "few", model, processor, corpus, keep_prefix=1e-6)
    assert sum(some_rows) < sum(most_rows) < sum(all_rows)
    for name, weight in plain.items():
        torch.testing.assert_close(few[name], weight, msg=named(name))


def test_it_is_for_a_base_that_stays(tmp_path, model, processor, rows):
    with pytest.raises(ValueError, match="use --adapter activated"):
        make_trainer(tmp_path, copy.deepcopy(model), processor, Dataset.from_list(rows), keep_prefix=1.0)


def test_round_trip_of_keys_values_and_memories(tmp_path, model):
    layers = [module for name, module in model.named_modules() if name.endswith("self_attn")][:2]
    states = PrefixStates(hidden={0: torch.rand(5, 8)})
    states.keep(layers[0], [0], torch.rand(1, 2, 5, 4), torch.rand(1, 2, 5, 4))
    states.keep_memory(layers[1], [0], {("conv", 0): torch.rand(1, 8, 3), ("state", 1): torch.rand(1, 2, 4)})
    PrefixCache(tmp_path, 10**6, model).put(b"key", KeptRow(torch.rand(8), torch.rand(8), True, states))
    row = PrefixCache(tmp_path, 10**6, model).get(b"key", torch.device("cpu"))
    _, means, kept = join_rows([row, row])
    assert means.shape == (2, 8)
    for number in (0, 1):
        pairs = zip(
            kept[True].keys_and_values(layers[0], [number]), states.keys_and_values(layers[0], [0]), strict=True
        )
        assert all(torch.equal(*pair) for pair in pairs)
        memory, behind = kept[True].memory(layers[1], [number]), states.memory(layers[1], [0])
        assert memory.keys() == behind.keys()
        assert all(torch.equal(memory[name], behind[name]) for name in behind)


def test_a_torn_file_is_computed_again(tmp_path, model):
    cache = PrefixCache(tmp_path, 10**6, model)
    cache._path(b"key").write_bytes(b"torn")
    assert cache.get(b"key", torch.device("cpu")) is None
