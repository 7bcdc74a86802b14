"""`xvlm2vec distill` on two towers and embedders of texts, with another teacher, and a student for a text tower."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "adoption"))
from saved_forms import build_st

from xvlm2vec.cli import main
from xvlm2vec.common.adoption.adopt import Adopted, adopt
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

ROWS = [("a red dog", "ein roter Hund"), ("two dogs", "zwei Hunde"), ("rain over the sea", "Regen über dem Meer")]
FLAGS = [*("--max-steps", "4", "--save-steps", "2", "--learning-rate", "1e-3"), *("--report-to", "none"), "--use-cpu"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a saved embedder of sentence-transformers."""
    return cache(lambda name: str(build_st(name, tmp_path_factory.mktemp("saved") / name)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("data") / "parallel")
    rows = [
        {
            "id": f"row-{number}",
            "image": Image.new("RGB", (28, 28), (number * 20, 90, 120)) if number % 2 else None,
            "text_en": f"{english}, {number}",
            "translations": [{"lang": "de", "text": german}],
            "source": "test",
        }
        for number in range(12)
        for english, german in [ROWS[number % 3]]
    ]
    Dataset.from_list(rows, features=parallel_features()).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def taken_over() -> Callable[[str], Adopted]:
    return cache(adopt)


def run(model: str, data: str, output: Path, *flags: str) -> tuple[XVLM2VecModel, dict[str, Any]]:
    arguments = ["distill", "--model", model, "--data", data, "--output", str(output), *FLAGS]
    assert main([*arguments, "--teacher-store", str(output.parent / "store"), *flags]) == 0
    return XVLM2VecModel.from_pretrained(output), json.loads((output / "distillation.json").read_text())


@pytest.mark.parametrize(
    "name", ["clip", *(pytest.param(name, marks=pytest.mark.slow) for name in ("siglip", "minilm"))]
)
def test_embedders_are_taught_by_themselves(source, taken_over, data, tmp_path: Path, name: str) -> None:
    before = taken_over(source(name))
    model, summary = run(source(name), data, tmp_path / "run", "--eval-data", data, "--keep-best")
    assert "teacher" not in summary
    old, new = (each.encode(text=["ein roter Hund"], convert_to_tensor=True) for each in (before.model, model))
    assert not torch.equal(old, new)
    if name != "minilm":
        image = [Image.new("RGB", (28, 28), (40, 90, 120))]
        # Equal weights elsewhere in memory may change the last bit.
        torch.testing.assert_close(*(torch.as_tensor(each.encode(images=image)) for each in (model, before.model)))


@pytest.mark.slow
def test_another_teacher_of_another_width(source, data, tmp_path: Path) -> None:
    model, summary = run(source("minilm"), data, tmp_path / "run", "--teacher-model", source("clip"))
    assert summary["teacher"] == {"dropped_projection": {"in_features": 32, "out_features": 24}}
    assert model.config.hidden_size == 32


def test_a_student_for_a_text_tower(source, data, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model, _ = run(source("clip"), data, tmp_path / "run", "--student", source("xlmr"))
    assert model.config.hidden_size == 24
    assert "with a projection to its 24 values that stays" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--student", "a", "--teacher-model", "b"], "leave --teacher-model out, or --student"),
        (["--student", "a", "--lora"], "leave --lora out"),
        (["--teacher-model", "a", "--teacher", "adapter-off", "--lora"], "here another model is the teacher"),
    ],
)
def test_flags_that_do_not_go_together(data, tmp_path: Path, capsys, flags: list[str], message: str) -> None:
    assert main(["distill", "--model", "m", "--data", data, "--output", str(tmp_path / "run"), *flags]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("model", "student", "message"),
    [("minilm", "xlmr", "and --model has none"), ("clip", "siglip", "--student has two towers of its own")],
)
def test_students_that_take_no_place(
    source, data, tmp_path: Path, capsys, model: str, student: str, message: str
) -> None:
    flags = ["--model", source(model), "--student", source(student), "--data", data, "--output", str(tmp_path / "run")]
    assert main(["distill", *flags, *FLAGS]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["clip", "clip-old", "siglip-bare", "minilm", "decoder"])
def test_plans(source, data, tmp_path: Path, capsys, name: str) -> None:
    flags = ["--model", source(name), "--data", data, "--output", str(tmp_path / "run"), "--plan"]
    assert main(["distill", *flags, "--teacher-model", source("xlmr"), "--teacher", "copy"]) == 0
    assert "fits a GPU of" in capsys.readouterr().out
