"""Targets from another embedder: of another width and tokenizer, through the store or live; a student of two towers."""

import copy
import json

import pytest
import torch
from steps import arguments, make_trainer, shaken
from torch.nn.functional import mse_loss

from xvlm2vec.modeling.heads import Dense
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter, load_adapter
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.losses import CrossModalAlignmentLoss, ImageDistillationLoss
from xvlm2vec.trainer.other_teacher import Teacher
from xvlm2vec.trainer.projection import LossProjection, add_projection
from xvlm2vec.trainer.teachers import TeacherError


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def cached(tmp_path, **settings):
    return {"teacher": "cached", "teacher_store": str(tmp_path / "store"), "learning_rate": 3e-3, **settings}


def pooled(model, processor, texts, images=None):
    with torch.no_grad():
        return model(**processor(text=texts, images=images)).pooler_output


def batch_of(trainer):
    return trainer.data_collator([trainer.train_dataset[index] for index in range(4)])["batches"][0]


def texts_of(rows):
    return [row["text_en"] for row in rows]


@pytest.mark.parametrize("kind", ["cached", pytest.param("copy", marks=pytest.mark.slow)])
def test_targets_are_the_vectors_of_the_other_embedder(tmp_path, adopted, corpus, rows, kind):
    teacher = Teacher(*adopted("clip"))
    expected = pooled(teacher.model, teacher.processor, texts_of(rows))
    settings = cached(tmp_path, teacher=kind, max_steps=20)
    trainer = make_trainer(tmp_path, *adopted("xlmr"), corpus, other=teacher, **settings)
    torch.testing.assert_close(trainer.teacher.vectors(batch_of(trainer)).english, expected, rtol=0, atol=1e-6)
    trainer.train()
    assert losses_of(trainer)[-1] < 0.6 * losses_of(trainer)[0]


def test_the_first_loss_is_that_of_the_projected_vectors(tmp_path, adopted, corpus, rows):
    teacher = Teacher(*adopted("clip"))
    model, processor = adopted("minilm")
    trainer = make_trainer(tmp_path, model, processor, corpus, other=teacher, **cached(tmp_path))
    layer = trainer.projection.layer
    assert (layer.linear.in_features, layer.linear.out_features) == (32, 24)
    errors = []
    for row in rows:
        target = pooled(teacher.model, teacher.processor, [row["text_en"]])
        for item in row["translations"]:
            vectors = layer(pooled(model, processor, [row["text_en"], item["text"]]))
            errors.append(mse_loss(vectors, target.expand(2, -1)))
    with trainer.projection.attached(), torch.no_grad():
        loss = trainer.compute_loss(trainer.model.eval(), {"batches": [batch_of(trainer)]})
    torch.testing.assert_close(loss, torch.stack(errors).mean(), rtol=1e-5, atol=1e-6)


def test_the_projection_of_the_loss_is_trained_and_dropped(tmp_path, adopted, corpus, rows):
    model, processor = adopted("minilm")
    args = arguments(tmp_path / "run", save_strategy="steps", save_steps=2, max_steps=4, **cached(tmp_path))
    trainer = distill(model, processor, args, corpus, corpus.select(range(4)), teacher=Teacher(*adopted("clip")))
    fresh = LossProjection(adopted("minilm")[0], 24, args.seed)
    assert not torch.equal(trainer.projection.layer.linear.weight, fresh.layer.linear.weight)
    assert len(model.heads) == 0
    assert model.config.heads == []
    loaded = XVLM2VecModel.from_pretrained(tmp_path / "run")
    vectors = loaded.encode(text=texts_of(rows), convert_to_tensor=True)
    assert vectors.shape == (4, 32)
    torch.testing.assert_close(vectors, model.encode(text=texts_of(rows), processor=processor, convert_to_tensor=True))
    summary = json.loads((tmp_path / "run" / "distillation.json").read_text())
    assert summary["teacher"] == {"dropped_projection": {"in_features": 32, "out_features": 24}}
    checkpoint = XVLM2VecModel.from_pretrained(tmp_path / "run" / "checkpoints" / "checkpoint-2")
    assert checkpoint.config.hidden_size == 24
    assert "eval_loss" in trainer.evaluate()
    assert len(model.heads) == 0


@pytest.mark.parametrize("lora", [pytest.param(False, marks=pytest.mark.slow), True], ids=["all weights", "adapter"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, adopted, corpus, lora):
    def taught(folder, steps):
        model, processor = adopted("minilm")
        torch.manual_seed(5)
        model = add_adapter(model, AdapterConfig(rank=2)) if lora else model
        settings = cached(tmp_path, max_steps=steps, save_strategy="steps", save_steps=2, optim="sgd")
        args = arguments(tmp_path / folder, lr_scheduler_type="constant", **settings)
        return distill(model, processor, args, corpus, teacher=Teacher(*adopted("clip")))

    whole = taught("whole", 4)
    taught("parts", 2)
    resumed = taught("parts", 4)
    again = taught("whole", 4)  # which is through, so that its weights are loaded
    torch.testing.assert_close(list(again.embedder.parameters()), list(whole.embedder.parameters()))
    torch.testing.assert_close(list(again.projection.layer.parameters()), list(whole.projection.layer.parameters()))
    assert losses_of(resumed)[-2:] == pytest.approx(losses_of(whole)[-2:], rel=1e-6)
    for name, value in whole.embedder.state_dict().items():
        torch.testing.assert_close(resumed.embedder.state_dict()[name], value, msg=name)
    for mine, other in zip(whole.projection.layer.parameters(), resumed.projection.layer.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_an_adapter_is_saved_without_the_projection(tmp_path, adopted, corpus, rows):
    model, processor = adopted("minilm")
    adapted = add_adapter(model, AdapterConfig(rank=2))
    trainer = distill(
        adapted, processor, arguments(tmp_path / "run", **cached(tmp_path)), corpus, teacher=Teacher(*adopted("clip"))
    )
    layer = trainer.projection.layer
    assert not torch.equal(layer.modules_to_save["default"].linear.weight, layer.original_module.linear.weight)
    again = load_adapter(adopted("minilm")[0], tmp_path / "run")
    torch.testing.assert_close(
        again.base_model.model.encode(text=texts_of(rows), processor=processor, convert_to_tensor=True),
        model.encode(text=texts_of(rows), processor=processor, convert_to_tensor=True),
    )


def test_the_store_is_that_of_the_teacher(tmp_path, adopted, corpus, monkeypatch):
    def store(student, teacher):
        trainer = make_trainer(tmp_path, *adopted(student), corpus, other=Teacher(*teacher), **cached(tmp_path))
        return trainer.teacher.store.folder

    of_clip = store("minilm", adopted("clip"))
    model, processor = adopted("clip")
    assert store("minilm", (shaken(model), processor)) != of_clip
    calls = []
    before = XVLM2VecModel.forward
    monkeypatch.setattr(XVLM2VecModel, "forward", lambda self, *a, **k: calls.append(self) or before(self, *a, **k))
    assert store("xlmr", adopted("clip")) == of_clip
    assert make_trainer(tmp_path, *adopted("clip"), corpus, **cached(tmp_path)).teacher.store.folder == of_clip
    assert not calls


def test_a_student_of_two_towers_keeps_its_projection(tmp_path, adopted, corpus, rows):
    towers, of_towers = adopted("clip")
    target = pooled(towers, of_towers, texts_of(rows))
    student, processor = adopted("xlmr")
    add_projection(student, towers.config.hidden_size)
    args = arguments(tmp_path / "run", **cached(tmp_path, max_steps=60))
    loss = CrossModalAlignmentLoss(0.2)
    trainer = distill(student, processor, args, corpus, teacher=Teacher(towers, of_towers))
    assert losses_of(trainer)[-1] < 0.6 * losses_of(trainer)[0]
    assert trainer.projection is None
    loaded = XVLM2VecModel.from_pretrained(tmp_path / "run")
    assert loaded.config.heads[-1]["folder"] == "2_Dense"
    assert isinstance(loaded.heads[-1], Dense)
    vectors = loaded.encode(text=texts_of(rows), convert_to_tensor=True)
    torch.testing.assert_close(
        vectors, student.encode(text=texts_of(rows), processor=processor, convert_to_tensor=True)
    )
    assert torch.cosine_similarity(vectors, target).mean() > 0.7
    add_projection(loaded, 24)  # it has one
    assert len(loaded.heads) == 1

    aligned = make_trainer(
        tmp_path, *adopted("xlmr"), corpus, loss, other=Teacher(towers, of_towers), **cached(tmp_path)
    )
    expected = pooled(towers, of_towers, None, [rows[0]["image"], rows[2]["image"]])
    torch.testing.assert_close(aligned.teacher.vectors(batch_of(aligned)).image_only[[0, 2]], expected)
    aligned.train()
    live = cached(tmp_path, teacher="copy")
    lively = make_trainer(tmp_path, *adopted("xlmr"), corpus, loss, other=Teacher(towers, of_towers), **live)
    lively.train()
    assert losses_of(lively) == pytest.approx(losses_of(aligned), rel=1e-5)


@pytest.mark.parametrize("kind", ["cached", "copy"])
def test_both_sides_get_the_same_rows(tmp_path, adopted, model, processor, corpus, rows, kind):
    """Two models of text with image share it; beside an embedder of texts, both see the texts alone."""
    other, of_other = copy.deepcopy(shaken(copy.deepcopy(model))), processor
    images = [row["image"] for row in rows]
    together = make_trainer(
        tmp_path, model, processor, corpus, other=Teacher(other, of_other), **cached(tmp_path, teacher=kind)
    )
    torch.testing.assert_close(
        together.teacher.vectors(batch_of(together)).english,
        pooled(other, of_other, texts_of(rows), images),
        rtol=1e-4,
        atol=1e-4,
    )
    alone = make_trainer(
        tmp_path, model, processor, corpus, other=Teacher(*adopted("minilm")), **cached(tmp_path, teacher=kind)
    )
    assert batch_of(alone).digests == [None] * 4
    alone.train()


def test_refused_teachers(tmp_path, adopted, model, processor, corpus):
    minilm, clip = Teacher(*adopted("minilm")), Teacher(*adopted("clip"))
    with pytest.raises(TeacherError, match="is the student without its adapter"):
        make_trainer(tmp_path, *adopted("xlmr"), corpus, other=clip, teacher="adapter-off")
    with pytest.raises(TeacherError, match="the student itself"):
        make_trainer(tmp_path, minilm.model, minilm.processor, corpus, other=minilm)
    with pytest.raises(TeacherError, match="would leave the space of its images"):
        make_trainer(tmp_path, *adopted("clip"), corpus, other=minilm)
    with pytest.raises(TeacherError, match='streamed; use teacher="copy"'):
        make_trainer(tmp_path, *adopted("xlmr"), corpus.to_iterable_dataset(), other=clip, teacher="cached")
    with pytest.raises(ValueError, match="matryoshka_dims cut the student's vectors of 32 values"):
        make_trainer(tmp_path, *adopted("xlmr"), corpus, other=clip, matryoshka_dims=[8])
    other = Teacher(shaken(copy.deepcopy(model)), processor)
    with pytest.raises(ValueError, match="not comparable in two different embedders"):
        make_trainer(tmp_path, model, processor, corpus, ImageDistillationLoss(), other=other)
    with pytest.raises(ValueError, match="this teacher embeds texts only"):
        make_trainer(tmp_path, *adopted("xlmr"), corpus, CrossModalAlignmentLoss(0.2), other=minilm)


def test_a_stream_is_taught_live(tmp_path, adopted, corpus):
    settings = cached(tmp_path, teacher="copy")
    trainer = make_trainer(
        tmp_path, *adopted("xlmr"), corpus.to_iterable_dataset(), other=Teacher(*adopted("clip")), **settings
    )
    trainer.train()
    assert len(losses_of(trainer)) == 3
