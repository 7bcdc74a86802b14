"""Embedders that run by their own code are taught like others: each text whole, through their own forward pass."""

import copy
from functools import cache

import pytest
import torch
from sentence_transformers import SentenceTransformer
from steps import arguments, close, gradients, make_trainer, named, reference_loss, shaken

from xvlm2vec.common.adoption.adopt import adopt
from xvlm2vec.trainer.collators import ParallelCollator
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.losses import CrossModalAlignmentLoss, ImageDistillationLoss
from xvlm2vec.trainer.other_teacher import Teacher


@pytest.fixture(scope="module")
def box_folder(tmp_path_factory):
    from saved_forms import build_st

    return cache(lambda name: build_st(name, tmp_path_factory.mktemp("saved") / name))


@pytest.fixture(scope="module")
def boxes(box_folder):
    return cache(lambda name: adopt(str(box_folder(name)), trust_remote_code=True))


@pytest.fixture
def box(boxes):
    """Model and processor; each call gives a new copy."""

    def get(name):
        model = copy.deepcopy(boxes(name).model)
        return model, model.processor

    return get


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("tokens", [16_384, 300], ids=["one pass", "several passes"])
def test_loss_and_gradients_are_those_of_a_plain_loop(tmp_path, box, rows, tokens):
    model, processor = box("scenes")
    teacher = copy.deepcopy(model)
    trainer = make_trainer(tmp_path, model, processor, max_tokens_per_forward=tokens)
    reference = copy.deepcopy(shaken(model))
    expected = reference_loss(reference, teacher, processor, rows)
    batches = ParallelCollator(processor, sharing=False, max_tokens=tokens)(rows)
    assert (len(batches["batches"]) == 1) is (tokens > 1000)
    loss = trainer.compute_loss(model, batches)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert loss.item() > 1e-4
    mine, theirs = gradients(model, loss), gradients(reference, expected)
    assert any(name.endswith("eye.weight") for name in mine)  # images stand beside their texts
    for name, gradient in mine.items():
        close(gradient, theirs[name])


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("custom", "router")), "scenes"]
)
def test_translations_approach_the_english_vectors(tmp_path, box, box_folder, corpus, rows, name):
    model, processor = box(name)
    own = SentenceTransformer(str(box_folder(name)), trust_remote_code=True)
    settings = {"teacher": "cached", "teacher_store": str(tmp_path / "store"), "max_steps": 16, "learning_rate": 3e-3}
    trainer = make_trainer(tmp_path, model, processor, corpus, **settings)
    assert not trainer.collator.sharing
    batch = trainer.data_collator([trainer.train_dataset[1]])["batches"][0]
    expected = own.encode(rows[1]["text_en"], convert_to_tensor=True)
    torch.testing.assert_close(trainer.teacher.vectors(batch).english[0], expected.cpu(), rtol=0, atol=1e-5)
    trainer.train()
    losses = losses_of(trainer)
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


@pytest.mark.slow
def test_it_teaches_others_with_a_loss_on_images(tmp_path, box, adopted, corpus):
    teacher = Teacher(*box("router-image"))
    settings = {"max_steps": 12, "learning_rate": 3e-3}
    trainer = make_trainer(tmp_path, *adopted("minilm"), corpus, CrossModalAlignmentLoss(0.2), teacher, **settings)
    trainer.train()
    assert trainer.projection.settings["out_features"] == 24
    assert losses_of(trainer)[-1] < losses_of(trainer)[0]


def test_others_teach_it(tmp_path, box, adopted, corpus):
    settings = {"max_steps": 12, "learning_rate": 3e-3}
    trainer = make_trainer(tmp_path, *box("scenes"), corpus, other=Teacher(*adopted("minilm")), **settings)
    trainer.train()
    assert losses_of(trainer)[-1] < losses_of(trainer)[0]
    assert not trainer.projection.is_attached


def test_states_of_tokens_are_not_shown(tmp_path, box, corpus):
    with pytest.raises(ValueError, match="runs by its own code, which shows none"):
        make_trainer(tmp_path, *box("scenes"), corpus, ImageDistillationLoss())


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path, box, corpus):
    given = {}

    def taught(folder, steps):
        model, processor = box("scenes")
        settings = {"max_steps": steps, "save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
        args = arguments(tmp_path / folder, **settings)
        give_back = lambda weights, output: given.update({folder: sorted(p.name for p in weights.iterdir())})  # noqa: E731
        return distill(model, processor, args, corpus, give_back=give_back).embedder.state_dict()

    whole = taught("whole", 4)
    taught("parts", 2)
    for name, value in taught("parts", 4).items():
        assert torch.equal(value, whole[name]), named(name)("differs")
    assert "model.safetensors" in given["parts"]
    assert not (tmp_path / "parts" / "checkpoints" / "taught").exists()


def test_it_is_not_pushed_while_it_is_trained(tmp_path, box, corpus):
    with pytest.raises(ValueError, match="is pushed in its own form only"):
        make_trainer(tmp_path, *box("scenes"), corpus, push_to_hub=True, hub_token="none")
