"""The whole way with a real encoder: rows, embeddings, scores, files, tables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from PIL import Image

from xvlm2vec.eval.benchmarks.list_rows import ranking_task
from xvlm2vec.eval.encoders import CallableEncoder
from xvlm2vec.eval.ranking import RankingTask
from xvlm2vec.eval.report.tables import eval_results, markdown_table, score_table, terminal_table
from xvlm2vec.eval.results import FILE, PER_ROW, PerRow, Results, ResultsError, row_key
from xvlm2vec.eval.runner import Extras, evaluate

COLORS = ["red", "lime", "blue", "yellow", "cyan", "magenta"]
WORDS = {"en": COLORS, "de": ["rot", "grün", "blau", "gelb", "türkis", "lila"]}
TEMPLATES = {
    "i2t": {language: {"query": "?"} for language in WORDS},
    "t2i": {language: {"query": "{text}", "target": "?"} for language in WORDS},
}
IMAGES = {color: Image.new("RGB", (3, 3), color) for color in COLORS}


def make_tasks(dataset: str = "colors") -> list[RankingTask]:
    found = []
    for language, words in WORDS.items():
        others = [[*COLORS[i:], *COLORS[:i]] for i in range(6)]
        named = [[words[COLORS.index(color)] for color in row] for row in others]
        texts = [*words[:4], None, words[5]] if language == "de" else words
        for task, columns in {
            "i2t": {"img": COLORS, "captions": named},
            "t2i": {"text": texts, "images": others},
        }.items():
            rows = pa.table(columns)
            found.append(ranking_task(rows, IMAGES, TEMPLATES, task=task, language=language, dataset=dataset))
    return found


def color_encoder(*languages: str) -> CallableEncoder:
    """Knows the words of some languages; any other text is a zero vector, level with everything."""
    known = {word: color for language in languages for word, color in zip(WORDS[language], COLORS, strict=True)}

    def embed(texts: list[str | None], images: list[Image.Image | None]) -> np.ndarray:
        image_list = [image or IMAGES.get(known.get(text or "", "")) for text, image in zip(texts, images, strict=True)]
        return np.array([np.asarray(p)[0, 0] - 127.5 if p else np.zeros(3) for p in image_list])

    return CallableEncoder(embed, name="-".join(languages))


@pytest.fixture(scope="module")
def teacher() -> Results:
    return evaluate(color_encoder("en"), make_tasks(), progress=False)


@pytest.fixture(scope="module")
def student() -> Results:
    return evaluate(color_encoder("en", "de"), make_tasks(), progress=False)


def test_scores(teacher: Results, student: Results) -> None:
    assert teacher.scores() == {task: {"en": 1.0, "de": pytest.approx(1 / 6)} for task in ("i2t", "t2i")}
    assert student.scores() == {task: {"en": 1.0, "de": 1.0} for task in ("i2t", "t2i")}
    row = teacher.select(task="t2i", language="de")[0]
    assert (row["n"], row["skipped"], row["ties"]) == (5, 1, 5)
    assert row["r_at_5"] == pytest.approx(5 / 6)
    assert row["mrr"] == pytest.approx(np.mean([1 / rank for rank in range(1, 7)]))
    assert row["ci95"] == [pytest.approx(1 / 6), pytest.approx(1 / 6)]


def test_summaries(teacher: Results) -> None:
    t2i = next(summary for summary in teacher.summaries() if summary["task"] == "t2i")
    assert t2i["parity_gap"] == {"de": pytest.approx(5 / 6)}
    assert t2i["mrv_n"] == 5
    assert t2i["mrv_std"] == pytest.approx(1.25)  # ranks 0 and 2.5


def test_rank_variance_pairs_items_by_their_ids(teacher: Results) -> None:
    rows = [{**row, "dataset": "other"} for row in teacher.rows if row["task"] == "i2t"]
    values = [([0, 1, 2], [0.0, 1.0, 2.0]), ([2, 0], [4.0, 0.0])]
    results = Results("m", rows=rows)
    for row, (ids, ranks) in zip(rows, values, strict=True):
        results.per_row[row_key(row)] = PerRow(np.array(ids), np.zeros(len(ids)), np.array(ranks))
    summary = results.summaries()[0]
    assert (summary["mrv_n"], summary["mrv_std"], summary["mrv_var"]) == (2, 0.5, 0.5)


def test_examples_show_the_same_items_in_every_language(teacher: Results) -> None:
    english, german = (
        [e for e in teacher.examples if e["task"] == "i2t" and e["language"] == language] for language in ("en", "de")
    )
    assert [e["row"] for e in english] == [e["row"] for e in german]
    assert len(english) == 3
    assert all(e["top"][0]["text"] == e["gold"]["text"] and len(e["top"]) == 5 for e in english)
    assert english[0]["query"]["image"] == COLORS[english[0]["row"]]


def test_paired_comparison(teacher: Results, student: Results) -> None:
    found = {(row["task"], row["language"]): row for row in teacher.compare(student)}
    assert found["i2t", "en"]["p_value"] == 1
    assert found["i2t", "de"]["difference"] == pytest.approx(5 / 6)
    assert found["i2t", "de"]["p_value"] == pytest.approx(2 / 64, abs=0.01)
    with pytest.raises(ValueError, match="no task has values of single rows"):
        teacher.compare(Results("other"))


def test_saved_and_loaded(teacher: Results, tmp_path: Path) -> None:
    path = teacher.save(tmp_path)
    again = Results.load(tmp_path)
    assert again == teacher
    assert again.compare(teacher)[0]["difference"] == 0
    content = json.loads(path.read_text())
    assert content["model"] == "en"
    assert content["templates_hash"] == teacher.rows[0]["templates"]
    assert set(content["rows"][0]) >= {"benchmark", "dataset", "task", "language", "style", "n", "p_at_1", "ci95"}
    assert not list(tmp_path.glob("*.tmp"))


def test_same_seed_same_file(tmp_path: Path) -> None:
    first, second = (evaluate(color_encoder("en"), make_tasks(), seed=5, progress=False) for _ in range(2))
    assert first.rows == second.rows
    assert first.examples == second.examples


def test_with_a_store(tmp_path: Path, student: Results) -> None:
    for _ in range(2):
        found = evaluate(color_encoder("en", "de"), make_tasks(), store=tmp_path, progress=False)
        assert found.rows == student.rows


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match="no tasks"):
        evaluate(color_encoder("en"), [])
    with pytest.raises(ValueError, match="two tasks have the name MMMEB/colors/i2t/de/plain"):
        evaluate(color_encoder("en"), make_tasks() + make_tasks())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("rows"), 'a list "rows"'),
        (lambda content: content["rows"][1].pop("p_at_1"), "row 1 lacks p_at_1"),
        (lambda content: content["rows"][0].update(p_at_1=71.2), "row 0: p_at_1 is a fraction"),
        (lambda content: content["rows"][0].update(n="6"), "row 0: n must be a number"),
        (lambda content: content["rows"][0].update(ci95=[1]), "row 0: ci95"),
        (lambda content: content["rows"].append(content["rows"][0]), "occurs more than once"),
    ],
)
def test_damaged_results(teacher: Results, tmp_path: Path, change, message: str) -> None:
    path = teacher.save(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=message):
        Results.load(path)


def test_missing_and_torn_results(teacher: Results, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ResultsError, match="there is no results file"):
        Results.load(tmp_path)
    teacher.save(tmp_path)
    (values,) = tmp_path.glob(f"{PER_ROW}-*.npz")
    named = json.loads((tmp_path / FILE).read_text())
    (tmp_path / f"{PER_ROW}.npz").write_bytes(values.read_bytes())
    (tmp_path / FILE).write_text(json.dumps({name: value for name, value in named.items() if name != PER_ROW}))
    assert set(Results.load(tmp_path).per_row) == set(teacher.per_row), "results that name no file"
    (tmp_path / FILE).write_text(json.dumps(named))
    values.write_bytes(b"PK torn")
    with pytest.raises(ResultsError, match=f"{values.name} is damaged"):
        Results.load(tmp_path)
    values.unlink()
    assert Results.load(tmp_path).per_row == {}
    assert f"{values.name} is missing: no paired tests" in caplog.text
    (tmp_path / FILE).write_text('{"model": ')
    with pytest.raises(ResultsError, match="no valid JSON"):
        Results.load(tmp_path)


def test_a_kill_between_two_files_leaves_the_earlier_results_whole(
    teacher: Results, student: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher.save(tmp_path)
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == FILE:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            student.save(tmp_path)
    kept = Results.load(tmp_path)
    assert kept == teacher
    for key, value in teacher.per_row.items():
        np.testing.assert_array_equal(kept.per_row[key].hits, value.hits)
    student.save(tmp_path)
    assert Results.load(tmp_path) == student
    assert len(list(tmp_path.glob("*.npz"))) == 1, "nothing is left of the earlier ones"


def test_tables(teacher: Results, student: Results) -> None:
    table = score_table(student, teacher)
    assert table.header == ["language", "i2t", "t2i"]
    assert table.rows[1][:2] == ["de", "16.7 -> 100.0 [100.0, 100.0]"]
    assert table.rows[2] == ["mean", "58.3 -> 100.0", "58.3 -> 100.0"]
    assert table.notes[1] == "Rows left out for want of a query text: 1; rows tied: 0 of 23."
    markdown = markdown_table(student, teacher).splitlines()
    assert markdown[:2] == ["| language | i2t | t2i |", "| --- | ---: | ---: |"]
    assert len({line.count("|") for line in markdown[:5]}) == 1
    with pytest.raises(ValueError, match="unknown metric 'hits'"):
        score_table(student, metric="hits")
    with pytest.raises(ValueError, match="no rows"):
        score_table(Results("m"))


@pytest.mark.parametrize("width", [40, 200])
def test_terminal_table_fits(student: Results, teacher: Results, width: int) -> None:
    blocks = terminal_table(student, teacher, width=width).split("\n\n")
    assert len(blocks) == (3 if width == 40 else 2)
    for block in blocks[:-1]:
        lines = block.splitlines()
        assert all(len(line) <= max(width, 40) and line.isascii() for line in lines)
        assert lines[1] == "-" * len(lines[1])


def test_columns_name_what_varies(student: Results) -> None:
    two = Results("m", rows=[*student.rows, *({**row, "dataset": "more"} for row in student.rows)])
    assert score_table(two).header == ["language", "i2t colors", "t2i colors", "i2t more", "t2i more"]


def test_model_index(student: Results) -> None:
    entries = eval_results(student)
    assert len(entries) == 8
    assert (entries[0].metric_type, entries[0].metric_value) == ("precision_at_1", 100.0)
    assert len({(e.dataset_name, e.metric_type) for e in entries}) == 8
    index = eval_results_to_model_index("student", entries)
    assert [(len(one["metrics"]), one["dataset"]["config"]) for one in index[0]["results"]] == [
        (2, f"{task}_{language}") for language in ("en", "de") for task in ("i2t", "t2i")
    ]
    assert model_index_to_eval_results(index)[1] == entries, "no task's scores stand under another's name"


def test_a_plain_function_is_a_model(tmp_path: Path) -> None:
    function = color_encoder("en").function
    results = evaluate(function, make_tasks(), progress=False, extras=Extras(drift_from=function))
    assert results.model == "embed"
    assert [row["p_at_1"] for row in results.rows] == [row["p_at_1"] for row in evaluate(
        color_encoder("en"), make_tasks(), progress=False).rows]  # fmt: skip
    assert results.rows[0]["alignment"]["english_drift"] == pytest.approx(0, abs=1e-6)
