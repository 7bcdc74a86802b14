"""A training foresees a disk that will be full, before its first step."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from steps import arguments, at_step_end, make_trainer
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerState

from xvlm2vec.common.files import readable_size
from xvlm2vec.trainer import disk_space
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.disk_space import (
    DiskSpaceCheck,
    DiskSpaceError,
    MergedSpaceCheck,
    bytes_to_come,
    check_room,
    checkpoint_bytes,
    checkpoints_at_once,
    merged_bytes,
)


def test_a_full_disk_is_foreseen_before_the_first_step(tmp_path, model, processor, corpus, monkeypatch):
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    trained = sum(p.numel() * 4 for n, p in model.named_parameters() if "vision" not in n and "connector" not in n)
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "max_steps": 9}
    needed = 3 * (weights + 2 * trained) + weights
    steps = []

    def start(free):
        monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        trainer = make_trainer(tmp_path, model, processor, corpus, **settings)
        trainer.add_callback(at_step_end(lambda *_, **__: steps.append(1)))
        trainer.train()

    message = f"3 checkpoints of {readable_size(weights + 2 * trained)} each.*about {readable_size(needed)}"
    with pytest.raises(DiskSpaceError, match=message):
        start(needed - 1)
    assert not steps
    start(needed)
    assert len(steps) == 9
    for checkpoint in tmp_path.glob("checkpoint-*"):  # transformers goes by numbers where all are of the same second
        os.utime(checkpoint, (0, 0))
    start(weights)  # what lies there already will be replaced


def test_a_merged_adapter_needs_room_for_its_base(tmp_path, model, monkeypatch):
    base = sum(parameter.numel() * 4 for parameter in model.parameters())
    adapter = add_adapter(model, AdapterConfig(rank=2, train_embeddings=True))
    state = TrainerState(max_steps=3, num_train_epochs=1)
    needed = bytes_to_come(adapter, arguments(tmp_path), state) + base
    free = needed - 1
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    DiskSpaceCheck(adapter).on_train_begin(arguments(tmp_path), state, None)
    with pytest.raises(DiskSpaceError, match=f"alone and merged, need room: about {readable_size(needed)}"):
        MergedSpaceCheck(adapter).on_train_begin(arguments(tmp_path), state, None)
    free = needed
    MergedSpaceCheck(adapter).on_train_begin(arguments(tmp_path), state, None)


def test_a_base_in_4_bits_is_merged_unpacked():
    packed = torch.nn.Parameter(torch.zeros(8, 1, dtype=torch.bfloat16), requires_grad=False)
    packed.quant_state = SimpleNamespace(shape=torch.Size((4, 8)), dtype=torch.bfloat16)  # as bitsandbytes has it
    base = torch.nn.Module()
    base.weight = packed
    assert merged_bytes(base) == 64


@pytest.mark.parametrize(
    ("settings", "steps", "epochs", "expected"),
    [
        ({"save_strategy": "no"}, 100, 1, 0),
        ({"save_steps": 10}, 100, 1, 10),
        ({"save_steps": 10, "save_total_limit": 3}, 100, 1, 4),
        ({"save_steps": 500, "save_total_limit": 3}, 100, 1, 1),
        ({"save_steps": 30}, 100, 1, 4),  # and once more at the end
        ({"save_steps": 0.1}, 1000, 1, 10),
        ({"save_steps": 0.25, "save_total_limit": 2}, 1000, 1, 3),
        ({"save_strategy": "epoch"}, 100, 4, 4),
        ({"save_strategy": "epoch", "save_total_limit": 1}, 100, 4, 2),
        ({"save_strategy": "epoch", "save_total_limit": 1, "load_best_model_at_end": True}, 100, 4, 3),
        ({"save_strategy": "epoch", "save_total_limit": 0}, 100, 4, 4),
        ({"save_strategy": "epoch"}, 1000, sys.maxsize, 1),  # a stream
        ({"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 0.2}, 100, 1, 5),
        ({"save_strategy": "best", "eval_strategy": "epoch"}, 100, 3, 3),
    ],
)
def test_how_many_checkpoints_lie_on_the_disk(settings, steps, epochs, expected):
    defaults = {"save_strategy": "steps", "save_steps": 500, "save_total_limit": None, "load_best_model_at_end": False}
    args = SimpleNamespace(**{**defaults, "num_train_epochs": 3, "eval_steps": None, **settings})
    assert checkpoints_at_once(args, TrainerState(max_steps=steps, num_train_epochs=epochs)) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"save_strategy": "steps", "save_steps": 0.3},
        {"save_strategy": "steps", "save_steps": 2},
        {"save_strategy": "epoch"},
    ],
    ids=["share", "steps", "epochs"],
)
def test_as_many_checkpoints_are_written_as_were_foreseen(tmp_path, model, processor, corpus, settings):
    trainer = make_trainer(tmp_path, model, processor, corpus, max_steps=7, save_only_model=True, **settings)
    trainer.train()
    written = len(list(tmp_path.glob("checkpoint-*")))
    assert checkpoints_at_once(trainer.args, trainer.state) == written > 1


def test_a_sharded_model_is_saved_twice(tmp_path):
    sharded = type("FSDPLinear", (FSDPModule, torch.nn.Linear), {})
    model = torch.nn.Linear(4, 4, bias=False)
    args = arguments(tmp_path)
    whole = checkpoint_bytes(model, args)
    model.__class__ = sharded
    assert checkpoint_bytes(model, args) == whole + 4 * 16


def test_room_is_looked_for_where_the_folder_will_be(tmp_path):
    check_room(tmp_path / "not" / "yet" / "there", 1, "A file needs room", "Make room.")
    message = r"A file needs room: about 1000000000.0 GB in .*there, but only .* free.*Make room"
    with pytest.raises(DiskSpaceError, match=message):
        check_room(tmp_path / "there", 10**18, "A file needs room", "Make room.")
