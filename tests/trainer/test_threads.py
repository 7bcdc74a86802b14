"""Trainings measure between their steps how many threads are fastest, and give them back."""

import copy

import pytest
import torch
from transformers import TrainerCallback

from xvlm2vec.modeling import threads
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer


@pytest.fixture
def one_is_faster(monkeypatch):
    """A machine with two threads, of which one is always faster, and a measurement at every step."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "FIRST", 0.0)
    monkeypatch.setattr(threads, "KNOWN", threads.Known())
    monkeypatch.setattr(threads, "timed_work", lambda count, rows, limit: float(count))
    yield
    torch.set_num_threads(before)


class Counts(TrainerCallback):
    """Keeps the number of threads of every step."""

    def __init__(self):
        self.found = []

    def on_step_end(self, args, state, control, **kwargs):
        self.found.append(torch.get_num_threads())


class Fails(Counts):
    """Stops a training by an error, as a user's callback or Ctrl+C does."""

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        raise KeyboardInterrupt


def test_contrastive_training_chooses(one_is_faster, tmp_path, model, processor):
    from datasets import Dataset

    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    row = {"qry": "a dog", "qry_image": None, "pos_text": "one dog", "pos_image": None}
    counts = Counts()
    args = ContrastiveConfig(output_dir=str(tmp_path / "out"), per_device_train_batch_size=2, use_cpu=True)
    train_contrastive(args, Dataset.from_list([row] * 4), [counts], model=str(tmp_path / "model"))
    assert counts.found == [1, 1]
    assert torch.get_num_threads() == 2

    fails = Fails()
    args = ContrastiveConfig(output_dir=str(tmp_path / "other"), per_device_train_batch_size=2, use_cpu=True)
    with pytest.raises(KeyboardInterrupt):
        train_contrastive(args, Dataset.from_list([row] * 4), [fails], model=str(tmp_path / "model"))
    assert fails.found == [1]
    assert torch.get_num_threads() == 2, "an interrupted training gives the threads back, too"


def test_distillation_chooses(one_is_faster, tmp_path, model, processor, corpus):
    counts = Counts()
    args = SelfDistillationConfig(output_dir=str(tmp_path), max_steps=2, report_to="none", use_cpu=True, bf16=False)
    SelfDistillationTrainer(copy.deepcopy(model), args, corpus, processing_class=processor, callbacks=[counts]).train()
    assert counts.found == [1, 1]
    assert torch.get_num_threads() == 2

    fails = Fails()
    args = SelfDistillationConfig(output_dir=str(tmp_path / "other"), max_steps=2, use_cpu=True, bf16=False)
    trainer = SelfDistillationTrainer(copy.deepcopy(model), args, corpus, processing_class=processor, callbacks=[fails])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert fails.found == [1]
    assert torch.get_num_threads() == 2
