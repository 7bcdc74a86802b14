"""What contrastive training takes from the inside of sentence-transformers' trainer: see docs/upstream.md."""

from __future__ import annotations

import inspect

import pytest
import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from transformers import Trainer

PARAMETERS = {
    "_save": ["self", "output_dir", "state_dict"],
    "_load_from_checkpoint": ["self", "checkpoint_path"],
    "collect_features": ["self", "inputs"],
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_methods_are_called_as_they_are_overridden(name: str) -> None:
    there = list(inspect.signature(getattr(SentenceTransformerTrainer, name, lambda: None)).parameters)
    assert there == PARAMETERS[name], (
        f"sentence-transformers changed the trainer's {name}: trainer/contrastive_trainer.py must follow"
    )


def test_checkpoints_are_written_and_read_through_them() -> None:
    assert "self._save(output_dir" in inspect.getsource(Trainer.save_model), "transformers saves without Trainer._save"
    assert "self._load_from_checkpoint(" in inspect.getsource(Trainer.train), (
        "transformers resumes without Trainer._load_from_checkpoint"
    )


def test_the_gradient_cache_calls_our_loss() -> None:
    takes = list(inspect.signature(CachedLossMixin.calculate_loss).parameters)
    assert takes == ["self", "reps", "labels", "with_backward"], (
        "GradCache calls losses otherwise: trainer/pair_loss.py"
    )
    assert list(inspect.signature(CachedLossMixin.forward_cached).parameters) == ["self", "sentence_features", "labels"]
    assert CachedLossMixin.uses_gradient_cache is True, "decorators no longer ask for uses_gradient_cache"


def test_a_column_of_one_row_keeps_what_is_no_tensor() -> None:
    seen: list[dict[str, object]] = []

    class Loss(CachedLossMixin):
        mini_batch_size = 4

        def model(self, features: dict[str, object]) -> dict[str, torch.Tensor]:
            seen.append(features)
            return {"sentence_embedding": torch.ones(3, 2)}

    column = {"input_ids": torch.zeros(1, 5), "pack": "a pack"}
    ((vectors, _),) = Loss().embed_minibatch_iter(column, with_grad=False, copy_random_state=False)  # type: ignore[arg-type]
    assert len(vectors) == 3
    assert [features["pack"] for features in seen] == ["a pack"]
