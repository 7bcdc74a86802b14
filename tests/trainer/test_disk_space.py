"""A training foresees a disk that will be full, before its first step."""

from types import SimpleNamespace

import pytest
import torch
from steps import arguments, at_step_end, make_trainer

from xvlm2vec.trainer import disk_space
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.disk_space import (
    DiskSpaceCheck,
    DiskSpaceError,
    MergedSpaceCheck,
    bytes_to_come,
    check_room,
    checkpoints_at_once,
    merged_bytes,
    size,
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

    message = f"3 checkpoints of {size(weights + 2 * trained)} each.*about {size(needed)}"
    with pytest.raises(DiskSpaceError, match=message):
        start(needed - 1)
    assert not steps
    start(needed)
    assert len(steps) == 9
    start(weights)  # what lies there already will be replaced


def test_a_merged_adapter_needs_room_for_its_base(tmp_path, model, monkeypatch):
    base = sum(parameter.numel() * 4 for parameter in model.parameters())
    adapter = add_adapter(model, AdapterConfig(rank=2, train_embeddings=True))
    needed = bytes_to_come(adapter, arguments(tmp_path), max_steps=3) + base
    state, free = SimpleNamespace(is_world_process_zero=True, max_steps=3), needed - 1
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    DiskSpaceCheck(adapter).on_train_begin(arguments(tmp_path), state, None)
    with pytest.raises(DiskSpaceError, match=f"alone and merged, need room: about {size(needed)}"):
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
    ("settings", "steps", "expected"),
    [
        ({"save_strategy": "no"}, 100, 0),
        ({"save_strategy": "steps", "save_steps": 10, "save_total_limit": None}, 100, 10),
        ({"save_strategy": "steps", "save_steps": 10, "save_total_limit": 3}, 100, 4),
        ({"save_strategy": "steps", "save_steps": 500, "save_total_limit": 3}, 100, 1),
        ({"save_strategy": "epoch", "num_train_epochs": 4, "save_total_limit": None}, 100, 4),
        ({"save_strategy": "epoch", "num_train_epochs": 4, "save_total_limit": 1}, 100, 2),
        (
            {"save_strategy": "epoch", "num_train_epochs": 4, "save_total_limit": 1, "load_best_model_at_end": True},
            100,
            3,
        ),
        ({"save_strategy": "epoch", "num_train_epochs": 4, "save_total_limit": 0}, 100, 4),
    ],
)
def test_how_many_checkpoints_lie_on_the_disk(settings, steps, expected):
    defaults = {"save_steps": 500, "num_train_epochs": 1, "save_total_limit": None, "load_best_model_at_end": False}
    args = SimpleNamespace(**{**defaults, **settings})
    assert checkpoints_at_once(args, steps) == expected


def test_room_is_looked_for_where_the_folder_will_be(tmp_path):
    check_room(tmp_path / "not" / "yet" / "there", 1, "A file needs room", "Make room.")
    message = r"A file needs room: about 1000000000.0 GB in .*there, but only .* free.*Make room"
    with pytest.raises(DiskSpaceError, match=message):
        check_room(tmp_path / "there", 10**18, "A file needs room", "Make room.")


def test_sizes_for_people():
    assert [size(count) for count in (7, 1_500, 2_340_000, 5 * 10**9)] == ["7 bytes", "1.5 kB", "2.3 MB", "5.0 GB"]
