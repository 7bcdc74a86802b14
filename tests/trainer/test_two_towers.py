"""CLIP and SigLIP: the tower for texts learns languages, the one for images stays and is not even called."""

import logging
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from steps import arguments, make_trainer

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.losses import CrossModalAlignmentLoss, ImageDistillationLoss
from xvlm2vec.trainer.plan import plan_memory

TEXT = ("backbone.text_model.", "backbone.text_projection.")


@pytest.fixture(params=["clip", pytest.param("siglip", marks=pytest.mark.slow)])
def towers(request, adopted):
    return adopted(request.param)


@pytest.fixture
def counted(monkeypatch):
    """Calls of the tower for images, and of the one for texts, of all models."""
    calls = Counter()
    before = XVLM2VecModel.forward

    def forward(self, *args, **inputs):
        calls["images" if inputs.get("pixel_values") is not None else "texts"] += 1
        calls["rows of images"] += len(inputs["pixel_values"]) if inputs.get("pixel_values") is not None else 0
        return before(self, *args, **inputs)

    monkeypatch.setattr(XVLM2VecModel, "forward", forward)
    return calls


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def distances(model, processor, rows, before):
    """Mean of 1 - cosine of translations to the English vectors of before."""
    pairs = [(item["text"], vector) for row, vector in zip(rows, before, strict=True) for item in row["translations"]]
    vectors = model.encode(text=[text for text, _ in pairs], processor=processor, convert_to_tensor=True)
    return float((1 - torch.cosine_similarity(vectors, torch.stack([vector for _, vector in pairs]))).mean())


def english(model, processor, rows):
    with torch.no_grad():
        return model(**processor(text=[row["text_en"] for row in rows])).pooler_output


@pytest.mark.parametrize(("name", "steps"), [("clip", 1), ("clip", 20), ("siglip", 20)])
def test_only_the_tower_for_texts_is_taught(tmp_path, adopted, corpus, rows, name, steps):
    model, processor = adopted(name)
    before, target = state(model), english(model, processor, rows)
    store = str(tmp_path / "store")
    settings = {"teacher": "cached", "teacher_store": store, "max_steps": steps, "learning_rate": 3e-3}
    trainer = make_trainer(tmp_path, model, processor, corpus, weight_decay=0.1, **settings)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])["batches"][0]
    torch.testing.assert_close(trainer.teacher.vectors(batch).english, target, rtol=0, atol=1e-6)
    far = distances(model, processor, rows, target)
    trainer.train()
    after = model.state_dict()
    for name, value in before.items():
        if not name.startswith(TEXT):
            assert torch.equal(value, after[name]), name
    assert any(not torch.equal(value, after[name]) for name, value in before.items() if name.startswith(TEXT))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if steps > 1:
        assert losses[-1] < losses[0] / 2
        assert distances(model, processor, rows, target) < far / 2


def test_the_tower_for_images_never_runs_without_need(tmp_path, towers, corpus, counted, caplog):
    caplog.set_level(logging.INFO)
    model, processor = towers
    settings = {"teacher": "cached", "teacher_store": str(tmp_path / "store"), "eval_strategy": "steps"}
    trainer = make_trainer(tmp_path, model, processor, corpus, eval_steps=2, **settings)
    trainer.train()
    assert counted["texts"]
    assert not counted["images"]
    assert sum("images of the corpus are left out" in record.message for record in caplog.records) == 1
    assert not [record for record in caplog.records if "shared" in record.message]


def stored(rows):
    texts = {"lang": Value("string"), "text": Value("string")}
    columns = {"id": Value("string"), "image": Image(), "text_en": Value("string"), "translations": List(texts)}
    return Dataset.from_list(rows, features=Features({**columns, "source": Value("string")}))


def test_images_are_embedded_once_for_a_loss_that_wants_them(tmp_path, towers, corpus, rows, counted):
    model, processor = towers
    loss = CrossModalAlignmentLoss(0.2)
    settings = {"teacher": "cached", "teacher_store": str(tmp_path / "store"), "max_steps": 6}
    trainer = make_trainer(tmp_path, model, processor, stored(list(corpus)), loss, **settings)
    assert counted["rows of images"] == 2  # of 16 rows, 8 with one of two images
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])["batches"][0]
    assert batch.images_only is None
    expected = model.encode(images=[rows[0]["image"], rows[2]["image"]], processor=processor, convert_to_tensor=True)
    torch.testing.assert_close(trainer.teacher.vectors(batch).image_only[[0, 2]], expected, rtol=0, atol=1e-5)
    counted.clear()
    trainer.train()
    assert not counted["images"]
    again = make_trainer(tmp_path, model, processor, stored(list(corpus)), loss, **settings)
    assert again.teacher.store.width == trainer.teacher.store.width


def test_a_second_run_reads_the_store(tmp_path, adopted, corpus, counted):
    for loss in (None, CrossModalAlignmentLoss(0.2)):
        settings = {"teacher": "cached", "teacher_store": str(tmp_path / "store")}
        make_trainer(tmp_path, *adopted("clip"), corpus, loss, **settings)
        assert counted["texts"]
        counted.clear()
        make_trainer(tmp_path, *adopted("clip"), corpus, loss, **settings)
        assert not counted
    assert len(list((tmp_path / "store").iterdir())) == 2  # the alignment's rows have images, too


@pytest.mark.parametrize(
    "loss", [pytest.param(None, marks=pytest.mark.slow), CrossModalAlignmentLoss(0.2)], ids=["paper", "cross-modal"]
)
def test_all_teachers_of_two_towers_say_the_same(tmp_path, towers, corpus, loss):
    model, processor = towers
    losses = {}
    for kind in ("copy", "adapter-off", "cached"):
        torch.manual_seed(3)
        student = add_adapter(XVLM2VecModel(model.config), AdapterConfig(rank=2))
        student.base_model.model.load_state_dict(_with_adapter(student, model), strict=False)
        settings = {"teacher": kind, "teacher_store": str(tmp_path / "store")}
        trainer = make_trainer(tmp_path / kind, student, processor, corpus, loss, **settings)
        trainer.train()
        losses[kind] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses["copy"] == pytest.approx(losses["adapter-off"], rel=1e-5)
    assert losses["copy"] == pytest.approx(losses["cached"], rel=1e-5)


def _with_adapter(student, model):
    names = {name.replace(".base_layer.", "."): name for name in student.base_model.model.state_dict()}
    return {names[name]: value for name, value in model.state_dict().items()}


def test_an_adapter_lies_on_the_tower_for_texts_only(tmp_path, towers, corpus):
    model, processor = towers
    adapted = add_adapter(model, AdapterConfig(rank=2, train_embeddings=True))
    before = state(model)
    make_trainer(tmp_path, adapted, processor, corpus).train()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert moved
    assert all(name.startswith("backbone.text_model.") for name in moved)
    assert any("lora_" in name for name in moved)
    assert any("token_embedding" in name for name in moved)


def test_refused_losses_and_settings(tmp_path, towers, corpus):
    model, processor = towers
    with pytest.raises(ValueError, match="ImageDistillationLoss compares the states of an image's tokens"):
        make_trainer(tmp_path, model, processor, corpus, ImageDistillationLoss())
    with pytest.raises(ValueError, match="of two towers only the one for texts is taught"):
        make_trainer(tmp_path, model, processor, corpus, freeze_vision=False)


def test_rows_without_an_english_text_are_left_out(tmp_path, towers, rows, caplog):
    model, processor = towers
    blank = {**rows[0], "id": "blank", "text_en": "  "}
    trainer = make_trainer(tmp_path, model, processor, Dataset.from_list([*rows, blank]))
    assert len(trainer.train_dataset) == 4
    assert "1 of 5 rows have no English text and are left out: blank" in caplog.text
    stream = Dataset.from_list([*rows, blank]).to_iterable_dataset()
    streamed = make_trainer(tmp_path, model, processor, stream)
    assert [row["id"] for row in streamed.train_dataset] == [row["id"] for row in rows]


def test_the_best_weights_are_kept_and_saved_ones_load(tmp_path, towers, corpus, rows):
    model, processor = towers
    images = model.encode(images=[rows[0]["image"]], processor=processor)
    args = arguments(
        tmp_path / "run",
        teacher="cached",
        teacher_store=str(tmp_path / "store"),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="worst_distance",
    )
    trainer = distill(model, processor, args, corpus, corpus.select(range(4)))
    assert trainer.state.best_metric is not None
    loaded = XVLM2VecModel.from_pretrained(tmp_path / "run")
    texts = [row["text_en"] for row in rows]
    torch.testing.assert_close(
        loaded.encode(text=texts, convert_to_tensor=True),
        model.encode(text=texts, processor=processor, convert_to_tensor=True),
    )
    np.testing.assert_allclose(loaded.encode(images=[rows[0]["image"]]), images, atol=1e-6)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, adopted, corpus):
    settings = {"teacher": "cached", "teacher_store": str(tmp_path / "store"), "save_strategy": "steps"}

    def taught(folder, steps):
        args = arguments(tmp_path / folder, max_steps=steps, save_steps=2, lr_scheduler_type="constant", **settings)
        return distill(*adopted("clip"), args, corpus).embedder

    whole = taught("whole", 4)
    taught("parts", 2)
    resumed = taught("parts", 4)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_bfloat16_and_the_plan(tmp_path, towers, corpus):
    model, processor = towers
    make_trainer(tmp_path, model, processor, corpus, bf16=True, teacher="cached", max_steps=1).train()
    with torch.device("meta"):
        empty = XVLM2VecModel(model.config)
    plans = [plan_memory(empty, arguments(tmp_path, max_tokens_per_forward=size)) for size in (640, 1280)]
    assert plans[1].activations == pytest.approx(2 * plans[0].activations, rel=0.1)
    assert plans[0].parameters == sum(weight.numel() for weight in model.parameters())
