"""`contrast` on two real processes: the losses, gradients and weights of one process with the whole batch."""

import copy
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_distributed import Workers

WORKER = Path(__file__).with_name("contrast_worker.py")
# Without Adam, which blows up rounding errors of gradients that should be zero to steps of full size.
SETTINGS = {"optim": "sgd", "learning_rate": 0.05, "train_sampling_strategy": "sequential"}


@pytest.fixture(scope="module")
def source(tmp_path_factory, built):
    """The tiny model as it is saved."""
    folder = tmp_path_factory.mktemp("source")
    copy.deepcopy(built[0]).save_pretrained(folder)
    built[1].save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory, source):
    """Trains on one or two processes and gives what each of them saw; two have half the batch each."""
    crews = {}

    def train(folder, processes=1, config="ddp", options=None, **settings):
        folder.mkdir(exist_ok=True)
        settings.setdefault("per_device_train_batch_size", 8 // processes)
        kind = (processes, config if processes > 1 else "")
        if kind not in crews:
            crews[kind] = Workers(tmp_path_factory.mktemp("workers"), *kind, WORKER)
        job = {**SETTINGS, **settings, "options": {"model": source, **(options or {})}}
        results = crews[kind].train(folder, job)
        assert [result["world"] for result in results] == [processes] * processes
        return results

    yield train
    for crew in crews.values():
        crew.end()


def same(results, expected, folder, other, name="model.safetensors"):
    """Losses are summed up in float32 by the trainer; all else is in float64."""
    assert len(results[0]["losses"]) == len(expected[0]["losses"]) == 2
    assert results[0]["losses"] == pytest.approx(expected[0]["losses"], rel=1e-6)
    assert results[0]["norms"] == pytest.approx(expected[0]["norms"], rel=1e-9)
    first, second = (load_file(next(path.glob(f"model/**/{name}"))) for path in (folder, other))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert (value - second[key]).abs().max() < 1e-9, key


@pytest.fixture(scope="module")
def alone(tmp_path_factory, run):
    """One process with the whole batch, each row by itself."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, run(folder, sharing="off")


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [None, 2])
@pytest.mark.parametrize("sharing", ["off", "tree"])
def test_two_processes_are_one_batch(tmp_path, alone, run, sharing, pieces):
    """The processes have other numbers of packs, and one of them hardly has images."""
    results = run(tmp_path / "run", processes=2, sharing=sharing, mini_batch_size=pieces)
    assert [result["packed"] for result in results] == [sharing == "tree"] * 2
    same(results, alone[1], tmp_path / "run", alone[0])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [{}, {"dataset_temperature": 2.0}, {"sub_batch_size": 1}], ids=str)
def test_several_data_sets_are_shuffled_anew_and_divided(tmp_path, run, sampler):
    sets = {"a": 16, "b": 8, "c": 8}
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "train_sampling_strategy": "random"}
    results = run(tmp_path / "run", processes=2, options={"sets": sets}, **settings, **sampler)
    epochs = [[result["batches"][:8] for result in results], [result["batches"][8:] for result in results]]
    for parts in epochs:
        assert [len(part) for part in parts] == [8, 8]
        seen = [query for part in parts for batch in part for query in batch]
        if "dataset_temperature" not in sampler:
            assert sorted(seen) == sorted(f"{name} {number}" for name, count in sets.items() for number in range(count))
        if "sub_batch_size" not in sampler:  # all batches of a step are of one data set, as their pairs are gathered
            assert all(len({query[0] for batch in step for query in batch}) == 1 for step in zip(*parts, strict=True))
    assert epochs[0] != epochs[1]


@pytest.mark.slow
def test_an_epoch_of_several_data_sets_goes_on_with_its_own_batches(tmp_path, run):
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "train_sampling_strategy": "random"}
    settings |= {"save_strategy": "steps", "save_steps": 5}
    sets = {"sets": {"a": 16, "b": 8, "c": 8}}
    whole = run(tmp_path / "whole", processes=2, options=sets, **settings)
    assert [result["saved"] for result in whole] == [5, 0], "checkpoints of steps 5, 10, 15 and 16, and the model"
    run(tmp_path / "run", processes=2, options={**sets, "stop": 11}, **settings)
    resumed = run(tmp_path / "run", processes=2, options=sets, **settings)
    assert [result["batches"] for result in resumed] == [result["batches"][10:] for result in whole]
