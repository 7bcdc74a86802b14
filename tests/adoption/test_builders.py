"""Stock sentence-transformers loads every builder's folder, embeds what it should, and would save it the same way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from saved_forms import NEED_TORCHVISION, TEXT_FORMS, TOWER_FORMS, VISION_LANGUAGE_FORMS
from sentence_transformers import SentenceTransformer

TEXTS = ["a red bicycle", "una bicicletta rossa", "古いパン屋の壁", "a red bicycle leans against the old bakery wall"]
WRITTEN_BY_OTHERS = {"custom", "old-layout", "no-modules", "clip-old", "clip-bare", "siglip-bare"}


def with_marks(names: Any) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.vision] * (name in NEED_TORCHVISION)) for name in names]


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=folder.name == "custom")


def assert_apart(vectors: np.ndarray) -> None:
    """Finite vectors, no two of them alike."""
    assert np.isfinite(vectors).all()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert cosines[~np.eye(len(unit), dtype=bool)].max() < 0.999


@pytest.mark.parametrize("name", TEXT_FORMS)
def test_texts(st_model: Callable[[str], Path], name: str) -> None:
    assert_apart(load(st_model(name)).encode(TEXTS))


@pytest.mark.parametrize("name", [*TOWER_FORMS, "router-image"])
def test_two_towers(st_model: Callable[[str], Path], images: list[Image.Image], name: str) -> None:
    model = load(st_model(name))
    assert_apart(np.concatenate([model.encode(TEXTS), model.encode(images)]))


@pytest.mark.parametrize("name", with_marks(VISION_LANGUAGE_FORMS))
def test_texts_images_and_both(st_model: Callable[[str], Path], images: list[Image.Image], name: str) -> None:
    model = load(st_model(name))
    both = [{"image": images[0], "text": TEXTS[0]}, {"image": images[0], "text": TEXTS[1]}]
    assert_apart(model.encode([*TEXTS, *images, *both, {"image": images[:2], "text": TEXTS[0]}]))


@pytest.mark.parametrize(
    "name", with_marks({**TEXT_FORMS, **TOWER_FORMS, **VISION_LANGUAGE_FORMS}.keys() - WRITTEN_BY_OTHERS)
)
def test_a_save_writes_the_same_settings(st_model: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    """The files that the builders write by hand are those of sentence-transformers."""
    folder = st_model(name)
    load(folder).save_pretrained(str(tmp_path), create_model_card=False)
    for path in sorted(folder.rglob("*.json")):
        if path.parent != folder or path.name in {
            "modules.json",
            "sentence_bert_config.json",
            "config_sentence_transformers.json",
        }:
            assert json.loads(path.read_text()) == json.loads((tmp_path / path.relative_to(folder)).read_text()), path
