"""Embedders that run by their own code, from `adopt` to `release`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from sentence_transformers import SentenceTransformer

sys.path.insert(0, str(Path(__file__).parents[1] / "adoption"))
from saved_forms import build_st

from xvlm2vec.cli import main
from xvlm2vec.corpus.schema import parallel_features

TRUST = "--trust-remote-code"
TEXTS = ["a red dog", "ein roter Hund"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return cache(lambda name: str(build_st(name, tmp_path_factory.mktemp("saved") / name)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("data") / "parallel")
    rows = [
        {
            "id": f"row-{number}",
            "image": Image.new("RGB", (28, 28), (number * 20, 90, 120)) if number % 2 else None,
            "text_en": f"a red dog, {number}",
            "translations": [{"lang": "de", "text": "ein roter Hund"}],
            "source": "test",
        }
        for number in range(8)
    ]
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(folder)
    return folder


def distill(model: str, data: str, output: Path, *flags: str) -> int:
    settings = ["--max-steps", "4", "--save-steps", "2", "--learning-rate", "1e-2", "--report-to", "none", "--use-cpu"]
    places = ["--model", model, "--data", data, "--output", str(output)]
    return main(["distill", *places, *settings, "--teacher-store", str(output.parent / "store"), *flags])


def test_adopt_says_what_is_proven(source: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adopt", source("scenes"), TRUST]) == 0
    shown = capsys.readouterr().out
    assert "taken over as a black box" in shown
    assert "Proven: " in shown


@pytest.mark.parametrize("command", ["adopt", "distill", "verify"])
def test_without_trust_the_refusal_names_the_flag(
    source: Callable[[str], str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = source("scenes")
    code = distill(folder, data, tmp_path / "run") if command == "distill" else main([command, folder])
    assert code == 1
    assert f"pass {TRUST} if you trust it" in capsys.readouterr().err


def test_what_was_taught_comes_back_as_it_came(source: Callable[[str], str], data: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert distill(source("scenes"), data, output, TRUST, "--eval-data", data, "--keep-best") == 0
    before, after = (SentenceTransformer(place, trust_remote_code=True) for place in (source("scenes"), str(output)))
    moved = np.linalg.norm(before.encode(TEXTS) - after.encode(TEXTS), axis=1)
    assert (moved > 1e-3).all()
    assert (output / "scenes.py").read_bytes() == Path(source("scenes"), "scenes.py").read_bytes()
    assert json.loads((output / "distillation.json").read_text())["loss"]["name"] == "SelfDistillationLoss"
    state = (output / "0_Scenes" / "model.safetensors").read_bytes()
    assert distill(source("scenes"), data, output, TRUST, "--eval-data", data, "--keep-best") == 0  # which is through
    assert (output / "0_Scenes" / "model.safetensors").read_bytes() == state


def test_no_recipe_is_saved_of_it(
    source: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adopt", source("scenes"), TRUST, "--save-recipe", str(tmp_path / "recipe.yaml")]) == 1
    assert "which no recipe describes" in capsys.readouterr().err
    assert not (tmp_path / "recipe.yaml").exists()


def test_adapters_have_no_place_in_it(
    source: Callable[[str], str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(source("scenes"), data, tmp_path / "run", TRUST, "--lora") == 1
    assert "has no place for an adapter" in capsys.readouterr().err


@pytest.mark.slow
def test_a_release_is_the_original_with_what_was_taught(
    source: Callable[[str], str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin, output, place = Path(source("scenes")), tmp_path / "run", tmp_path / "release"
    assert distill(str(origin), data, output, TRUST) == 0
    card = ["--name", "x", "--license", "apache-2.0", "--languages", "en,de"]
    assert main(["release", str(output), "--to", str(place), *card, TRUST]) == 0
    assert "gives its golden vectors" in capsys.readouterr().out
    names = {path.relative_to(origin).as_posix() for path in origin.rglob("*")}
    added = {path.relative_to(place / "model").as_posix() for path in (place / "model").rglob("*")} - names
    assert added == {"README.md", "golden.json", "golden.safetensors", "export.json"}
    own, released = (SentenceTransformer(str(each), trust_remote_code=True) for each in (output, place / "model"))
    assert np.array_equal(own.encode(TEXTS), released.encode(TEXTS))
    readme = (place / "model" / "README.md").read_text(encoding="utf-8")
    assert 'SentenceTransformer("' in readme
    assert "trust_remote_code=True" in readme
