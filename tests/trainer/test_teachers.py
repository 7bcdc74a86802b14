"""Where targets come from: all teachers say the same, and the store survives kills, resumptions and other runs."""

import copy
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from steps import make_trainer, shaken

from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.losses import CrossModalAlignmentLoss, ImageDistillationLoss
from xvlm2vec.trainer.teachers import TeacherError, bare_weights, default_store, teacher_name


def losses_of(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "loss",
    [None, ImageDistillationLoss(), CrossModalAlignmentLoss(0.2)],
    ids=["paper", "image", "cross-modal"],
)
@pytest.mark.parametrize(("sharing", "vision"), [("auto", False), ("off", False), ("auto", True), ("off", True)])
def test_all_teachers_give_the_same_losses(tmp_path, model, processor, corpus, loss, sharing, vision):
    losses = {}
    for kind in ("copy", "adapter-off", "cached"):
        torch.manual_seed(3)
        student = add_adapter(copy.deepcopy(model), AdapterConfig(rank=2, train_vision=vision))
        settings = {"teacher": kind, "sharing": sharing, "teacher_store": str(tmp_path / "store")}
        settings["freeze_vision"] = not vision
        losses[kind] = losses_of(make_trainer(tmp_path / kind, student, processor, corpus, loss, **settings))
    assert losses["copy"][0] > 1e-4
    assert losses["copy"] == pytest.approx(losses["adapter-off"], rel=1e-5)
    assert losses["copy"] == pytest.approx(losses["cached"], rel=1e-5)


@pytest.mark.parametrize(
    "more", [{}, {"train_embeddings": True}, {"train_vision": True}], ids=["lora", "embeddings, too", "vision, too"]
)
def test_all_teachers_are_the_base_of_an_adapter_that_was_trained_before(
    tmp_path, model, processor, corpus, rows, more
):
    student = shaken(add_adapter(copy.deepcopy(model), AdapterConfig(rank=2, **more)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # only the adapter has moved
            moved = dict(student.base_model.model.named_parameters())
            inner = [n for n in moved if n.replace(".base_layer.", ".").replace(".original_module.", ".") == name]
            moved[inner[0]].copy_(parameter)
    losses = {}
    for kind in ("copy", "adapter-off", "cached"):
        settings = {"teacher": kind, "teacher_store": str(tmp_path / "store")}
        settings["freeze_vision"] = "train_vision" not in more
        trainer = make_trainer(tmp_path, copy.deepcopy(student), processor, corpus, **settings)
        batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
        losses[kind] = trainer.compute_loss(trainer.model.eval(), batch).item()
    assert losses["copy"] > 1e-4
    assert losses["copy"] == pytest.approx(losses["adapter-off"], rel=1e-5)
    assert losses["copy"] == pytest.approx(losses["cached"], rel=1e-5)


@pytest.mark.parametrize("kind", ["cached", "adapter-off"])
def test_a_frozen_part_in_evaluation_mode_stays_so(tmp_path, model, processor, corpus, kind):
    student = add_adapter(model, AdapterConfig(rank=2)).train()
    model.backbone.vision_model.eval()
    settings = {"teacher": kind, "teacher_store": str(tmp_path / "store")}
    trainer = make_trainer(tmp_path, student, processor, corpus, **settings)
    trainer.compute_loss(student, trainer.data_collator([trainer.train_dataset[0]]))
    assert student.training
    assert not any(module.training for module in model.backbone.vision_model.modules())


def test_the_store_holds_each_english_row_once_for_all_runs(tmp_path, model, processor, corpus):
    def start(student, rows):
        return make_trainer(tmp_path, student, processor, rows, teacher="cached", teacher_store=str(tmp_path / "store"))

    first = start(copy.deepcopy(model), corpus)
    assert len(first.teacher.store) == 4  # sixteen rows, four different ones
    shards = list(first.teacher.store.folder.glob("*.npy"))
    adapted = start(add_adapter(copy.deepcopy(model), AdapterConfig(rank=2, train_embeddings=True)), corpus)
    assert list(adapted.teacher.store.folder.glob("*.npy")) == shards
    other = start(shaken(copy.deepcopy(model)), corpus)
    assert other.teacher.store.folder != first.teacher.store.folder


def test_nothing_is_embedded_twice(tmp_path, model, processor, corpus):
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    settings = {"teacher": "cached", "teacher_store": str(tmp_path / "store")}
    make_trainer(tmp_path, model, processor, corpus, **settings)
    filling = len(passes)
    make_trainer(tmp_path, model, processor, corpus, **settings)
    again = len(passes) - filling
    make_trainer(tmp_path, model, processor, corpus, teacher="copy")
    checking = len(passes) - filling - again  # the check of sharing, which every start makes
    assert filling == checking + 1
    assert again == checking


def test_encoded_images_are_named_by_their_bytes(tmp_path, model, processor, corpus):
    translations = List({"lang": Value("string"), "text": Value("string")})
    text = Value("string")
    features = Features({"id": text, "image": Image(), "text_en": text, "translations": translations, "source": text})
    stored = Dataset.from_list(list(corpus), features=features)
    sgd = {"optim": "sgd", "learning_rate": 0.1}  # Adam's first step makes much of little
    trainer = make_trainer(
        tmp_path, model, processor, stored, teacher="cached", teacher_store=str(tmp_path / "store"), max_steps=2, **sgd
    )
    assert isinstance(trainer.train_dataset[0]["image"], dict)
    plain = make_trainer(tmp_path, copy.deepcopy(model), processor, corpus, teacher="copy", max_steps=2, **sgd)
    mine, other = losses_of(trainer), losses_of(plain)
    assert mine == pytest.approx(other, rel=1e-5)


def test_a_row_that_was_not_there_is_named(tmp_path, model, processor, corpus):
    trainer = make_trainer(tmp_path, model, processor, corpus, teacher="cached", teacher_store=str(tmp_path / "store"))
    rows = [trainer.train_dataset[index] for index in range(4)]
    assert trainer.compute_loss(model, trainer.data_collator(rows)).item() < 1e3
    rows[3]["text_en"] = "a text that is new"
    with pytest.raises(TeacherError, match=r"no vector for row 'row-3-0'.* need teacher=.copy. or .adapter-off."):
        trainer.compute_loss(model, trainer.data_collator(rows))


def test_a_streamed_corpus_needs_another_teacher(tmp_path, model, processor, corpus):
    with pytest.raises(TeacherError, match='streamed; use teacher="adapter-off" with an adapter, else teacher="copy"'):
        make_trainer(tmp_path, model, processor, corpus.to_iterable_dataset(), teacher="cached")
    trainer = make_trainer(tmp_path, model, processor, corpus.to_iterable_dataset(), teacher="copy", max_steps=2)
    assert len(losses_of(trainer)) == 2


def test_a_name_tells_weights_settings_processor_and_format(model, processor):
    name = teacher_name(model, processor, "full")
    assert teacher_name(copy.deepcopy(model), processor, "full") == name
    assert teacher_name(model, processor, "bf16") != name
    other = copy.deepcopy(model)
    other.config.pooling = "mean"
    assert teacher_name(other, processor, "full") != name
    limited = copy.copy(processor)
    limited.max_length = 12
    assert teacher_name(model, limited, "full") != name
    assert teacher_name(shaken(copy.deepcopy(model)), processor, "full") != name


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_name_does_not_tell_the_adapter(model, processor, dora):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    adapted = add_adapter(model, AdapterConfig(rank=2, dora=dora, train_embeddings=True))
    bare = bare_weights(adapted.base_model.model.state_dict())
    assert set(bare) == set(before)
    assert all(torch.equal(bare[key], before[key]) for key in before)


def test_the_store_lies_in_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XVLM2VEC_CACHE", str(tmp_path))
    assert default_store() == tmp_path / "teacher"
    monkeypatch.delenv("XVLM2VEC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_store() == tmp_path / "cache" / "xvlm2vec" / "teacher"


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import TEXTS, TINY, parallel_row
from datasets import Dataset
from xvlm2vec.trainer import teachers
from xvlm2vec.corpus.emoji.tiny_model import build_tiny_model
from steps import make_trainer

teachers.CHUNK = 4
model, processor = build_tiny_model(TINY, [text for texts in TEXTS.values() for text in texts])
rows = Dataset.from_list([dict(parallel_row(i), text_en=f"text {{i}}") for i in range(4000)])
print("ready", flush=True)
folder = Path({folder!r})
settings = {{"teacher": "cached", "teacher_store": str(folder / "store")}}
trainer = make_trainer(folder / "out", model, processor, rows, **settings)
print(len(trainer.teacher.store), flush=True)
"""


@pytest.mark.slow
def test_what_was_embedded_before_a_kill_is_kept(tmp_path, model, processor, rows):
    script = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    store = tmp_path / "store"
    while len(list(store.glob("*/*.npy"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name for path in store.glob("*/*.npy")}
    same = Dataset.from_list([{**rows[3], "text_en": f"text {i}"} for i in range(4 * len(before))])
    trainer = make_trainer(tmp_path / "out", model, processor, same, teacher="cached", teacher_store=str(store))
    assert before <= {path.name for path in trainer.teacher.store.folder.glob("*.npy")}
    assert len(trainer.teacher.store) >= 4 * len(before)
    assert losses_of(trainer)
