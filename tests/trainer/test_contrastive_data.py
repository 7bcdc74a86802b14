"""Rows of contrastive training: hard negatives, instructions, several data sets, a guide, and faulty rows."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from conftest import TINY
from datasets import Dataset, Features, Image, List, Value
from test_contrastive_trainer import train

from xvlm2vec.corpus.emoji.tiny_model import build_tiny_model
from xvlm2vec.trainer.false_negatives import guided
from xvlm2vec.trainer.losses import PairInfoNCELoss
from xvlm2vec.trainer.pair_collator import PairCollator

TEXT = Value("string")
IMAGES = Features(
    {"qry": TEXT, "qry_image": Image(), "pos_text": TEXT, "pos_image": Image(), "task": TEXT,
     "neg_text": List(TEXT), "neg_image": List(Image())}
)  # fmt: skip
WORDS = ("red", "bicycle", "wall", "dogs", "park", "bakery", "rain", "sea")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, built):
    model, processor = copy.deepcopy(built[0]), built[1]
    model.config.prompts = {"find": "Find: "}
    place = tmp_path_factory.mktemp("contrast") / "model"
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


def image_rows(image, count=8):
    rows = [
        {"qry": f"a {WORDS[index]}", "qry_image": None, "pos_text": "", "pos_image": image(index), "task": "find",
         "neg_text": ["no", ""][: index % 3], "neg_image": [None, image(50 + index)][: index % 3]}
        for index in range(count)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=IMAGES)


def text_rows(count=12):
    words = [f"{left} {right}" for left in WORDS for right in WORDS]
    return Dataset.from_list(
        [{"qry": words[n], "pos_text": words[-n - 1], "neg_text": words[30]} for n in range(count)]
    )


class Angles:
    """A guide that knows each content by its key."""

    def vectors(self, keys):
        return torch.tensor([[key[0], key[1] - 128.0] for key in keys]).numpy()


def test_the_loss_counts_each_rows_negatives_and_its_instruction(tmp_path, folder, image, model, processor):
    rows = image_rows(image)
    _, steps = train(
        folder, tmp_path / "out", rows, train_sampling_strategy="sequential", per_device_train_batch_size=8
    )
    negatives = [pair for row in rows for pair in zip(row["neg_text"], row["neg_image"], strict=True)]
    with torch.no_grad():
        query = model(**processor(text=[f"Find: {text}" for text in rows["qry"]])).embeddings
        positive = model(**processor(text=[None] * 8, images=list(rows["pos_image"]))).embeddings
        texts, images = zip(*[(text or None, image) for text, image in negatives], strict=True)
        negative = model(**processor(text=list(texts), images=list(images))).embeddings
    expected = PairInfoNCELoss()(query=query, positive=positive, negative=negative)
    assert len(negatives) == 7
    assert steps[0][1] == pytest.approx(expected.item(), rel=1e-4)


def test_what_a_guide_finds_too_near_is_left_out(tmp_path, folder, model, processor):
    rows = text_rows(8)
    args = {"per_device_train_batch_size": 8, "train_sampling_strategy": "sequential", "mask_duplicates": False}
    _, steps = train(folder, tmp_path / "out", rows, guide=Angles(), guide_margin=0.1, **args)
    batch = PairCollator(preprocess_fn=lambda texts, **_: {}, guide=Angles())(list(rows))
    left_out = guided(batch["label"]["guide"], 0.1)
    with torch.no_grad():
        sides = [model(**processor(text=rows[name][:])).embeddings for name in ("qry", "pos_text", "neg_text")]
    vectors = dict(zip(("query", "positive", "negative"), sides, strict=True))
    expected = PairInfoNCELoss()(**vectors, no_negative=left_out.no_negative, no_query=left_out.no_query)
    assert steps[0][1] == pytest.approx(expected.item(), rel=1e-4)
    assert abs(PairInfoNCELoss()(**vectors).item() - expected.item()) > 1e-2


@pytest.mark.slow
def test_an_interrupted_run_over_data_sets_ends_with_the_same_bits(tmp_path, folder, image):
    rows = {"images": image_rows(image), "texts": text_rows()}
    parts = {"sub_batch_size": 2, "dataset_temperature": 2.0, "mini_batch_size": 3, "gradient_accumulation_steps": 2}
    settings = {**parts, "max_steps": 5, "save_steps": 2, "guide": Angles()}
    whole, _ = train(folder, tmp_path / "whole", rows, **settings)
    with pytest.raises(InterruptedError):
        train(folder, tmp_path / "broken", rows, kill_at=5, **settings)
    resumed, rest = train(folder, tmp_path / "broken", rows, **settings)
    assert len(rest) == 1
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_each_loss_of_a_sum_is_logged(tmp_path, folder):
    settings = {"loss": "info-nce,sigmoid:0.5", "mini_batch_size": 3, "max_steps": 1}
    train(folder, tmp_path / "out", text_rows(8), **settings)
    state = json.loads((tmp_path / "out" / "checkpoints" / "checkpoint-1" / "trainer_state.json").read_text())
    logged = state["log_history"][0]
    assert logged["loss"] == pytest.approx(logged["loss/info-nce"] + 0.5 * logged["loss/sigmoid"], abs=1e-3)
    assert logged["loss/sigmoid"] > 0


def test_held_out_data_sets_are_each_measured(tmp_path, folder, image, caplog):
    caplog.set_level("INFO")
    parts = {"images": image_rows(image), "texts": text_rows()}
    settings = {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 5}
    train(folder, tmp_path / "out", parts, eval_rows=parts, **settings)
    told = [line for line in caplog.messages if line.startswith("On held-out pairs: ")]
    assert [line.split()[3] for line in told] == ["images", "texts"]


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (3, {"pos_image": None}, "Row 3 has neither 'pos_text' nor 'pos_image': there is nothing to find"),
        (5, {"pos_text": "a bakery", "pos_image": None}, r"Row 5: query and positive are the same \('a bakery'\)"),
        (2, {"neg_text": ["", "no"], "neg_image": "positive"}, "Row 2: a negative is the positive"),
        (7, {"task": "fnid"}, "Row 7: the model has no prompt for the task 'fnid'; it has find"),
        (7, {"pos_image": {"bytes": None, "path": "gone.png"}}, "Row 7: there is no image gone.png"),
        (1, {"neg_text": ["a", "b"]}, "Row 1 has 2 texts in 'neg_text' and 1 images in 'neg_image'"),
        (0, {"qry": "<|image_1|>\na dog"}, "Row 0, 'qry': the text holds 1 marks of an image"),
    ],
)
def test_faulty_rows_are_named_before_the_training(tmp_path, folder, image, place, change, message):
    rows = [dict(row) for row in image_rows(image)]
    if change.get("neg_image") == "positive":
        change = {**change, "neg_image": [rows[place]["pos_image"], None]}
    rows[place].update(change)
    with pytest.raises(ValueError, match=f"1 of 8 pairs of scenes are faulty: {message}"):
        train(folder, tmp_path / "out", {"scenes": Dataset.from_list(rows, features=IMAGES), "texts": text_rows()})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sub_batch_size": 3}, "sub_batch_size=3 does not divide per_device_train_batch_size=4"),
        ({"dataset_temperature": 0.5}, "dataset_temperature must be at least 1"),
        ({"dataset_temperature": 2, "multi_dataset_batch_sampler": "round_robin"}, "round_robin takes turns"),
        ({"per_device_train_batch_size": 16}, "texts has 12 rows, fewer than the 16 of a batch"),
        ({"loss": "info-nec"}, "There is no loss called 'info-nec'"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(tmp_path, folder, settings, message):
    with pytest.raises(ValueError, match=message):
        train(folder, tmp_path / "out", {"texts": text_rows()}, **settings)


def test_a_checkpoint_of_another_backbone_is_refused_and_stays(tmp_path, folder):
    train(folder, tmp_path / "out", text_rows(8), max_steps=1)
    other, processor = build_tiny_model(replace(TINY, hidden_size=48, intermediate_size=64), list(WORDS))
    other.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    weights = tmp_path / "out" / "checkpoints" / "checkpoint-1" / "model.safetensors"
    before = weights.read_bytes()
    with pytest.raises(ValueError, match="checkpoint-1 is of another model than the one that is trained: "):
        train(tmp_path / "other", tmp_path / "out", text_rows(8), max_steps=2)
    assert weights.read_bytes() == before
