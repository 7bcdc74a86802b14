"""Stock sentence-transformers loads every builder's folder, embeds what it should, and would save it the same way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from black_box_forms import BLACK_BOX_FORMS
from PIL import Image
from safetensors.torch import load_file
from saved_forms import FORMS, NEED_TORCHVISION, TEXT_FORMS, TOWER_FORMS, VISION_LANGUAGE_FORMS
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

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


@pytest.mark.parametrize("name", with_marks(sorted(FORMS.keys() - WRITTEN_BY_OTHERS - BLACK_BOX_FORMS.keys())))
def test_a_save_writes_the_same_settings(st_model: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    """What the builders write by hand is what sentence-transformers writes."""
    folder = st_model(name)
    load(folder).save_pretrained(str(tmp_path), create_model_card=False)
    heads = [path.relative_to(folder) for path in folder.glob("*_*/*.json")]
    for path in [*heads, "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"]:
        if (folder / path).exists():  # a router has no settings of the transformer in the root
            assert json.loads((folder / path).read_text()) == json.loads((tmp_path / path).read_text()), path


@pytest.mark.parametrize("name", with_marks(["minilm", "clip", "siglip", "decoder-chat", *VISION_LANGUAGE_FORMS]))
def test_the_modalities_are_those_of_a_new_model(st_model: Callable[[str], Path], name: str) -> None:
    settings = json.loads((st_model(name) / "sentence_bert_config.json").read_text())
    settings.pop("processing_kwargs", None)
    assert Transformer(str(st_model(name))).get_config_dict() == settings


def test_each_form_is_what_its_name_says(st_model: Callable[[str], Path]) -> None:
    assert load(st_model("minilm-matryoshka")).encode(TEXTS).shape == (len(TEXTS), 16)
    assert load(st_model("weighted")).get_embedding_dimension() == 64
    assert load(st_model("old-layout")).max_seq_length == 32
    assert load_file(st_model("dense-f32") / "model.safetensors")["embeddings.LayerNorm.bias"].dtype == torch.bfloat16
    assert load_file(st_model("dense-f32") / "2_Dense" / "model.safetensors")["linear.weight"].dtype == torch.float32
    assert len(list(st_model("gemma3-dense").glob("model-*.safetensors"))) > 1
    router = load(st_model("router"))
    assert np.abs(router.encode_query(TEXTS) - router.encode_document(TEXTS)).max() > 0.1
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(st_model("custom")), device="cpu")


@pytest.mark.parametrize(("name", "side"), [("decoder", "left"), ("decoder-right", "right")])
def test_decoders_end_every_text_in_an_eos(st_model: Callable[[str], Path], name: str, side: str) -> None:
    model = load(st_model(name))
    features = model.preprocess(["one", "a longer text"])
    length = int(features["attention_mask"][0].sum())
    assert length < features["input_ids"].shape[1]
    last = -1 if side == "left" else length - 1
    assert features["input_ids"][0, last] == features["input_ids"][1, -1] == model.tokenizer.eos_token_id
    assert bool(features["attention_mask"][0, 0]) == (side == "right")
