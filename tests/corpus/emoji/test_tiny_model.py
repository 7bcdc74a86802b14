"""The tiny model: one model for one seed, and a tokenizer in which a word has the same tokens wherever it stands."""

import pytest
import torch
from PIL import Image
from torch import nn

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model, initialise_by_fan_in, train_tokenizer

TEXTS = ["a red bicycle by the wall", "سماء وبحر ومطر", "بحر مطر"] * 3


def config(**sizes):
    small = {"image_size": 16, "patch_size": 4, "hidden_size": 16, "heads": 2, "intermediate_size": 16}
    return TinyModelConfig(**{**small, "vision_layers": 1, "text_layers": 1, "vocab_size": 320, **sizes})


def test_a_seed_gives_one_model_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, _ = build_tiny_model(config(), TEXTS)
    assert torch.equal(torch.rand(1), expected)
    second, _ = build_tiny_model(config(), TEXTS)
    other, _ = build_tiny_model(config(seed=1), TEXTS)
    weights = [next(model.backbone.text_model.parameters()) for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_image_takes_as_many_tokens_as_the_model_gives_features():
    model, processor = build_tiny_model(config(image_size=24), TEXTS)
    inputs = processor(text=["a red bicycle"], images=[Image.new("RGB", (16, 16), "red")])
    assert inputs["input_ids"].eq(model.backbone.config.image_token_id).sum() == 9  # (24 / 4 / 2) squared
    assert model(**inputs).embeddings.shape == (1, 16)
    assert not model.training


@pytest.mark.parametrize(
    ("first", "inside"),
    [("bicycle", "a red bicycle"), ("bicycle", 'the "bicycle'), ("بحر", "مطر بحر"), ("بحر", "سماء وبحر")],
)
def test_a_word_has_the_same_tokens_at_the_start_and_inside(first, inside):
    tokenizer = train_tokenizer(TEXTS, 400)
    alone = tokenizer(first)["input_ids"]
    assert tokenizer(inside)["input_ids"][-len(alone) :] == alone


@pytest.mark.parametrize("text", ["a red", "ä ö", "日本", "🚲", "سماء"])
def test_any_text_survives_the_tokenizer_but_for_its_spaces(text):
    tokenizer = train_tokenizer(TEXTS, 320)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text.replace(" ", "")


def test_weights_are_drawn_by_fan_in():
    model = nn.ModuleDict(
        {"linear": nn.Linear(400, 300), "conv": nn.Conv2d(4, 90, 10), "words": nn.Embedding(500, 100)}
    )
    initialise_by_fan_in(model)
    assert model["linear"].weight.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert model["conv"].weight.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert model["words"].weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert model["linear"].bias.eq(0).all()
