"""How the texts of a row share their image: no backbone trains on shared images that was not compared on one."""

import copy
import importlib.util
import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import image, parallel_row
from datasets import Dataset, Features, Image, List, Value
from steps import arguments, make_trainer

from xvlm2vec.modeling import families
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer
from xvlm2vec.trainer.image_sharing import SAMPLE, image_places, sample_row

WITH_IMAGE = {**parallel_row(0, image(0)), "id": "with-image"}
SGD = {"optim": "sgd", "learning_rate": 0.1, "train_sampling_strategy": "sequential"}


def texts(count):
    return [{**parallel_row(index), "id": f"text-{index}"} for index in range(count)]


@pytest.fixture
def looking_ahead(tmp_path, monkeypatch):
    """A backbone whose images attend in both directions and that no table knows."""
    path = Path(__file__).parents[1] / "modeling" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_checkpoints", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(families.FAMILIES, "gemma3", replace(families.FAMILIES["gemma3"], image_layers=""))
    folder = module.build("gemma3", tmp_path / "gemma3")
    return XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)


def losses_of(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("dtype", "reason"), [(torch.float32, "vectors differ"), (torch.bfloat16, "tokens see those that follow them")]
)
def test_an_image_far_from_the_start_is_found(tmp_path, looking_ahead, caplog, dtype, reason):
    model, processor = looking_ahead
    rows = Dataset.from_list([*texts(SAMPLE + 6), WITH_IMAGE])
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path, model.to(dtype), processor, rows)
    assert trainer.collator.sharing is False
    assert reason in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_the_first_image_of_a_stream_is_checked_before_its_loss(tmp_path, looking_ahead, caplog, workers):
    model, processor = looking_ahead
    rows = Dataset.from_list([*texts(SAMPLE + 4), WITH_IMAGE, *texts(3)])
    losses = {}
    for sharing in ("auto", "off"):
        with caplog.at_level(logging.WARNING):
            trainer = make_trainer(
                tmp_path, copy.deepcopy(model), processor, rows.to_iterable_dataset(), sharing=sharing,
                per_device_train_batch_size=17, max_steps=5, dataloader_num_workers=workers, **SGD,
            )  # fmt: skip
        assert trainer.collator.sharing is (sharing == "auto")
        losses[sharing] = losses_of(trainer)
        assert trainer.collator.sharing is False
    assert "vectors differ" in caplog.text
    assert losses["auto"] == pytest.approx(losses["off"], rel=1e-4)


def test_the_first_image_of_an_evaluation_is_checked(tmp_path, looking_ahead):
    model, processor = looking_ahead
    rows = {"train_dataset": Dataset.from_list(texts(3)), "processing_class": processor}
    trainer = SelfDistillationTrainer(copy.deepcopy(model), arguments(tmp_path), **rows)
    whole = SelfDistillationTrainer(copy.deepcopy(model), arguments(tmp_path, sharing="off"), **rows)
    assert trainer.collator.sharing
    held_out = Dataset.from_list([WITH_IMAGE])
    expected = whole.evaluate(held_out)["eval_distance/de"]
    assert trainer.evaluate(held_out)["eval_distance/de"] == pytest.approx(expected, abs=1e-6)


def test_images_are_looked_for_without_decoding_them():
    text = Value("string")
    features = Features({"id": text, "image": Image(), "text_en": text, "translations": List({"lang": text})})
    broken = {"id": "x", "image": {"bytes": b"no image", "path": None}, "text_en": "a", "translations": []}
    rows = Dataset.from_list([{**broken, "image": None}] * 300 + [broken], features=features)
    assert list(image_places(rows)) == [300]
    assert list(image_places(rows.select([300, 0]))) == [0]


@pytest.mark.parametrize(("thorough", "found"), [(True, True), (False, False)])
def test_rows_made_when_read_are_all_read_only_where_they_are_read_anyway(thorough, found):
    made = Dataset.from_dict({"number": list(range(1000))}).with_transform(
        lambda batch: {"image": [image(0) if number == 977 else None for number in batch["number"]]}
    )
    assert (sample_row([made], thorough)["image"] is not None) is found


@pytest.mark.parametrize("sharing", ["tree", "dense"])
def test_both_attentions_give_the_same_losses(tmp_path, model, processor, corpus, sharing):
    losses = {}
    for kind in ("auto", sharing):
        trainer = make_trainer(tmp_path, copy.deepcopy(model), processor, corpus, sharing=kind, **SGD)
        assert trainer.collator.sharing
        assert trainer.passes.dense is (kind == "dense")
        losses[kind] = losses_of(trainer)
    assert losses["auto"] == pytest.approx(losses[sharing], rel=1e-5)


def test_where_the_tree_is_wrong_the_mask_takes_its_place(tmp_path, model, processor, corpus, monkeypatch, caplog):
    from xvlm2vec.modeling import tree_attention as tree

    expected = losses_of(make_trainer(tmp_path, copy.deepcopy(model), processor, corpus, sharing="off", **SGD))
    right = tree.prepend_prefix
    monkeypatch.setattr(tree, "prepend_prefix", lambda prefix, rows: right(prefix * 0.5, rows))
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path, copy.deepcopy(model), processor, corpus, **SGD)
    assert (trainer.collator.sharing, trainer.passes.dense) == (True, True)
    assert "cannot be shared by the tree attention: vectors differ" in caplog.text
    assert losses_of(trainer) == pytest.approx(expected, rel=1e-4)
    alone = make_trainer(tmp_path, copy.deepcopy(model), processor, corpus, sharing="tree", **SGD)
    assert alone.collator.sharing is False
