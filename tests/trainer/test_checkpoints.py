"""Which checkpoint a run resumes from: only one that was written to its end."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xvlm2vec.trainer.checkpoints import find_fault, newest_complete_checkpoint


def write(folder, step, state=None):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"weight": torch.ones(300)}, checkpoint / "model.safetensors")
    torch.save({"state": torch.ones(300)}, checkpoint / "optimizer.pt")
    torch.save({"last_epoch": step}, checkpoint / "scheduler.pt")
    torch.save({"cpu": torch.get_rng_state()}, checkpoint / "rng_state.pth")
    text = json.dumps({"global_step": step}) if state is None else state
    (checkpoint / "trainer_state.json").write_text(text, encoding="utf-8")
    return str(checkpoint)


def test_the_newest_is_the_highest_step_not_the_last_name(tmp_path):
    write(tmp_path, 9)
    newest = write(tmp_path, 100)
    write(tmp_path, 20)
    assert newest_complete_checkpoint(tmp_path) == newest


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_nothing_to_resume_from(tmp_path, make):
    folder = tmp_path / "checkpoints"
    make(folder)
    assert newest_complete_checkpoint(folder) is None


@pytest.mark.parametrize(
    "state",
    ["", '{"global_step": 3', "[]", "null", '{"epoch": 1}', '{"global_step": 20}'],
    ids=["empty", "cut off", "a list", "null", "no step", "another step"],
)
def test_torn_checkpoints_are_passed_over_with_a_warning(tmp_path, caplog, state):
    complete = write(tmp_path, 10)
    write(tmp_path, 30, state)
    (tmp_path / "checkpoint-40").mkdir()
    with caplog.at_level(logging.WARNING):
        assert newest_complete_checkpoint(tmp_path) == complete
    assert [record.args[0] for record in caplog.records] == ["checkpoint-40", "checkpoint-30"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth"])
@pytest.mark.parametrize("size", [0, 5, -1, -100])
def test_a_file_cut_off_anywhere_tears_the_checkpoint(tmp_path, caplog, name, size):
    complete = write(tmp_path, 10)
    torn = tmp_path / write(tmp_path, 20) / name
    torn.write_bytes(torn.read_bytes()[:size])
    with caplog.at_level(logging.WARNING):
        assert newest_complete_checkpoint(tmp_path) == complete
    assert f"checkpoint-20, which was not written to its end: {name} is cut off" in caplog.text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("model.safetensors", "the file of the weights is missing"),
        ("optimizer.pt", "optimizer (its file) is missing"),
        ("scheduler.pt", "scheduler (its file) is missing"),
        ("rng_state.pth", "rng_state (its file) is missing"),
    ],
)
def test_a_file_that_is_missing_tears_the_checkpoint(tmp_path, name, told):
    complete = write(tmp_path, 10)
    torn = Path(write(tmp_path, 20))
    (torn / name).unlink()
    assert find_fault(torn) == told
    assert newest_complete_checkpoint(tmp_path) == complete


def test_a_checkpoint_of_weights_only_is_whole(tmp_path):
    only = Path(write(tmp_path, 10))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (only / name).unlink()
    assert find_fault(only) is None


def write_of_processes(folder, step, ranks, processes):
    checkpoint = Path(write(folder, step))
    (checkpoint / "rng_state.pth").unlink()
    for rank in ranks:
        torch.save({"cpu": torch.get_rng_state()}, checkpoint / f"rng_state_{rank}.pth")
    if processes is not None:
        (checkpoint / "processes.json").write_text(json.dumps({"processes": processes}), encoding="utf-8")
    return str(checkpoint)


@pytest.mark.parametrize(
    ("ranks", "processes", "missing"),
    [
        ([0], 2, 1),
        ([1], 2, 0),
        ([0, 1], 4, 2),
        ([0, 2], None, 1),
        ([0], None, 1),
        ([0, 1], 2, None),
        ([0, 1], None, None),
    ],
)
def test_a_process_without_its_random_state_tears_the_checkpoint(tmp_path, ranks, processes, missing):
    complete = write(tmp_path, 10)
    newest = write_of_processes(tmp_path, 20, ranks, processes)
    assert newest_complete_checkpoint(tmp_path) == (newest if missing is None else complete)
    expected = None if missing is None else f"rng_state_{missing}.pth of process {missing} is missing"
    assert find_fault(Path(newest)) == expected


def test_folders_that_are_no_checkpoints_are_ignored(tmp_path):
    write(tmp_path, "best", json.dumps({"global_step": -1}))
    write(tmp_path, "²")
    (tmp_path / "checkpoint-tmp").write_text("a file", encoding="utf-8")
    assert newest_complete_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-7").write_text("a file", encoding="utf-8")
    assert newest_complete_checkpoint(tmp_path) is None
