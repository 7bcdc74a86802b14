"""`xvlm2vec evaluate` with every kind of model and benchmark, from the command's arguments to the files it writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xvlm2vec import cli
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS, mmmeb_instructions, templates_hash

MODEL = """
import numpy as np

WORDS = {"red": 0, "lime": 1, "blue": 2, "rot": 0}


def embed(texts, images):
    vectors = np.zeros((len(texts), 3), dtype=np.float32)
    for vector, text, image in zip(vectors, texts, images):
        if image is not None:
            vector += np.asarray(image.convert("RGB").resize((1, 1))).ravel() > 127
        for word, place in WORDS.items():
            vector[place] += word in (text or "").replace("Bildunterschrift", "").split()
    return vectors


def broken(texts, images):
    return np.full((len(texts), 3), np.nan)


number = 3
"""


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Any]:
    """Runs the command in a folder that has a module with a model; returns the exit code, results and messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "color_words", raising=False)
    (tmp_path / "color_words.py").write_text(MODEL, encoding="utf-8")

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        output = tmp_path / "scores"
        try:
            code = cli.main(["evaluate", *arguments, "--output", str(output)])
        except SystemExit as error:
            code = int(error.code or 0)
        found = json.loads((output / "results.json").read_text()) if (output / "results.json").exists() else {}
        return code, found, capsys.readouterr().err

    return run


def scores(results: dict[str, Any], *styles: str) -> dict[tuple[str, str], float]:
    rows = [row for row in results["rows"] if not styles or row["style"] in styles]
    return {(row["task"], row["language"]): row["p_at_1"] for row in rows}


def test_a_function_on_mmmeb(evaluate: Callable, published: Callable) -> None:
    folder = published("mmmeb")
    choice = ("--datasets", "xm", "--languages", "en,de", "--tasks", "t2i,i2t")
    code, results, _ = evaluate("color_words:embed", "--benchmark", "mmmeb", "--data", str(folder), *choice)
    assert (code, results["model"]) == (0, "color_words:embed")
    row = results["rows"][0]
    assert set(row) >= {"benchmark", "dataset", "task", "language", "style", "n", "p_at_1", "ci95"}
    assert (row["benchmark"], row["dataset"], row["style"], row["n"]) == ("MMMEB", "xm", "plain", 3)
    assert [row["style"] for row in results["rows"]] == ["plain", "punct", "newline"] * 4, "as published"
    assert scores(results, "plain")["t2i", "en"] == 1.0
    assert scores(results, "plain")["t2i", "de"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3), "it knows one German word"
    assert results["templates_hash"] == templates_hash(mmmeb_instructions())
    assert (folder.parent / "scores" / "embeddings").is_dir()
    one = evaluate("color_words:embed", "--benchmark", "mmmeb", "--data", str(folder), *choice, "--styles", "plain")[1]
    assert {row["style"] for row in one["rows"]} == {"plain"}


def test_the_fingerprint_of_a_function_follows_its_code(evaluate: Callable, published: Callable) -> None:
    folder = published("mmmeb")
    choice = ("--benchmark", "mmmeb", "--data", str(folder), "--datasets", "xm", "--languages", "en,de")
    first = evaluate("color_words:embed", *choice, "--tasks", "t2i")[1]["fingerprint"]
    assert evaluate("color_words:embed", *choice, "--tasks", "i2t")[1]["fingerprint"] == first
    (folder.parent / "color_words.py").write_text(MODEL + "\n# changed\n", encoding="utf-8")
    assert evaluate("color_words:embed", *choice, "--tasks", "i2t")[1]["fingerprint"] != first


def test_the_fingerprint_of_a_function_follows_what_it_imports(
    evaluate: Callable, published: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published("mmmeb")
    choice = ("--benchmark", "mmmeb", "--data", str(folder), "--datasets", "xm", "--languages", "en", "--tasks", "t2i")
    model = MODEL.replace('WORDS = {"red": 0, "lime": 1, "blue": 2, "rot": 0}', "from color_places import find")
    model = model.replace("WORDS.items()", "find().items()")
    (folder.parent / "color_words.py").write_text(model, encoding="utf-8")
    found = {}
    for places in ('{"red": 0, "lime": 1, "blue": 2}', '{"red": 1, "lime": 2, "blue": 0}'):
        (folder.parent / "color_places.py").write_text(f"def find():\n    return {places}\n", encoding="utf-8")
        for name in ("color_words", "color_places"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        sys.path_importer_cache.clear()
        code, results, messages = evaluate("color_words:embed", *choice)
        assert code == 0, messages
        found[results["fingerprint"]] = scores(results, "plain")["t2i", "en"]
    assert list(found.values()) == [1.0, 0.0], "vectors of the earlier words are not reused"


def test_two_towers_as_they_are_published(evaluate: Callable, published: Callable, tiny_clip: Path) -> None:
    code, results, messages = evaluate(str(tiny_clip), "--benchmark", "xtd10", "--data", str(published("xtd10")))
    assert code == 0, messages
    assert set(scores(results)) == {(task, language) for task in ("i2t", "t2i") for language in ("en", "de", "ja")}
    assert results["templates_hash"] == templates_hash(NO_INSTRUCTIONS)
    assert results["left_out"] == []


def test_instructions_can_be_left_away(evaluate: Callable, published: Callable) -> None:
    options = ("--benchmark", "cvqa", "--data", str(published("cvqa")), "--languages", "es", "--templates", "none")
    code, results, _ = evaluate("color_words:embed", *options, "--datasets", "translated")
    assert (code, results["templates_hash"]) == (0, templates_hash(NO_INSTRUCTIONS))
    assert scores(results) == {("vqa", "es-Mexico"): 1.0}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("color_words:embed", "--benchmark", "flickr", "--data", "."), 1, "no benchmark 'flickr'; there are mmmeb,"),
        (("color_words:embed", "--benchmark", "xm3600", "--data", "."), 2, "--data has no meaning for xm3600"),
        (("color_words:embed", "--benchmark", "xtd10"), 2, "--benchmark xtd10 needs --data"),
        (("color_words:embed", "--benchmark", "mteb:X", "--data", "."), 2, "--data has no meaning for mteb:X"),
        (("color_words:embed", "--benchmark", "xtd10", "--data", "xtd10", "--languages", "fr"), 1, "no language fr;"),
        (("color_words:embed", "--benchmark", "xtd10", "--data", "none"), 1, "there is no folder none"),
        (("color_words:broken", "--benchmark", "xtd10", "--data", "xtd10"), 1, "broken returned a vector with a NaN"),
        (("color_words:number", "--benchmark", "xtd10", "--data", "xtd10"), 1, "number is a int; it must be a func"),
        (("color_words:none", "--benchmark", "xtd10", "--data", "xtd10"), 1, "the module color_words has no none"),
        (("no_module:embed", "--benchmark", "xtd10", "--data", "xtd10"), 1, "no Python module no_module"),
        (("./none", "--benchmark", "xtd10", "--data", "xtd10"), 1, "there is no folder ./none"),
        (("color_words:embed", "--benchmark", "xtd10", "--data", "xtd10", "--dim", "2"), 1, "--dim cannot cut the"),
    ],
)  # fmt: skip
def test_mistakes(evaluate: Callable, published: Callable, arguments: tuple, code: int, message: str) -> None:
    published("xtd10")
    found, results, messages = evaluate(*arguments)
    assert (found, results) == (code, {})
    assert message in messages


@pytest.mark.slow
def test_the_built_in_emoji_world(evaluate: Callable) -> None:
    code, results, messages = evaluate(
        "color_words:embed", "--benchmark", "emoji", "--languages", "en,de", "--tasks", "c"
    )
    assert code == 0, messages
    assert {row["benchmark"] for row in results["rows"]} == {"emoji"}
    assert {row["language"] for row in results["rows"]} == {"en", "de"}
