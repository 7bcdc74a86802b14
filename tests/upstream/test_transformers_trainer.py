"""What the trainer takes from the inside of `transformers.Trainer`: see docs/upstream.md."""

from __future__ import annotations

import inspect
import re

import pytest
from transformers import Trainer
from transformers.utils import PushInProgress

PARAMETERS = {
    "_get_grad_norm": ["self", "model", "grad_norm"],
    "_save_rng_state": ["self", "output_dir"],
    "_push_from_checkpoint": ["self", "checkpoint_folder"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "save_model": ["self", "output_dir", "_internal_call"],
}
# In this method the first name stands before the second one.
ORDER = [
    ("_run_epoch", "_get_grad_norm(", "optimizer.step("),
    ("_save_checkpoint", "_save_rng_state(", "save_to_json("),
    ("_save_checkpoint", "save_to_json(", "_push_from_checkpoint("),
    ("_save_checkpoint", "save_to_json(", "rotate_checkpoints("),
    ("_finalize_training", "_load_best_model(", "_finish_current_push("),
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_methods_are_called_as_they_are_overridden(name):
    there = list(inspect.signature(getattr(Trainer, name, lambda: None)).parameters)
    assert there == PARAMETERS[name], f"transformers changed Trainer.{name}: trainer/base_trainer.py must follow"


@pytest.mark.parametrize(("method", "first", "second"), ORDER)
def test_methods_are_called_in_this_order(method, first, second):
    source = inspect.getsource(getattr(Trainer, method, object))
    places = [re.search(re.escape(name), source) for name in (first, second)]
    assert all(places), f"transformers' Trainer.{method} no longer calls {first} and {second}"
    assert places[0].start() < places[1].start(), f"transformers' Trainer.{method} calls {second} before {first}"


def test_a_push_in_progress_is_waited_for():
    source = inspect.getsource(Trainer._finish_current_push)
    assert "self.push_in_progress.wait_until_done()" in source, "transformers no longer waits for `push_in_progress`"
    names = set(dir(PushInProgress([])))
    assert {"jobs", "is_done", "wait_until_done"} <= names, "transformers changed PushInProgress, see base_trainer.py"
