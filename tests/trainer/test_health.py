"""A training stops before it does harm, and says why: losses that are no numbers, disks that will be full."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from steps import arguments, make_trainer
from transformers import TrainerCallback

from xvlm2vec.trainer import health
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.health import (
    DiskSpaceCheck,
    DiskSpaceError,
    MergedSpaceCheck,
    NonFiniteLossError,
    bytes_to_come,
    check_room,
    checkpoints_at_once,
    merged_bytes,
    size,
)
from xvlm2vec.trainer.losses import SelfDistillationLoss


class Failing(SelfDistillationLoss):
    """Gives a NaN, or a gradient that is none, in its third call."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.calls = kind, 0

    def forward(self, **inputs):
        self.calls += 1
        value = super().forward(**inputs)
        if self.calls < 3:
            return value
        if self.kind == "loss":
            return value * torch.nan
        zero = (inputs["student_lang"] - inputs["student_lang"].detach()).sum()
        return value + zero.abs().sqrt()  # the value is 0, its derivative is not a number


def at_step_end(function):
    """A callback that calls a function at the end of each step."""
    return type("Callback", (TrainerCallback,), {"on_step_end": staticmethod(function)})()


@pytest.mark.parametrize(("kind", "what"), [("loss", "The loss"), ("gradient", "The gradient")])
@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_what_is_no_number_stops_the_training_with_its_batch_saved(
    tmp_path, model, processor, corpus, kind, what, sharing
):
    trainer = make_trainer(
        tmp_path, model, processor, corpus, Failing(kind), sharing=sharing, per_device_train_batch_size=2, max_steps=5
    )
    before = None

    def remember(*_, **__):
        nonlocal before
        before = [parameter.detach().clone() for parameter in model.parameters()]

    trainer.add_callback(at_step_end(remember))
    with pytest.raises(NonFiniteLossError, match=f"{what} is no finite number in step 3 .rows row-") as raised:
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    folder = tmp_path / "bad-batch-3"
    assert str(folder / "rows.json") in str(raised.value)
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    by_id = {row["id"]: row for row in corpus}
    assert len(rows) == 2
    for row in rows:
        stored = by_id[row["id"]]
        assert row["text_en"] == stored["text_en"]
        assert row["translations"] == stored["translations"]
        assert row["image"] is (stored["image"] is not None)
        assert row["id"] in str(raised.value)
    assert load_file(folder / "inputs.safetensors")


def test_a_full_disk_is_foreseen_before_the_first_step(tmp_path, model, processor, corpus, monkeypatch):
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    trained = sum(p.numel() * 4 for n, p in model.named_parameters() if "vision" not in n and "connector" not in n)
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "max_steps": 9}
    needed = 3 * (weights + 2 * trained) + weights
    steps = []

    def start(free):
        monkeypatch.setattr(health.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
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
    monkeypatch.setattr(health.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
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
