"""Known faults of published data: found by rules and by hand, told, and scored both ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xvlm2vec.eval.benchmarks.faults import SHARED_LABEL, faulty_rows, without_faults
from xvlm2vec.eval.benchmarks.reading import read_benchmark
from xvlm2vec.eval.encoders import as_encoder
from xvlm2vec.eval.report.tables import fault_sentence
from xvlm2vec.eval.runner import evaluate


@pytest.mark.parametrize(
    ("names", "language", "text", "fault"),
    [
        (("XTD10", "xtd"), "de", "Could not translate", "the translator's excuse"),
        (("MMMEB", "xtd"), "de", "could not translate", "the translator's excuse"),
        (("XTD10", "xtd"), "de", "?", "no word"),
        (("Multi30k",), "de", "@@", "no word"),
        (("XTD10", "xtd"), "de", "mmmmmmmm", "no word"),
        (("XTD10", "xtd"), "de", "dfgdfg", "keys hit at random"),
        (("XTD10", "xtd"), "ru", "птица", "one or two words"),
        (
            ("XFlickr30kCoT2IRetrieval",),
            "ja",
            "黒と白の犬が、3白い柵で囲まれている、2草で覆われた庭",
            "numbers of entities",
        ),
        (("XFlickr30kCoT2IRetrieval",), "id", " ", "empty"),
        (("Tux Paint", "stamps"), "hi", "एक सेब |", "ends in |"),
    ],
)
def test_each_known_fault_is_found(names: tuple[str, ...], language: str, text: str, fault: str) -> None:
    assert faulty_rows(names, language, ["a whole caption", text], [[None], [None]]) == {fault: [1]}
    assert faulty_rows(names, language, [None, None], [["a whole caption"], ["fine", text]]) == {fault: [1]}


@pytest.mark.parametrize(
    ("names", "language", "text"),
    [
        (("XTD10", "xtd"), "es", "dos jirafas"),
        (("XTD10", "xtd"), "ru", "птица на дереве"),
        (("XFlickr30kCoT2IRetrieval",), "ja", "草原の中で2頭のヤギと６人が休憩している"),
        (("XFlickr30kCoT2IRetrieval",), "en", "a 3D puzzle"),
        (("Tux Paint", "stamps"), "de", "a | b |"),
        (("MMEB", "ChartQA"), "en", "1111"),
        (("anything",), "th", "นก"),
    ],
)
def test_what_is_no_fault(names: tuple[str, ...], language: str, text: str) -> None:
    assert faulty_rows(names, language, [text], [[text]]) == {}


def test_results_have_both_scores(published: Callable, color_model: Callable) -> None:
    folder = published("xtd10")
    path = folder / "xtd.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["captions"]["de"][1] = ["could not translate"]
    path.write_text(json.dumps(content), encoding="utf-8")
    tasks = read_benchmark("xtd10", folder, languages=["en", "de"])
    results = evaluate(as_encoder(color_model("en", "de")), tasks, progress=False)
    rows = {(row["task"], row["language"]): row for row in results.rows}
    assert "faults" not in rows["t2i", "en"]
    german = rows["t2i", "de"]
    assert (german["n"], german["faults"]) == (3, {"the translator's excuse": 1})
    assert german["p_at_1"] == pytest.approx((2 + 1 / 3) / 3)
    assert (german["without_faults"]["n"], german["without_faults"]["p_at_1"]) == (2, 1.0)
    assert rows["i2t", "de"]["faults"] == {"the translator's excuse": 1}, "its right answer is at fault"
    assert fault_sentence(results.rows) == (
        "Known faults of the data concern 2 rows, most in i2t de (the translator's excuse: 1): P@1 77.8, without them "
        "100.0."
    )
    dropped = evaluate(as_encoder(color_model("en", "de")), [t for x in tasks if (t := without_faults(x))],
                       progress=False)  # fmt: skip
    left = {(row["task"], row["language"]): row for row in dropped.rows}["t2i", "de"]
    assert (left["n"], left["p_at_1"], left["skipped"]) == (2, 1.0, 1)
    assert left["skipped_for"] == {"known faults of the data": 1}
    assert left["ndcg_at_10"] == german["without_faults"]["ndcg_at_10"]
    assert "without_faults" not in left


def test_labels_that_two_classes_share(published: Callable) -> None:
    tasks = {task.language: task for task in read_benchmark("babel-imagenet", published("babel-imagenet"))}
    assert tasks["de"].faults == {}
    assert tasks["es"].faults == {SHARED_LABEL: [0, 1, 6, 7]}, "two images of the first class, and of the last"


def test_the_command_drops_them(published: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from argparse import Namespace

    from xvlm2vec.flags.benchmarks import chosen_rows

    folder = published("xtd10")
    path = folder / "xtd.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["captions"]["de"] = [["could not translate"], ["?"], ["blau"]]
    path.write_text(json.dumps(content), encoding="utf-8")
    tasks = read_benchmark("xtd10", folder, languages=["de"])
    caplog.set_level("INFO")
    assert chosen_rows(Namespace(faults="keep"), tasks) is tasks
    assert "4 rows have known faults of the data, most of them (2) in XTD10/xtd/i2t/de/verbatim" in caplog.text
    assert [len(task.queries) for task in chosen_rows(Namespace(faults="drop"), tasks)] == [1, 1]
    content["captions"]["de"] = [["?"], ["!"], ["@@"]]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="every row has a known fault of the data"):
        chosen_rows(Namespace(faults="drop"), read_benchmark("xtd10", folder, languages=["de"]))
