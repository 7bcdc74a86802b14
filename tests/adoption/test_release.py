"""A taught embedder is released in the form in which it came."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from xvlm2vec.common.adoption.adopt import Adopted, adopt
from xvlm2vec.hub.card import ReleaseCard
from xvlm2vec.hub.export import ExportError
from xvlm2vec.hub.native import NativeError, check_native
from xvlm2vec.hub.release import Release, ReleaseInputs, name_for_folder, release_to_folder, show_proof

CARD = ReleaseCard(name="taught", languages=("en", "de"), license="apache-2.0")
NEW = {"golden.json", "golden.safetensors", "export.json", "README.md"}


def taught(folder: Path, inside: str = "") -> Adopted:
    """An embedder some of whose weights moved."""
    copy = adopt(str(folder))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in copy.model.named_parameters():
            if weight.ndim > 1 and inside in name and "vision" not in name:
                weight.add_(0.05 * torch.randn_like(weight))
    return copy


def release(copy: Adopted, folder: Path, **options: Any) -> Release:
    inputs = ReleaseInputs(copy.model, copy.processor, CARD, **options)
    return release_to_folder(name_for_folder(inputs, folder), folder, dtypes=("float32",))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["minilm-dense", *(pytest.param(name, marks=pytest.mark.slow) for name in ("clip", "gemma3", "old-layout"))]
)
def test_form_is_that_of_the_original(st_model: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    copy = taught(st_model(name), inside="text_model" if name == "clip" else "")
    done = release(copy, tmp_path / "out")
    folder = tmp_path / "out" / "model"
    assert files(folder) - NEW == files(st_model(name)) - NEW
    assert not list(folder.rglob("*.py"))
    changed = {
        file
        for file in files(st_model(name)) - NEW
        if (folder / file).read_bytes() != (st_model(name) / file).read_bytes()
    }
    assert all(file.endswith("model.safetensors") for file in changed)
    assert "Beside the original:" in show_proof(done)
    text = "ein Haus am See"
    stock = SentenceTransformer(str(folder)).encode([text])[0]
    assert np.allclose(stock, copy.model.encode(text), atol=1e-5)
    assert not np.allclose(stock, SentenceTransformer(str(st_model(name))).encode([text])[0], atol=1e-3)


def test_images_of_two_towers_keep_their_vectors(
    st_model: Callable[[str], Path], tmp_path: Path, images: list[Image.Image]
) -> None:
    release(taught(st_model("clip"), inside="text_model"), tmp_path / "out")
    before, after = SentenceTransformer(str(st_model("clip"))), SentenceTransformer(str(tmp_path / "out" / "model"))
    assert np.array_equal(before.encode([images[0]]), after.encode([images[0]]))


@pytest.mark.parametrize("name", ["siglip", pytest.param("siglip-bare", marks=pytest.mark.slow)])
def test_siglip_is_cured_for_everybody(st_model: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    copy = taught(st_model(name), inside="text_model")
    release(copy, tmp_path / "out")
    stock = SentenceTransformer(str(tmp_path / "out" / "model"))
    text = "ein Haus"
    together = stock.encode([text, "a much longer text that makes a batch wider than it was before"])[0]
    assert np.allclose(together, stock.encode([text])[0], atol=1e-5)
    assert np.allclose(together, copy.model.encode(text), atol=1e-5)


@pytest.mark.slow
def test_our_form_beside_it(st_model: Callable[[str], Path], tmp_path: Path) -> None:
    copy = taught(st_model("minilm"))
    done = release(copy, tmp_path / "out", with_remote_code=True)
    assert set(done.folders) == {"model", "xvlm2vec"}
    assert (tmp_path / "out" / "xvlm2vec" / "modeling_xvlm2vec.py").is_file()


@pytest.mark.slow
def test_a_second_release_takes_the_place_of_the_first(st_model: Callable[[str], Path], tmp_path: Path) -> None:
    for _ in range(2):
        release(taught(st_model("minilm")), tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert weights.keys() == load_file(st_model("minilm") / "model.safetensors").keys()


def test_card_and_golden_rows_are_its_own(st_model: Callable[[str], Path], tmp_path: Path) -> None:
    release(taught(st_model("minilm")), tmp_path / "out")
    card = (tmp_path / "out" / "model" / "README.md").read_text(encoding="utf-8")
    assert "the form of the embedder that it was made from" in card
    assert "trust_remote_code" not in card
    assert "- taught: " in card
    golden = json.loads((tmp_path / "out" / "model" / "golden.json").read_text(encoding="utf-8"))
    assert all(not row["images"] for row in golden["rows"])


def test_original_that_changed_is_an_error(st_model: Callable[[str], Path], tmp_path: Path) -> None:
    copy = taught(st_model("minilm"))
    copy.model.config.adopted["digest"] = "0" * 64
    with pytest.raises(ExportError, match="have changed since it was taken over"):
        release(copy, tmp_path / "out")


def test_native_and_remote_code_are_told_apart(st_model: Callable[[str], Path], tmp_path: Path) -> None:
    copy = taught(st_model("minilm"))
    with pytest.raises(NativeError, match="leave --native out"):
        check_native(copy.model)
    copy.model.config.adopted = {}
    with pytest.raises(ExportError, match="taken over"):
        release(copy, tmp_path / "out", with_remote_code=True)
