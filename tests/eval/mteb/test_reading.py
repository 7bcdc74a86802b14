"""mteb's real tasks on made data, embedded and scored by the runner, against mteb itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mteb = pytest.importorskip("mteb")

from xvlm2vec import cli  # noqa: E402
from xvlm2vec.common.store import content_digest  # noqa: E402
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS, instructions  # noqa: E402
from xvlm2vec.eval.causes import item_texts  # noqa: E402
from xvlm2vec.eval.encoders import as_encoder  # noqa: E402
from xvlm2vec.eval.mteb.models import EncoderForMteb  # noqa: E402
from xvlm2vec.eval.mteb.reading import read_mteb  # noqa: E402
from xvlm2vec.eval.runner import Extras, evaluate  # noqa: E402

XM3600 = ("XM3600T2IRetrieval", "XM3600I2TRetrieval")


@pytest.mark.parametrize("name", [*XM3600, "WITT2IRetrieval", "WITI2TRetrieval", "VDRMultilingualRetrieval",
                                  "MIRACLVisionRetrieval"])  # fmt: skip
def test_the_runner_scores_as_mteb_does(made_task: Callable, vectors: Callable, name: str) -> None:
    templates = instructions() if name == "XM3600T2IRetrieval" else NO_INSTRUCTIONS
    encoder = as_encoder(vectors, name="noisy")
    here = evaluate(encoder, read_mteb([made_task(name)], templates), progress=False)
    model = EncoderForMteb(encoder, templates)
    there = mteb.evaluate(model, made_task(name), cache=None, show_progress_bar=False, co2_tracker=False)
    (by_subset,) = there.task_results[0].scores.values()
    theirs = {scores["hf_subset"]: scores for scores in by_subset}
    assert len(here.rows) == len(theirs) >= 2
    for row in here.rows:
        scores = theirs[row["language"]]
        pairs = (("ndcg_at_10", "exact_ndcg"), ("r_at_5", "exact_r5"), ("r_at_10", "exact_r10"))
        for ours, exact in pairs:
            assert row[ours] == pytest.approx(scores[exact], abs=1e-6), ours
        assert row["main_score"]["value"] == pytest.approx(scores["main_score"], abs=6e-6), "mteb rounds it"
        assert row["mrr"] == pytest.approx(scores["mrr_at_1000"], abs=1e-6)
    assert 0.1 < np.mean([row["ndcg_at_10"] for row in here.rows]) < 0.99


def test_each_image_and_text_is_embedded_once(made_task: Callable, vectors: Callable) -> None:
    images: list[bytes] = []
    texts: list[str] = []

    def counted(some: list, shown: list) -> np.ndarray:
        images.extend(content_digest(image) for image in shown if image is not None)
        texts.extend(text for text, image in zip(some, shown, strict=True) if image is None)
        return vectors(some, shown)

    tasks = read_mteb([made_task(name) for name in XM3600], NO_INSTRUCTIONS)
    results = evaluate(as_encoder(counted), tasks, progress=False, extras=Extras(dims=(8,), precisions=("int8",)))
    assert len(images) == len(set(images)) == 14, "in three languages and both directions"
    assert len(texts) == len(set(texts)) == 3 * (2 * 14 - 3), "of 28 captions in a language three occur twice"
    rows = {(row["task"], row["language"]): row for row in results.rows}
    assert set(rows) == {(task, language) for task in ("t2i", "i2t") for language in ("de", "en", "mi")}
    assert rows["t2i", "en"]["n"] == 28, "a caption that an image has twice is two queries"
    summaries = {summary["task"]: summary for summary in results.summaries()}
    assert (summaries["t2i"]["mrv_n"], summaries["i2t"]["mrv_n"]) == (28, 14)
    assert rows["i2t", "mi"]["alignment"]["n"] == 14
    assert {size["precision"] for size in results.sizes} == {"float32", "int8"}


def test_ids_of_other_sets_do_not_name_the_same_items(made_task: Callable, vectors: Callable) -> None:
    results = evaluate(as_encoder(vectors), read_mteb([made_task("VDRMultilingualRetrieval")]), progress=False)
    assert all("mrv_n" not in summary for summary in results.summaries())
    assert all(row["parallel"] is False for row in results.rows)


def test_level_documents_share_the_first_place(made_task: Callable) -> None:
    def constant(texts: list, images: list) -> np.ndarray:
        return np.ones((len(texts), 2))

    results = evaluate(as_encoder(constant), read_mteb([made_task(XM3600[1])]), progress=False)
    for row in results.rows:
        assert row["p_at_1"] == pytest.approx(1 / 27), "two of 28 captions are right, and the better one competes"
        assert row["r_at_5"] == pytest.approx(5 / 28)
        assert row["ndcg_at_10"] == pytest.approx(sum(1 / np.log2(2 + np.arange(10))) * 2 / 28 / (1 + 1 / np.log2(3)))
        assert row["ties"] == 14


def test_right_documents_that_are_nowhere_are_told(
    made_task: Callable, vectors: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    results = evaluate(as_encoder(vectors), read_mteb([made_task("MIRACLVisionRetrieval")]), progress=False)
    assert caplog.text.count("2 right documents are no candidates; they count as not found") == 2
    assert [row["n"] for row in results.rows] == [7, 7], "the query whose page is nowhere stays in the mean"
    hits = next(iter(results.per_row.values())).hits
    assert hits[6] == 0
    assert all(example["row"] != 6 for example in results.examples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: setattr(task, "skip_first_result", True), "has the rule skip_first_result, .*--through mteb"),
        (
            lambda task: setattr(task, "load_data", lambda: {}["captions"]),
            r"XM3600I2TRetrieval: the loader of mteb .* stumbled \(KeyError\('captions'\)\).* another release",
        ),
        (lambda task: task.dataset.clear(), "subset de, split test: mteb .* gives no queries, corpus, relevant_docs"),
        (lambda task: task.dataset["de"]["test"].pop("corpus"), "gives no corpus in the form that is known here"),
        (
            lambda task: task.dataset["de"]["test"].update(
                corpus=task.dataset["de"]["test"]["corpus"].map(lambda row: {"id": "same"})
            ),
            "XM3600I2TRetrieval/de: corpus has the id 'same' 28 times",
        ),
    ],
)
def test_what_the_runner_cannot_score(made_task: Callable, change: Callable, message: str) -> None:
    task = made_task(XM3600[1])
    task.load_data()
    change(task)
    with pytest.raises(ValueError, match=message):
        read_mteb([task])


MODEL = """
import numpy as np
CALLS = []

def embed(texts, images):
    CALLS.extend(texts)
    seeds = [[len(t or ""), *(t or "").encode()[-8:]] if p is None else [int(np.asarray(p)[0, 0, 0])]
             for t, p in zip(texts, images)]
    return np.array([np.random.default_rng(seed).normal(size=8) for seed in seeds])

embed.fingerprint = "1"

def other(texts, images):
    return embed(texts, images) + 0.1

other.fingerprint = "2"
"""


def test_the_command_has_all_extras_and_resumes(
    made_task: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in XM3600:
        made_task(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_model", raising=False)
    (tmp_path / "made_model.py").write_text(MODEL, encoding="utf-8")
    arguments = ["evaluate", "made_model:embed", "--benchmark", "xm3600", "--languages", "en,mi", "--output", "out"]
    extras = ["--dims", "4", "--precision", "int8", "--drift-from", "made_model:other"]
    assert cli.main([*arguments, *extras]) == 0
    results: dict[str, Any] = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(row["dataset"], row["language"]) for row in results["rows"]} == {
        (name, language) for name in XM3600 for language in ("en", "mi")
    }
    assert results["versions"]["mteb"] == mteb.__version__
    assert len(results["sizes"]["summary"]) == 3
    english = [row for row in results["rows"] if row["language"] == "en"]
    assert all(row["alignment"]["english_drift"] > 0 for row in english)
    calls = sys.modules["made_model"].CALLS
    before = len(calls)
    assert cli.main(arguments) == 0
    assert len(calls) == before, "everything was in the store"
    assert cli.main([*arguments, "--through", "mteb", "--output", "mteb"]) == 0
    theirs = json.loads((tmp_path / "mteb" / "results.json").read_text())
    ours = {(row["task"], row["language"]): row["ndcg_at_10"] for row in results["rows"]}
    for row in theirs["rows"]:
        assert ours[row["task"], row["language"]] == pytest.approx(row["ndcg_at_10"], abs=6e-6)
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--through", "mteb", *extras])
    assert "with --through mteb, mteb runs xm3600 by itself; --dims has no meaning" in capsys.readouterr().err


def test_faults_of_graded_tasks_are_scored_both_ways(made_task: Callable, vectors: Callable) -> None:
    task = made_task(XM3600[1])
    task.load_data()
    data = task.dataset["en"]["test"]

    def translated(row: dict[str, Any]) -> dict[str, Any]:
        return {"text": "could not translate 0" if row["id"].startswith("corpus-00-") else row["text"]}

    data["corpus"] = data["corpus"].map(translated)
    results = evaluate(as_encoder(vectors), read_mteb([task], NO_INSTRUCTIONS), progress=False)
    row = next(row for row in results.rows if row["language"] == "en")
    assert (row["n"], row["faults"]) == (14, {"the translator's excuse": 1})
    assert row["without_faults"]["n"] == 13
    data["relevant_docs"] = {name: right for name, right in data["relevant_docs"].items() if name != "query-00"}
    others = evaluate(as_encoder(vectors), read_mteb([task], NO_INSTRUCTIONS), progress=False)
    alone = next(row for row in others.rows if row["language"] == "en")
    for name in ("p_at_1", "r_at_5", "r_at_10", "ndcg_at_10", "mrr"):
        assert row["without_faults"][name] == pytest.approx(alone[name]), name


def test_texts_are_looked_at_without_their_instructions(made_task: Callable) -> None:
    for task in read_mteb([made_task("XM3600T2IRetrieval")], instructions()):
        assert [text for _, text in item_texts(task)] == task.asked.texts
        assert all(row.text != text for row, text in zip(task.queries, task.asked.texts, strict=True))
