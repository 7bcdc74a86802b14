"""Two real processes: the loss curve and the weights of one process at the same global batch, sharded or not."""

import copy
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from saved_forms import build_st

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.adapters import load_adapter
from xvlm2vec.trainer.checkpoints import find_fault

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")
# Without Adam, which blows up rounding errors of gradients that should be zero to steps of full size.
SGD = {"optim": "sgd", "learning_rate": 0.05}
SEEING = {"rank": 2, "train_vision": True}
FULL = {**SGD, "freeze_vision": False, "gradient_accumulation_steps": 2}


class Workers:
    """Processes that do one training after the other; they start with the first, and anew behind one that failed.

    Args:
        folder: For their jobs and what they print.
        processes: How many.
        config: A configuration of accelerate, for several.
        worker: The script of a process.
    """

    def __init__(self, folder, processes, config, worker=WORKER):
        self.folder, self.processes, self.config, self.worker = folder, processes, config, worker
        self.child, self.jobs, self.number = None, folder, 0

    def start(self):
        self.jobs, self.number = self.folder / f"jobs-{len(list(self.folder.iterdir()))}", 0
        self.jobs.mkdir()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        launch = [sys.executable]
        if self.processes > 1:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                port = str(free.getsockname()[1])
            launch += ["-m", "accelerate.commands.launch", "--config_file"]
            launch += [f"{ROOT}/configs/accelerate/{self.config}.yaml", "--num_processes", str(self.processes)]
            launch += ["--main_process_port", port]
        with (self.jobs / "stderr").open("w") as shown:
            self.child = subprocess.Popen([*launch, str(self.worker), str(self.jobs)], env=environment, stderr=shown)

    def train(self, folder, settings):
        if self.child is None:
            self.start()
        places = [folder / f"rank-{rank}.json" for rank in range(self.processes)]
        for place in places:  # of a run in this folder that goes on
            place.unlink(missing_ok=True)
        job = self.jobs / "next"
        job.write_text(json.dumps([str(folder), settings]), encoding="utf-8")
        job.rename(self.jobs / f"{self.number}.json")
        self.number += 1
        deadline = time.monotonic() + 600
        while not all(place.exists() for place in places):
            if self.child.poll() is not None or time.monotonic() > deadline:
                self.end()
                pytest.fail((self.jobs / "stderr").read_text(encoding="utf-8")[-4000:])
            time.sleep(0.05)
        return [json.loads(place.read_text(encoding="utf-8")) for place in places]

    def end(self):
        if self.child is None:
            return
        (self.jobs / "end").touch()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
        self.child = None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains on one or two processes and gives what each of them saw; two have half the batch each."""
    crews = {}

    def train(folder, processes=1, config="ddp", **settings):
        folder.mkdir()
        settings.setdefault("per_device_train_batch_size", 4 // processes)
        kind = (processes, config if processes > 1 else "")
        if kind not in crews:
            crews[kind] = Workers(tmp_path_factory.mktemp("workers"), *kind)
        results = crews[kind].train(folder, settings)
        assert [result["world"] for result in results] == [processes] * processes
        return results

    yield train
    for crew in crews.values():
        crew.end()


def same_curve(results, expected, steps=4):
    for name in ("losses", "norms"):
        assert len(expected[0][name]) == steps
        for result in results[:1]:  # the first process writes the log
            assert result[name] == pytest.approx(expected[0][name], rel=1e-5)


def same_weights(folder, other, name="model.safetensors"):
    first, second = (load_file(path / "model" / name) for path in (folder, other))
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=1e-4, atol=1e-6, msg=key)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, run):
    """One process, all weights trained."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, run(folder, **FULL)


@pytest.mark.slow
def test_ddp_is_one_process(tmp_path, alone, run):
    folder, expected = alone
    results = run(tmp_path / "run", processes=2, **FULL)
    assert {result["kind"] for result in results} == {"DistributedType.MULTI_CPU"}
    same_curve(results, expected)
    same_weights(tmp_path / "run", folder)
    assert sorted(results[0]["seen"] + results[1]["seen"]) == sorted(expected[0]["seen"])


@pytest.mark.slow
def test_fsdp2_is_one_process_and_really_sharded(tmp_path, alone, processor, run):
    folder, expected = alone
    results = run(tmp_path / "run", processes=2, config="fsdp2", **FULL)
    assert {result["kind"] for result in results} == {"DistributedType.FSDP"}
    same_curve(results, expected)
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {name for name in results[0]["sharded"]} == set(weights)  # every weight, vision included
    for name, (whole, local) in results[0]["sharded"].items():
        other = results[1]["sharded"][name][1]
        assert local[0] + other[0] == whole[0] == weights[name].shape[0]
        assert local[0] < whole[0] or whole[0] == 1
    same_weights(tmp_path / "run", folder)
    assert not list((tmp_path / "run" / "model").glob("_fsdp*"))  # the model's own code was saved, not torch's
    loaded, one = (XVLM2VecModel.from_pretrained(path / "model") for path in (tmp_path / "run", folder))
    inputs = processor(text=["due cani", "rain over the sea"])
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).embeddings, one(**inputs).embeddings)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, SEEING], ids=["all weights", "adapter"])
def test_momentum_moves_the_tower_in_steps_without_images_alike(tmp_path, adapter, run):
    settings = {"optim": "adamw_torch", "adam_epsilon": 1e-3, "learning_rate": 1e-3, "freeze_vision": False}
    settings |= {"train_sampling_strategy": "sequential", "options": {"images": "start", "adapter": adapter}}
    settings["teacher"] = "adapter-off" if adapter else "copy"
    name = "adapter_model.safetensors" if adapter else "model.safetensors"
    expected = run(tmp_path / "alone", **settings)
    same_curve(run(tmp_path / "run", processes=2, **settings), expected)
    same_weights(tmp_path / "run", tmp_path / "alone", name)


@pytest.mark.slow
def test_muon_moves_sharded_matrices_as_whole_ones(tmp_path, run):
    settings = {"freeze_vision": False, "muon_learning_rate": 1e-2, "learning_rate": 1e-9}  # AdamW's part stands still
    settings["max_steps"] = 2  # steps of full size carry rounding on: on some CPUs to 8.7e-6 in the third loss
    expected = run(tmp_path / "alone", **settings)
    results = run(tmp_path / "run", processes=2, config="fsdp2", **settings)
    assert results[0]["sharded"]
    same_curve(results, expected, steps=2)
    same_weights(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("vision", [False, True], ids=["language", "language and vision"])
def test_fsdp2_trains_an_adapter_beside_a_whole_frozen_tower(tmp_path, model, processor, vision, run):
    adapter = {"rank": 2, "dora": True, "train_vision": vision}
    settings = {**SGD, "options": {"adapter": adapter}, "teacher": "adapter-off", "freeze_vision": not vision}
    expected = run(tmp_path / "alone", **settings)
    results = run(tmp_path / "run", processes=2, config="fsdp2", **settings)
    same_curve(results, expected)
    sharded = results[0]["sharded"]
    assert any("lora_A" in name for name in sharded)
    assert any("q_proj.base_layer" in name for name in sharded)
    of_tower = [name for name in sharded if "vision_model" in name]
    assert bool(of_tower) is vision
    assert all(".lora_" in name for name in of_tower)  # what is frozen stays whole
    same_weights(tmp_path / "run", tmp_path / "alone", "adapter_model.safetensors")
    vectors = []
    for folder in ("run", "alone"):
        merged = load_adapter(copy.deepcopy(model), tmp_path / folder / "model").merge_and_unload()
        with torch.no_grad():
            vectors.append(merged(**processor(text=["due cani"])).embeddings)
    torch.testing.assert_close(*vectors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shards", "bare"), [(2, 0), (3, 0), (2, 3)], ids=["shards divided", "rows divided", "rows without a translation"]
)
def test_a_stream_is_read_once_by_two_processes(tmp_path, shards, bare, run):
    options = {"rows": 13 + bare, "stream": shards, "bare": bare}
    results = run(
        tmp_path / "run", processes=2, options=options, max_steps=4, teacher="copy", per_device_train_batch_size=2
    )
    seen = [name for result in results for name in result["seen"]]
    assert sorted(seen) == sorted(f"row-{index}" for index in range(bare, 13 + bare))
    assert all(result["seen"] for result in results)
    assert len(results[0]["losses"]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("muon", [None, 1e-2], ids=["adamw", "muon"])
def test_fsdp2_goes_on_from_a_checkpoint(tmp_path, muon, run):
    settings = {"processes": 2, "config": "fsdp2", "freeze_vision": False, "save_strategy": "steps", "save_steps": 2}
    settings["muon_learning_rate"] = muon
    whole = run(tmp_path / "whole", **settings)
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    assert find_fault(checkpoint) is None
    resumed = run(tmp_path / "resumed", **settings, options={"resume": str(checkpoint)})
    for name in ("losses", "norms"):
        assert resumed[0][name] == whole[0][name]  # bit for bit, Adam's states and the order of rows included


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("fsdp2", {"freeze_vision": False, "teacher": "copy"}),
        ("fsdp2", {"sharing": "off", "options": {"adapter": {"rank": 2}}, "teacher": "adapter-off"}),
        ("ddp", {}),
        ("fsdp2", {"freeze_vision": False, "options": {"adapter": SEEING}, "teacher": "adapter-off"}),
        ("ddp", {"freeze_vision": False, "options": {"adapter": SEEING}, "teacher": "adapter-off"}),
    ],
)
def test_one_process_has_images_and_the_other_none(tmp_path, config, settings, run):
    options = {"images": "first", "aligned": True, **settings.pop("options", {})}
    settings = {**SGD, "train_sampling_strategy": "sequential", "options": options, **settings}
    settings["per_device_train_batch_size"] = 2
    expected = run(tmp_path / "alone", **settings, gradient_accumulation_steps=2)
    results = run(tmp_path / "run", processes=2, config=config, **settings)
    same_curve(results, expected)  # no images join those of the first process, so one process has the same candidates
    assert [result["waited"] for result in results] == [0, 4]
    assert len(set(results[0]["seen"]) | set(results[1]["seen"])) == 16


@pytest.mark.slow
def test_one_process_has_rows_beyond_a_rope_limit(tmp_path, run):
    options = {"images": "first", "rope_limit": True}
    settings = {**SGD, "train_sampling_strategy": "sequential", "options": options, "teacher": "copy"}
    settings["freeze_vision"] = False
    expected = run(tmp_path / "alone", **settings)
    results = run(tmp_path / "run", processes=2, config="fsdp2", **settings)
    assert results[0]["shared"]
    assert sum(result["waited"] for result in results) > 0
    same_curve(results, expected)


@pytest.mark.slow
def test_two_processes_measure_each_held_out_row_once(tmp_path, run):
    settings = {**SGD, "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 2}
    settings |= {"options": {"held_out": 9}, "max_tokens_per_forward": 60}
    expected, results = run(tmp_path / "alone", **settings), run(tmp_path / "run", processes=2, **settings)
    assert len(expected[0]["evaluations"]) == 2
    for entry, other in zip(results[0]["evaluations"], expected[0]["evaluations"], strict=True):
        assert entry.keys() == other.keys()
        for name in entry:
            if "distance" in name or name in ("eval_loss", "eval_english_drift"):
                assert entry[name] == pytest.approx(other[name], rel=1e-5, abs=1e-6)  # one minus a float32 cosine


@pytest.mark.slow
@pytest.mark.parametrize("names", [{"embedder": "clip"}, {"embedder": "decoder", "other": "clip"}], ids=str)
def test_adopted_embedders_learn_sharded_what_they_learn_alone(tmp_path, names, run):
    """Two towers, and a projection to the width of another teacher, which is not saved."""
    options = {role: str(build_st(name, tmp_path / name)) for role, name in names.items()}
    expected = run(tmp_path / "one", **SGD, options=options)
    results = run(tmp_path / "two", processes=2, config="fsdp2", **SGD, options=options)
    same_curve(results, expected)
    same_weights(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp", "fsdp2"])
def test_an_activated_adapter_learns_alike_on_two_processes(tmp_path, config, run):
    adapter = {"rank": 2, "dora": True, "train_embeddings": True, "activated": True}
    settings = {**SGD, "options": {"adapter": adapter}, "gradient_accumulation_steps": 2}
    expected = run(tmp_path / "alone", **settings)
    results = run(tmp_path / "run", processes=2, config=config, **settings)
    same_curve(results, expected)
    same_weights(tmp_path / "run", tmp_path / "alone", "adapter_model.safetensors")
    configs = [json.loads((tmp_path / n / "model" / "adapter_config.json").read_text()) for n in ("run", "alone")]
    assert configs[0] == configs[1]
    assert configs[0]["xvlm2vec"]["languages"] == ["ar", "de", "it"]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, 2])
def test_an_adapter_for_each_language_learns_alike_on_two_processes(tmp_path, stream, run):
    options = {"adapter": {"rank": 2, "activated": True}, "languages": ["ar", "de", "it"], "stream": stream}
    settings = {**SGD, "options": options, "ddp_find_unused_parameters": True}
    expected = run(tmp_path / "alone", **settings)
    results = run(tmp_path / "run", processes=2, **settings)
    if not stream:  # a stream gives each process other rows than one process has
        same_curve(results, expected)
    for language in options["languages"]:
        place = tmp_path / "run" / "model" / language
        assert json.loads((place / "adapter_config.json").read_text())["xvlm2vec"]["languages"] == [language]
        weights = load_file(place / "adapter_model.safetensors")
        assert any(weight.any() for name, weight in weights.items() if "lora_B" in name), "it has learned"
        if not stream:
            same_weights(tmp_path / "run", tmp_path / "alone", f"{language}/adapter_model.safetensors")


@pytest.mark.slow
def test_an_activated_adapter_where_one_process_has_longer_rows(tmp_path, run):
    adapter = {"rank": 2, "activated": True}
    settings = {**SGD, "options": {"adapter": adapter, "rope_limit": True}}
    expected = run(tmp_path / "alone", **settings)
    same_curve(run(tmp_path / "run", processes=2, **settings), expected)
