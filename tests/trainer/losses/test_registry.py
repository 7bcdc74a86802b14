"""Losses by name: what is made of names, weights and settings, and what is refused."""

import pytest
import torch

from xvlm2vec.trainer.losses import (
    LOSSES,
    PAIR_LOSSES,
    LossSum,
    MatryoshkaLoss,
    MultilingualContrastiveLoss,
    SelfDistillationLoss,
    loss_names,
    make_loss,
)


def vectors(count=6, width=8):
    generator = torch.Generator().manual_seed(0)
    names = ("student_en", "student_lang", "teacher_en")
    inputs = {name: torch.randn(count, width, generator=generator) for name in names}
    return {**inputs, "languages": ["de", "it"] * (count // 2), "row_of_pair": torch.arange(count)}


def test_one_name_is_that_loss_with_its_settings():
    loss = make_loss("self-distillation", language_weight=0.25, distance="cosine")
    assert isinstance(loss, SelfDistillationLoss)
    assert loss.get_config_dict() == {"language_weight": 0.25, "distance": "cosine"}


@pytest.mark.parametrize(("name", "losses"), [(name, part) for part in (LOSSES, PAIR_LOSSES) for name in part])
def test_every_name_makes_its_loss(name, losses):
    beside = "" if losses[name].stands_alone else f"{next(iter(losses))},"
    made = make_loss(beside + name, losses=losses)
    loss = made.losses[name] if beside else made
    assert type(loss) is losses[name]
    assert "Example:" in loss.__doc__
    assert "| input | shape | meaning |" in loss.__doc__
    assert loss.citation.startswith("@misc{")


def test_several_names_are_a_weighted_sum():
    loss = make_loss("self-distillation, multilingual-contrastive:0.1", temperature=0.2)
    assert isinstance(loss, LossSum)
    inputs = vectors()
    expected = SelfDistillationLoss()(**inputs) + 0.1 * MultilingualContrastiveLoss(0.2)(**inputs)
    torch.testing.assert_close(loss(**inputs), expected)
    weighted = make_loss("self-distillation:2")
    torch.testing.assert_close(weighted(**inputs), 2 * SelfDistillationLoss()(**inputs))


def test_dims_wrap_the_sum():
    inputs, names = vectors(), "self-distillation:1,language-disentanglement:0.1"
    loss = make_loss(names, matryoshka_dims=[2, 8])
    assert isinstance(loss, MatryoshkaLoss)
    parts = [{n: v[:, :d] if n[:7] in ("student", "teacher") else v for n, v in inputs.items()} for d in (2, 8)]
    torch.testing.assert_close(loss(**inputs), sum(make_loss(names)(**part) for part in parts))


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        ("mse", {}, "no loss called 'mse'; there are self-distillation, image-distillation .needs images., "),
        ("", {}, "no loss called ''"),
        ("one-to-many,one-to-many:2", {}, "named twice"),
        ("one-to-many:much", {}, "weight of one-to-many must be a number above 0, not 'much'"),
        ("one-to-many:-1", {}, "above 0"),
        ("self-distillation", {"temperature": 0.1}, "temperature is no setting of self-distillation"),
    ],
)
def test_what_makes_no_loss_is_told(names, options, told):
    with pytest.raises(ValueError, match=told):
        make_loss(names, **options)


def test_losses_that_need_images_say_so():
    assert loss_names().count("(needs images)") == 3
