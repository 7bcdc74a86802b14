"""A tiny model, built from a few texts, and a parallel corpus for it."""

from __future__ import annotations

import copy
import importlib.util
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from xvlm2vec.common.adoption.adopt import adopt
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model

sys.path.insert(0, str(Path(__file__).parent))  # steps.py lies beside this file
sys.path.insert(1, str(Path(__file__).parents[1] / "adoption"))  # builders of saved embedders

TEXTS = {
    "en": ["a red bicycle by the wall", "two dogs run in the park", "the old bakery opens early", "rain over the sea"],
    "it": ["una bici rossa al muro", "due cani corrono nel parco", "il vecchio forno apre presto", "pioggia sul mare"],
    "de": ["ein rotes Rad an der Wand", "zwei Hunde im Park", "die alte Bäckerei öffnet früh", "Regen über dem Meer"],
    "ar": ["دراجة حمراء عند الجدار", "كلبان يركضان في الحديقة", "المخبز القديم يفتح باكرا", "مطر وبحر وسماء"],
}  # fmt: skip
TINY = TinyModelConfig(
    image_size=16,
    patch_size=4,
    hidden_size=32,
    vision_layers=1,
    text_layers=2,
    heads=2,
    intermediate_size=48,
    vocab_size=500,
)


@pytest.fixture(autouse=True)
def seeded():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def built():
    model, processor = build_tiny_model(TINY, [text for texts in TEXTS.values() for text in texts])
    return model, processor


@pytest.fixture
def processor(built):
    return built[1]


@pytest.fixture
def model(built):
    return copy.deepcopy(built[0])


@pytest.fixture(scope="session")
def taken_over(tmp_path_factory):
    from saved_forms import build_st

    return cache(lambda name: adopt(str(build_st(name, tmp_path_factory.mktemp("saved") / name))))


@pytest.fixture
def adopted(taken_over):
    """Model and processor of a tiny embedder of sentence-transformers, taken over; each call gives a new copy."""

    def get(name):
        processor = taken_over(name).processor
        model = copy.deepcopy(taken_over(name).model)
        model.processor = processor
        return model, processor

    return get


@pytest.fixture(name="image")
def image_fixture():
    return image


def image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def parallel_row(index: int, image=None, languages=("it", "de", "ar")) -> dict:
    place = index % len(TEXTS["en"])
    return {
        "id": f"row-{index}",
        "image": image,
        "text_en": TEXTS["en"][place],
        "translations": [{"lang": code, "text": TEXTS[code][place]} for code in languages],
        "source": "test",
    }


@pytest.fixture
def rows():
    """Four rows: with and without images, with three, two and one translations."""
    return [
        parallel_row(0, image(0)),
        parallel_row(1, None, ("it", "ar")),
        parallel_row(2, image(2), ("de",)),
        parallel_row(3, None),
    ]


@pytest.fixture
def corpus(rows):
    many = [{**row, "id": f"{row['id']}-{copy_}"} for copy_ in range(4) for row in rows]
    return Dataset.from_list(many)


@pytest.fixture
def folder(tmp_path, model, processor):
    """The tiny model as it is saved."""
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def build_checkpoint():
    """The builder of tiny checkpoints that the tests of the models use."""
    path = Path(__file__).parents[1] / "modeling" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_checkpoints", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module.build
    del sys.modules[spec.name]
