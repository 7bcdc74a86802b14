"""Crops and kinds of rows that losses of pairs ask for: what is made, and that training on them keeps its promises."""

import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PillowImage

from xvlm2vec.common.columns import PAIR_COLUMNS
from xvlm2vec.modeling.rows import TextImageRow
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.pair_views import CROPS, crops_of, make_views

LOSS = "info-nce:1,spreading:0.5,reconstruction:0.5,local-global:0.5"


@pytest.fixture
def pairs(image):
    texts = [
        ("a red bicycle", None, "by the wall", None),
        ("a dog", image(1), "two dogs", None),
        ("the bakery", image(2), "opens early", None),
        ("rain", None, "", image(4)),
    ]
    features = Features({name: Image() if name.endswith("image") else Value("string") for name in PAIR_COLUMNS})
    return Dataset.from_list([dict(zip(PAIR_COLUMNS, row, strict=True)) for row in texts * 2], features=features)


class Stop(Exception):
    """Stands for the end of the process."""


def train(folder, output, rows, stop_after=None, **settings):
    """The logs of the steps, and the model."""
    from transformers import TrainerCallback

    logs = []

    class Log(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            args.logging_steps = state.logging_steps = 1

        def on_log(self, args, state, control, logs, _kept=logs, **kwargs):
            if "loss" in logs:
                _kept.append(dict(logs))

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == stop_after:
                raise Stop

    usual = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_steps": 1, "use_cpu": True, "loss": LOSS}
    args = ContrastiveConfig(output_dir=str(output), **{**usual, **settings})
    return train_contrastive(args, rows, [Log()], model=str(folder)), logs


def test_crops_are_parts_of_their_image_and_follow_from_what_they_are_drawn_by():
    pixels = [(x, y, 0) for y in range(40) for x in range(60)]
    whole = PillowImage.new("RGB", (60, 40))
    whole.putdata(pixels)
    first, again, other = (crops_of(whole, draw) for draw in ("0:0", "0:0", "0:1"))
    assert len(first) == CROPS
    assert [crop.tobytes() for crop in first] == [crop.tobytes() for crop in again]
    assert [crop.tobytes() for crop in first] != [crop.tobytes() for crop in other]
    for crop in first:
        left, top, _ = crop.getpixel((0, 0))
        assert crop.tobytes() == whole.crop((left, top, left + crop.width, top + crop.height)).tobytes()
        assert 0.08 < crop.width * crop.height / (60 * 40) < 0.52
    small = PillowImage.new("RGB", (8, 6))
    assert {crop.size for crop in crops_of(small, "0:0")} == {(8, 6)}


def test_only_what_a_loss_asks_for_is_made_and_an_image_once(image):
    rows = {
        "query": [TextImageRow("a"), TextImageRow("b", (image(1),))],
        "positive": [TextImageRow("", (image(1),))] * 2,
    }
    nothing = make_views(frozenset({"query"}), rows, "0:0")
    assert not nothing.columns
    assert not nothing.told
    views = make_views(frozenset({"crop", "query_is_text", "positive_is_text"}), rows, "0:0")
    assert len(views.columns["whole_image"]) == 1
    assert len(views.columns["crop"]) == CROPS
    assert {name: part.tolist() for name, part in views.told.items()} == {
        "query_is_text": [True, False],
        "positive_is_text": [False, False],
        "image_of_crop": [0] * CROPS,
    }
    parts = make_views(frozenset({"condition"}), rows, "0:0")
    assert [(row.text, len(row.images)) for row in parts.columns["condition"]] == [("b", 0), ("", 1)]
    assert parts.told["query_of_condition"].tolist() == [1, 1]
    assert parts.told["condition_is_text"].tolist() == [True, False]


def test_terms_are_logged_pieces_change_nothing_and_a_run_goes_on_with_the_same_bits(tmp_path, folder, pairs):
    whole, steps = train(folder, tmp_path / "whole", pairs, num_train_epochs=2)
    assert len(steps) == 4
    for step in steps:
        assert step["loss/local-global"] > 0
        beside = [step[f"loss/{name}"] for name in ("spreading", "reconstruction", "local-global")]
        assert step["loss"] == pytest.approx(step["loss/info-nce"] + 0.5 * sum(beside), rel=1e-3)
    assert any(step["loss/reconstruction"] > 0 for step in steps)
    with pytest.raises(Stop):
        train(folder, tmp_path / "broken", pairs, stop_after=3, num_train_epochs=2)
    resumed, _ = train(folder, tmp_path / "broken", pairs, num_train_epochs=2)
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    settings = {"learning_rate": 1e-5, "num_train_epochs": 1}
    _, at_once = train(folder, tmp_path / "at once", pairs, **settings)
    _, pieces = train(folder, tmp_path / "pieces", pairs, mini_batch_size=3, **settings)
    for mine, other in zip(at_once, pieces, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_crops_of_no_images_are_refused(tmp_path, folder):
    texts = Dataset.from_list([{"qry": f"word {number}", "pos_text": f"words {number}"} for number in range(4)])
    with pytest.raises(ValueError, match="learns from crops of images, and no pair has an image"):
        train(folder, tmp_path / "out", texts)
