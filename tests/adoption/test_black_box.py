"""Embedders that no recipe describes: they run by their own code, which is proven, or refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from xvlm2vec.common.adoption.adopt import Adopted, adopt
from xvlm2vec.common.adoption.describe import describe
from xvlm2vec.common.adoption.sources import AdoptionError
from xvlm2vec.modeling.rows import TextImageRow

TEXTS = ["ein Haus am See", "湖", "", "a " * 90]


@pytest.fixture(scope="session")
def adopted(st_model: Callable[[str], Path]) -> Callable[[str], Adopted]:
    return cache(lambda name: adopt(str(st_model(name)), trust_remote_code=True))


@pytest.mark.parametrize("name", ["custom", "own-bert", "scenes", "router", "router-image", "instructor"])
def test_vectors_are_those_of_its_own_encode(
    adopted: Callable[[str], Adopted], st_model: Callable[[str], Path], images: list[Image.Image], name: str
) -> None:
    """Of a batch of all kinds and prompts at once, which its own `encode` takes one by one."""
    copy = adopted(name)
    assert copy.is_black_box
    own = SentenceTransformer(str(st_model(name)), trust_remote_code=True)
    prompt = copy.recipe.prompts.get("query")
    rows = [TextImageRow(text) for text in TEXTS] + [TextImageRow("ein Haus", (), prompt)] * bool(prompt)
    expected = [*own.encode(TEXTS), *([own.encode("ein Haus", prompt=prompt)] if prompt else [])]
    if "image" in copy.recipe.writing.forms:
        rows.insert(1, TextImageRow("", (images[0],)))
        expected.insert(1, own.encode([images[0]])[0])
    if "image+text" in copy.recipe.writing.forms:
        rows.append(TextImageRow("ein Haus", (images[1],)))
        expected.append(own.encode([{"image": images[1], "text": "ein Haus"}])[0])
    with torch.no_grad():
        output = copy.model(**copy.processor.prepare(rows)[0])
    assert np.allclose(output.embeddings, np.stack(expected), atol=1e-5)


def test_its_own_encode_is_the_models(
    adopted: Callable[[str], Adopted], st_model: Callable[[str], Path], images: list[Image.Image]
) -> None:
    own = SentenceTransformer(str(st_model("scenes")), trust_remote_code=True)
    model = adopted("scenes").model
    assert np.allclose(model.encode(TEXTS, instruction="query"), own.encode(TEXTS, prompt_name="query"), atol=1e-6)
    assert np.allclose(model.encode(images=images[0]), own.encode(images[0]), atol=1e-6)
    assert model.encode("Haus", dim=8).shape == (8,)


def test_what_is_printed_says_what_is_known(adopted: Callable[[str], Adopted]) -> None:
    shown = describe(adopted("scenes"))
    assert "its modules scenes.Scenes are code of its own" in shown
    assert "rows           text, image, image and text" in shown
    assert "Proven: " in shown
    assert "take its route 'document'" in describe(adopted("router"))


@pytest.mark.parametrize("name", ["custom", "own-bert", "scenes"])
def test_own_code_wants_trust(st_model: Callable[[str], Path], name: str) -> None:
    with pytest.raises(AdoptionError, match=r"code of their own.*pass --trust-remote-code"):
        adopt(str(st_model(name)))


def test_own_code_behind_a_router_wants_trust(st_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(st_model("router"), tmp_path / "router"))
    path = folder / "router_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["types"] |= dict.fromkeys(list(content["types"])[:1], "centered.Centered")
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(AdoptionError, match=r"centered\.Centered.*pass --trust-remote-code"):
        adopt(str(folder))


def test_an_activation_behind_a_router_is_trusted_or_refused(st_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(st_model("router-image"), tmp_path / "router"))
    path = next(folder.glob("*_Dense/config.json"))
    content = json.loads(path.read_text(encoding="utf-8")) | {"activation_function": "somebody.code.Swish"}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(AdoptionError, match=r"somebody\.code\.Swish.*puts Tanh in its place"):
        adopt(str(folder))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("scenes-of-batch", "the row 'text 0' among other rows has another vector"),
        ("scenes-noisy", "the row 'text 0' on a second run has another vector"),
        ("scenes-drawn", "the row 'text 0' has another vector when the model is loaded anew"),
    ],
)
def test_vectors_that_change_are_refused(st_model: Callable[[str], Path], name: str, fault: str) -> None:
    with pytest.raises(AdoptionError, match=fault):
        adopt(str(st_model(name)), trust_remote_code=True)


def test_it_has_no_form_of_ours(adopted: Callable[[str], Adopted], tmp_path: Path) -> None:
    with pytest.raises(AdoptionError, match="no form but that in which it came"):
        adopted("custom").save(tmp_path / "out")


def test_a_row_of_a_kind_that_it_does_not_take(adopted: Callable[[str], Adopted], images: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match=r"row 1 is of the kind 'image\+text', and this model takes text, image"):
        adopted("router-image").processor(text=["a", "b"], images=[None, images[0]])
