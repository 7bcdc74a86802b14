"""`xvlm2vec encode` with models of every kind: functions, encoders, sentence-transformers, mteb."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xvlm2vec import cli

MODULE = """
import numpy as np

def embed(texts, images):
    sizes = [images[n].width if images[n] is not None else 0 for n in range(len(texts))]
    return np.array([[len(text or ""), size, 1] for text, size in zip(texts, sizes)], dtype=np.float32)

class Counting:
    name, fingerprint = "counting", ""

    def encode_rows(self, rows, images):
        return np.array([[len(row.text or ""), 1] for row in rows], dtype=np.float32)

counting = Counting()
"""


@pytest.fixture
def encode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """Runs the command in a folder with a module; returns the vectors of two texts and an image beside a text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    (tmp_path / "own_models.py").write_text(MODULE, encoding="utf-8")
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    (tmp_path / "rows.csv").write_text("text,image\na dog,\ncat,\nbird,a.png\n", encoding="utf-8")
    (tmp_path / "texts.txt").write_text("a dog\ncat\n", encoding="utf-8")

    def run(model: str, *flags: str) -> np.ndarray:
        assert cli.main(["encode", model, *(flags or ("--csv", "rows.csv")), "--output", "v.npy"]) == 0
        return np.load(tmp_path / "v.npy")

    return run


def test_a_function(encode: Callable[..., np.ndarray], tmp_path: Path) -> None:
    assert encode("own_models:embed").tolist() == [[5, 0, 1], [3, 0, 1], [4, 32, 1]]
    assert (tmp_path / "v.npy.parts").is_dir()
    instructed = encode("own_models:embed", "--text", "texts.txt", "--instruction", "see: ")
    assert instructed.tolist() == [[10, 0, 1], [8, 0, 1]]


def test_an_encoder_without_a_fingerprint_keeps_nothing(encode: Callable[..., np.ndarray], tmp_path: Path) -> None:
    assert encode("own_models:counting").tolist() == [[5, 1], [3, 1], [4, 1]]
    assert not (tmp_path / "v.npy.parts").exists()


def test_a_model_of_mteb(encode: Callable[..., np.ndarray]) -> None:
    pytest.importorskip("mteb")
    vectors = encode("mteb:mteb/baseline-random-encoder", "--text", "texts.txt")
    assert np.isfinite(vectors).all()
    assert len(vectors) == 2
