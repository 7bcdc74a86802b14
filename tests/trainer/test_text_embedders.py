"""Embedders of texts: BERT-like ones and decoders are taught like any other, images of the corpus left out."""

import logging

import pytest
import torch
from steps import arguments, make_trainer

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.losses import CrossModalAlignmentLoss, ImageDistillationLoss
from xvlm2vec.trainer.plan import plan_memory


def english(model, processor, rows):
    with torch.no_grad():
        return model(**processor(text=[row["text_en"] for row in rows])).pooler_output


@pytest.mark.parametrize("name", [pytest.param("minilm", marks=pytest.mark.slow), "minilm-dense", "decoder"])
@pytest.mark.parametrize("sharing", ["auto", pytest.param("off", marks=pytest.mark.slow)])
def test_translations_approach_the_english_vectors(tmp_path, adopted, corpus, rows, name, sharing, caplog):
    caplog.set_level(logging.INFO)
    model, processor = adopted(name)
    target = english(model, processor, rows)
    settings = {"teacher": "cached", "teacher_store": str(tmp_path / "store"), "max_steps": 20, "learning_rate": 3e-3}
    trainer = make_trainer(tmp_path, model, processor, corpus, sharing=sharing, **settings)
    assert trainer.collator.sharing == (name == "decoder" and sharing == "auto")
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])["batches"][0]
    torch.testing.assert_close(trainer.teacher.vectors(batch).english, target, rtol=0, atol=1e-5)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert sum("images of the corpus are left out" in record.message for record in caplog.records) == 1
    assert not [r for r in caplog.records if r.name.startswith("xvlm2vec") and r.levelno >= logging.WARNING]


def marked(row):
    """Where there is an image, the English text says where."""
    return {"text_en": "<image>\n" * (row["image"] is not None) + row["text_en"]}


@pytest.mark.parametrize("name", ["decoder", pytest.param("minilm", marks=pytest.mark.slow)])
def test_a_corpus_with_images_gives_the_losses_of_one_without(tmp_path, adopted, corpus, name):
    losses = []
    for rows in (corpus, corpus.map(lambda row: {"image": None}), corpus.remove_columns("image"), corpus.map(marked)):
        trainer = make_trainer(tmp_path, *adopted(name), rows, max_steps=2)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses == [losses[0]] * 4


@pytest.mark.parametrize("loss", [ImageDistillationLoss(), CrossModalAlignmentLoss(0.2)], ids=["states", "vectors"])
def test_losses_on_images_are_refused(tmp_path, adopted, corpus, loss):
    with pytest.raises(ValueError, match=r"of an image's tokens|embeds texts only"):
        make_trainer(tmp_path, *adopted("minilm"), corpus, loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "decoder"])
def test_an_adapter_is_its_own_way_back_to_the_teacher(tmp_path, adopted, corpus, name):
    losses = {}
    for kind in ("copy", "adapter-off", "cached"):
        model, processor = adopted(name)
        torch.manual_seed(3)
        student = add_adapter(model, AdapterConfig(rank=2))
        settings = {"teacher": kind, "teacher_store": str(tmp_path / "store")}
        trainer = make_trainer(tmp_path / kind, student, processor, corpus, **settings)
        trainer.train()
        losses[kind] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses["copy"] == pytest.approx(losses["adapter-off"], rel=1e-5)
    assert losses["copy"] == pytest.approx(losses["cached"], rel=1e-5)


def test_what_was_taught_loads_and_the_heads_with_it(tmp_path, adopted, corpus, rows):
    model, processor = adopted("minilm-dense")
    distill(model, processor, arguments(tmp_path / "run", max_steps=2), corpus)
    loaded = XVLM2VecModel.from_pretrained(tmp_path / "run")
    texts = [row["text_en"] for row in rows]
    torch.testing.assert_close(
        loaded.encode(text=texts, convert_to_tensor=True),
        model.encode(text=texts, processor=processor, convert_to_tensor=True),
    )


@pytest.mark.parametrize("name", ["minilm", "decoder"])
def test_the_plan_counts_any_language_model(tmp_path, adopted, name):
    model, _ = adopted(name)
    with torch.device("meta"):
        empty = XVLM2VecModel(model.config)
    plans = [plan_memory(empty, arguments(tmp_path, max_tokens_per_forward=size)) for size in (256, 512)]
    assert plans[1].activations == pytest.approx(2 * plans[0].activations, rel=0.1)
