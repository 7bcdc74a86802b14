"""The published metrics, loaded by `evaluate` from a folder: closed forms, and agreement with ours."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from xvlm2vec.eval import metrics
from xvlm2vec.eval.publish_metrics import MODULES, push_metric_module, write_metric_module

evaluate = pytest.importorskip("evaluate")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("modules")
    return {name: evaluate.load(str(write_metric_module(name, folder))) for name in MODULES}


@pytest.mark.parametrize("k", [1, 2, 5])
def test_hit_at_k(loaded: dict, k: int) -> None:
    hit = loaded["hit_at_k"]
    assert hit.compute(predictions=[[0.9, 0.1], [0.5, 0.5]], references=[0, 1]) == {"hit_at_k": 0.75, "n": 2, "tied": 1}
    rng = np.random.default_rng(k)
    lists = [rng.integers(0, 4, size=rng.integers(2, 9)).astype(float) for _ in range(50)]
    places = [int(rng.integers(len(scores))) for scores in lists]
    above = [int((scores > scores[place]).sum()) for scores, place in zip(lists, places, strict=True)]
    level = [int((scores == scores[place]).sum()) for scores, place in zip(lists, places, strict=True)]
    found = hit.compute(predictions=lists, references=places, k=k)
    hits = [np.mean([a + i < k for i in range(n)]) for a, n in zip(above, level, strict=True)]
    assert found["hit_at_k"] == pytest.approx(np.mean(hits))
    assert found["tied"] == sum(n > 1 for n in level)


def test_mean_rank_variance(loaded: dict) -> None:
    module = loaded["mean_rank_variance"]
    assert module.compute(predictions=[[0, 2], [5, 5]]) == {"mrv_std": 0.5, "mrv_var": 0.5, "n": 2}
    ranks = np.random.default_rng(0).integers(0, 50, size=(40, 5))
    expected = metrics.mean_rank_variance(ranks.T)
    assert module.compute(predictions=ranks.tolist()) == {**{k: pytest.approx(v) for k, v in expected.items()}, "n": 40}


def test_parity_gap(loaded: dict) -> None:
    module = loaded["parity_gap"]
    found = module.compute(predictions=[1, 1, 1, 0, 1], references=["en", "en", "de", "de", "it"])
    assert found == {"parity_gap": {"de": 0.5, "it": 0.0}, "widest": 0.5, "widest_language": "de", "mean": 0.25}
    assert found["parity_gap"] == metrics.parity_gap({"en": 1.0, "de": 0.5, "it": 1.0})
    assert module.compute(predictions=[1, 0], references=["en", "de"], reference_language="de")["widest"] == -1


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("hit_at_k", {"predictions": [[]], "references": [0]}, "row 0: .* not among its 0"),
        ("hit_at_k", {"predictions": [[1.0, 2.0]], "references": [2]}, "row 0: the right candidate 2"),
        ("hit_at_k", {"predictions": [[1.0, float("nan")]], "references": [0]}, "row 0: a score is not a number"),
        ("hit_at_k", {"predictions": [[1.0]], "references": [0], "k": 0}, "k must be 1"),
        ("mean_rank_variance", {"predictions": [[1, 2], [1]]}, "one rank per language"),
        ("parity_gap", {"predictions": [1, 1], "references": ["de", "it"]}, "need rows in 'en'"),
    ],
)
def test_bad_input(loaded: dict, name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loaded[name].compute(**arguments)


@pytest.mark.parametrize("name", MODULES)
def test_a_folder_stands_alone(name: str, tmp_path: Path) -> None:
    folder = write_metric_module(name, tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.py",
        "metrics.py",
        "README.md",
        "app.py",
        "requirements.txt",
    }
    modules = {
        module
        for file in (f"{name}.py", "metrics.py")
        for node in ast.walk(ast.parse((folder / file).read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
        for module in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    third_party = {module.split(".")[0] for module in modules} - sys.stdlib_module_names
    assert third_party == {"datasets", "evaluate", "numpy"}
    with pytest.raises(FileExistsError, match="there already"):
        write_metric_module(name, tmp_path)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose from hit_at_k"):
        write_metric_module("bleu", tmp_path)
    with pytest.raises(ValueError, match="must be named 'hit_at_k'"):
        push_metric_module("hit_at_k", "someone/other")
