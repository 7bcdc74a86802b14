"""A whole run: what is saved, and that an interrupted run ends with the bits of an uninterrupted one."""

import copy
import json
import logging
import shutil

import pytest
import torch
from transformers import TrainerCallback

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter, load_adapter
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig


class Killed(Exception):
    """Stands for the end of the process."""


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def arguments(folder, **settings):
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1}
    steps = {"per_device_train_batch_size": 3, "max_steps": 7, "save_steps": 2, "learning_rate": 2e-3}
    return SelfDistillationConfig(output_dir=str(folder), **{**quiet, **steps, "translations_per_row": 2, **settings})


def losses(trainer):
    return [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def students(model, kind):
    """A fresh student, as every start of the command makes it."""
    student = copy.deepcopy(model)
    if kind == "full":
        return student, {}
    torch.manual_seed(3)
    adapter = AdapterConfig(rank=2, dora=kind != "lora", train_vision=kind == "dora and vision")
    return add_adapter(student, adapter), {"teacher": "adapter-off", "freeze_vision": not adapter.train_vision}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("full", {}),
        ("full", {"muon_learning_rate": 1e-3, "freeze_vision": False}),
        ("lora", {}),
        ("dora", {"gradient_accumulation_steps": 2}),
        ("dora and vision", {}),
    ],
    ids=["full", "muon and vision", "lora", "dora and accumulation", "dora and vision"],
)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, model, processor, corpus, kind, settings):
    def start(folder, *callbacks):
        student, extra = students(model, kind)
        return distill(student, processor, arguments(folder, **settings, **extra), corpus, callbacks=callbacks)

    whole = start(tmp_path / "whole")
    with pytest.raises(Killed):
        start(tmp_path / "broken", KillAt(5))
    torn = tmp_path / "broken" / "checkpoints" / "checkpoint-6"
    shutil.copytree(torn.with_name("checkpoint-4"), torn)  # cut off while it was written
    (torn / "trainer_state.json").unlink()
    resumed = start(tmp_path / "broken")
    assert losses(resumed) == losses(whole)
    assert len(losses(whole)) == 7
    before = dict(whole.model.named_parameters())
    for name, parameter in resumed.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    summaries = [json.loads((tmp_path / name / "distillation.json").read_text()) for name in ("whole", "broken")]
    assert summaries[0]["languages"] == summaries[1]["languages"]
    assert sorted(summaries[0]["languages"]) == ["ar", "de", "it"]


def test_the_result_is_a_model_with_its_processor_and_a_summary(tmp_path, model, processor, corpus):
    trainer = distill(model, processor, arguments(tmp_path, max_steps=2), corpus)
    loaded = XVLM2VecModel.from_pretrained(tmp_path)
    inputs = XVLM2VecProcessor.from_pretrained(tmp_path)(text=["due cani", "rain"], images=[None, corpus[0]["image"]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).embeddings, trainer.model.eval()(**inputs).embeddings)
    summary = json.loads((tmp_path / "distillation.json").read_text(encoding="utf-8"))
    assert summary["loss"]["name"] == "SelfDistillationLoss"
    assert summary["loss"]["settings"]["language_weight"] == 0.5
    assert "2503.09313" in summary["loss"]["citation"]
    assert summary["settings"]["teacher"] == "cached"
    assert summary["settings"]["max_steps"] == 2


@pytest.mark.slow  # compiles forty graphs
def test_a_compiled_model_learns_and_is_saved_like_any_other(tmp_path, model, processor, corpus):
    def start(name, **settings):
        # AdamW's first step follows the sign of a gradient, also where it is rounding noise: 1e-9 moves a loss by 4e-4.
        steps = {"max_steps": 3, "optim": "sgd", "learning_rate": 0.1}
        args = arguments(tmp_path / name, sharing="off", **{**steps, **settings})
        return distill(copy.deepcopy(model), processor, args, corpus)

    plain = start("plain")
    torch._dynamo.utils.counters.clear()
    # the graphs are captured and differentiated, but not turned into C++, so that no compiler is needed
    compiled = start("compiled", torch_compile=True, torch_compile_backend="aot_eager")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1
    assert dict(losses(compiled)) == pytest.approx(dict(losses(plain)), rel=1e-5)
    assert losses(plain)[-1][1] < 0.9 * losses(plain)[0][1]
    loaded = XVLM2VecModel.from_pretrained(tmp_path / "compiled").state_dict()
    for name, weight in plain.model.state_dict().items():
        torch.testing.assert_close(loaded[name], weight, rtol=1e-5, atol=1e-6)


def test_a_compiled_model_does_not_share_images(tmp_path):
    with pytest.raises(ValueError, match="torch_compile needs sharing='off'"):
        arguments(tmp_path, torch_compile=True)


def test_the_result_of_an_adapter_is_an_adapter(tmp_path, model, processor, corpus):
    base = copy.deepcopy(model)
    adapted, settings = students(model, "lora")
    trainer = distill(adapted, processor, arguments(tmp_path, max_steps=2, **settings), corpus)
    loaded = load_adapter(base, tmp_path)
    inputs = processor(text=["due cani", "rain"], images=[None, corpus[0]["image"]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).embeddings, trainer.model.eval()(**inputs).embeddings)


@pytest.mark.parametrize(
    ("first", "then", "steps"),
    [
        ({"max_steps": 2}, {"max_steps": 6}, 6),
        ({"max_steps": -1, "num_train_epochs": 0.5}, {"max_steps": -1, "num_train_epochs": 1}, 6),
        ({"max_steps": 4, "save_steps": 0.5}, {"max_steps": 6, "save_steps": 0.5}, 6),
    ],
    ids=["steps", "epochs", "shares"],
)
def test_a_finished_folder_goes_on_with_more_steps(tmp_path, model, processor, corpus, caplog, first, then, steps):
    begun = distill(copy.deepcopy(model), processor, arguments(tmp_path, **first), corpus)
    with caplog.at_level(logging.WARNING):
        trainer = distill(copy.deepcopy(model), processor, arguments(tmp_path, **then), corpus)
    assert [step for step, _ in losses(trainer)] == list(range(1, steps + 1))
    assert losses(trainer)[: begun.state.max_steps] == losses(begun)
    assert f"was begun with {begun.state.max_steps} steps and now has {steps}" in caplog.text
    moved = dict(begun.model.named_parameters())
    assert any(not torch.equal(weight, moved[name]) for name, weight in trainer.model.named_parameters())
    loaded = XVLM2VecModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in trainer.model.state_dict().items())
    checkpoints = {path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")}
    expected = {"checkpoint-2", "checkpoint-4", "checkpoint-3", "checkpoint-6"} if then.get("save_steps") else None
    assert expected is None or checkpoints <= expected


def test_a_folder_with_more_steps_than_asked_for_is_refused(tmp_path, model, processor, corpus):
    distill(copy.deepcopy(model), processor, arguments(tmp_path, max_steps=3), corpus)
    with pytest.raises(ValueError, match=r"has taken 3 steps, and these settings ask for 2\. Ask for at least as many"):
        distill(model, processor, arguments(tmp_path, max_steps=2), corpus)


def test_a_finished_folder_is_not_trained_again(tmp_path, model, processor, corpus):
    first = distill(copy.deepcopy(model), processor, arguments(tmp_path, max_steps=3), corpus)
    again = distill(copy.deepcopy(model), processor, arguments(tmp_path, max_steps=3), corpus)
    assert again.state.global_step == 0
    weights = first.model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in again.model.state_dict().items())
