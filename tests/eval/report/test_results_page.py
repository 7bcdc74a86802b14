"""The page of one result or two, from an evaluation of known models on drawn colors, opened in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from PIL import Image

from xvlm2vec.cli import main
from xvlm2vec.eval.benchmarks.list_rows import ranking_task
from xvlm2vec.eval.encoders import CallableEncoder
from xvlm2vec.eval.ranking import RankingTask
from xvlm2vec.eval.report.page import render_report, write_report
from xvlm2vec.eval.report.results_page import results_page
from xvlm2vec.eval.report.tables import as_markdown, as_text, size_table
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.runner import Extras, evaluate
from xvlm2vec.eval.sizes import size_summary

LEVELS = (0, 96, 176, 255)
COLORS = {f"{r} {g} {b}": (r, g, b) for r in LEVELS for g in LEVELS for b in LEVELS if max(r, g, b)}
IMAGES = {name: Image.new("RGB", (40, 40), color) for name, color in COLORS.items()}
CODES = ("en", "de", "ar")
TEMPLATES = {
    "i2t": {code: {"query": "?"} for code in CODES},
    "t2i": {code: {"query": "{text}", "target": "?"} for code in CODES},
}


def tasks(codes: tuple[str, ...] = CODES, dataset: str = "colors") -> list[RankingTask]:
    names = list(COLORS)
    found = []
    for code in codes:
        texts = [f"{code} {name}" for name in names]
        shifted = [np.roll(np.arange(len(names)), -i) for i in range(len(names))]
        for task, columns in {
            "i2t": {"img": names, "captions": [[texts[i] for i in row] for row in shifted]},
            "t2i": {"text": texts, "images": [[names[i] for i in row] for row in shifted]},
        }.items():
            if task == "t2i" or code != "ar":  # one cell of the table stays empty
                rows = pa.table(columns)
                found.append(ranking_task(rows, IMAGES, TEMPLATES, task=task, language=code, dataset=dataset))
    return found


def encoder(name: str, noise: dict[str, float]) -> CallableEncoder:
    """Reads the color off an image or a text; texts of a language are blurred by its noise."""
    blur = np.random.default_rng(0).normal(size=(len(COLORS), 16))
    project = np.random.default_rng(1).normal(size=(3, 16))

    def embed(texts: list, images: list) -> np.ndarray:
        rows = []
        for text, image in zip(texts, images, strict=True):
            if image is not None:
                code, color = "", np.asarray(image)[0, 0]
            else:
                code, _, color_name = text.partition(" ")
                color = np.array(COLORS[color_name])
            wave = np.sin((color / 60.0) @ project)
            place = list(COLORS.values()).index(tuple(int(v) for v in color))
            rows.append(wave + noise.get(code, 0.0) * blur[place])
        return np.array(rows)

    return CallableEncoder(embed, name=name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("scores")
    extras = Extras(failures=3, image_size=32, dims=(8,), precisions=("int8", "binary"))
    for name, noise in (("teacher", {"de": 1.0, "ar": 3.0}), ("student", {"de": 0.05, "ar": 1.0})):
        evaluate(encoder(name, noise), tasks(), progress=False, extras=extras).save(root / name)
    return root / "teacher", root / "student"


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> tuple[Results, Results]:
    return Results.load(folders[0]), Results.load(folders[1])


def test_saved_results_hold_everything(folders: tuple[Path, Path], pair: tuple[Results, Results]) -> None:
    content = json.loads((folders[1] / "results.json").read_text())
    assert content["sizes"]["summary"][0]["loss_by_language"].keys() == set(CODES)
    assert {(row["dim"], row["precision"]) for row in content["sizes"]["rows"]} == {
        (16, "int8"), (16, "binary"), (8, "float32"), (8, "int8"), (8, "binary"),
    }  # fmt: skip
    german = next(row for row in content["rows"] if row["task"] == "t2i" and row["language"] == "de")
    assert set(german["alignment"]) == {
        "n", "translation_accuracy", "cka", "language_bias", "language_bias_chance", "modality_gap", "hubness",
    }  # fmt: skip
    shown = {name for item in content["examples"] for part in (item["query"], item["gold"], *item["top"])
             for name in part.get("images", ())}  # fmt: skip
    assert shown == {path.name for path in (folders[1] / "images").iterdir()} == set(pair[1].images)
    stray = folders[1] / "images" / "0123456789abcdef.webp"
    stray.write_bytes(b"of an earlier evaluation")
    again = Results.load(folders[1] / "results.json")
    stray.unlink()
    assert (again, again.images) == (pair[1], pair[1].images)


def test_failures_are_among_the_examples(pair: tuple[Results, Results]) -> None:
    student = pair[1]
    for code, missed in (("en", 0), ("ar", 3)):
        chosen = [item for item in student.examples if item["language"] == code and item["task"] == "t2i"]
        extra = [item for item in chosen if not item["drawn"]]
        assert len(chosen) == 3 + len(extra)
        assert len(extra) == missed
        assert all(item["rank"] > 1 and item["top"][0]["id"] not in item["golds"] for item in extra)


def test_two_models_side_by_side(pair: tuple[Results, Results]) -> None:
    data = results_page(pair[1], pair[0])
    assert data.title == "student beside teacher"
    assert [lang.code for lang in data.languages] == ["en", "ar", "de"]
    assert set(data.scores["student"]["i2t"]) == {"en", "de"}
    change = data.changes["t2i"]["de"]
    assert change["difference"] == pytest.approx(pair[1].scores()["t2i"]["de"] - pair[0].scores()["t2i"]["de"])
    assert change["p_value"] < 0.01
    assert data.changes["t2i"]["en"]["difference"] == 0
    translations = next(measure for measure in data.measures if measure.name == "Translations found")
    assert translations.values[0]["ar"] < translations.values[1]["ar"]
    known = [example for example in data.examples if example.lang == "ar" and not example.teacher]
    assert all(example.teacher_rank for example in known)
    page = render_report(data)
    assert "What changed" in page
    assert "Smaller vectors" in page
    assert "not part of the benchmark" in page


def test_one_model(pair: tuple[Results, Results]) -> None:
    page = render_report(results_page(pair[1]))
    assert "What changed" not in page
    assert "is at 100.0%" in page
    assert "before" not in re.sub(r"<style>.*?</style>|<script.*?</script>", "", page, flags=re.S).lower()


def test_without_english_there_is_no_gap() -> None:
    results = evaluate(encoder("m", {}), tasks(("de", "ar")), progress=False)
    page = render_report(results_page(results))
    assert "The gap to English" not in page
    assert "2 scored languages is" in page


def test_nothing_in_common(pair: tuple[Results, Results]) -> None:
    other = evaluate(encoder("m", {}), tasks(dataset="others"), progress=False)
    with pytest.raises(ValueError, match="m and student have no task in common"):
        results_page(pair[1], other)
    with pytest.raises(ValueError, match="empty has no rows"):
        results_page(Results("empty"))


def test_command(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "pages" / "report.html"
    assert main(["report", *map(str, folders), "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert f"Wrote {page}" in shown
    assert "| language | i2t | t2i |" in shown
    assert page.stat().st_size < 3_000_000
    with pytest.raises(SystemExit):
        main(["report", *map(str, (*folders, folders[0])), "--html", str(page)])
    assert "one or two results, not 3" in capsys.readouterr().err


def test_changes_as_a_table(folders: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["report", *map(str, folders)]) == 0
    changed = capsys.readouterr().out.split("## What changed")[1].split("## Smaller")[0]
    rows = {line.split(" | ")[0]: line for line in changed.splitlines()}
    assert rows["| en"] == "| en | +0.0 (p = 1.000) | +0.0 (p = 1.000) |"
    assert re.fullmatch(r"\| de \| \+[\d.]+ \(p < 0.001\) \| \+[\d.]+ \(p < 0.001\) \|", rows["| de"])
    assert rows["| ar"].startswith("| ar | - | +")


def test_entries_for_the_hub(folders: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(folders[1]), "--eval-results", "acme/colors"]) == 0
    entries = parse_eval_result_entries(yaml.safe_load(capsys.readouterr().out))
    assert {entry.task_id for entry in entries} == {"i2t_en", "t2i_en", "i2t_de", "t2i_de", "t2i_ar"}
    assert {entry.dataset_id for entry in entries} == {"acme/colors"}
    assert next(entry.value for entry in entries if entry.task_id == "t2i_en") == 100.0


@pytest.mark.browser
def test_in_a_browser(browser, pair: tuple[Results, Results], tmp_path: Path) -> None:
    browser.get(write_report(results_page(pair[1], pair[0]), tmp_path / "two.html").as_uri())
    assert [cell.text for cell in browser.find_elements("css selector", "#changes tbody td.none")] == ["–"]
    sizes = browser.find_elements("css selector", "#sizes thead th")
    assert [cell.text.split("\n") for cell in sizes[1:3]] == [["8", "float32", "32"], ["16", "int8", "16"]]
    browser.find_element("css selector", '#pick-lang [data-value="ar"]').click()
    browser.find_element("css selector", '#pick-task [data-value="t2i"]').click()
    browser.find_element("css selector", '#pick-show [data-value="wrong"]').click()
    cards = browser.find_elements("css selector", "#example-list article")
    assert len(cards) >= 3
    for card in cards:
        images = card.find_elements("css selector", "img")
        assert len(images) >= 6
        assert all(browser.execute_script("return arguments[0].naturalWidth", image) == 32 for image in images)
        assert "right answer at rank" in card.text
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_one_model_in_a_browser(browser, pair: tuple[Results, Results], tmp_path: Path) -> None:
    browser.get(write_report(results_page(pair[1]), tmp_path / "one.html").as_uri())
    assert len(browser.find_elements("css selector", "#scores table")) == 1
    assert len(browser.find_elements("css selector", "#example-list article .side")) >= 3
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []


def test_sizes_as_tables(pair: tuple[Results, Results]) -> None:
    table = size_table(pair[1])
    assert table.header[1:3] == ["8 float32 (32 bytes)", "16 int8 (16 bytes)"]
    assert [row[0] for row in table.rows] == ["en", "de", "ar", "P@1"]
    loss = next(entry for entry in size_summary(pair[1].sizes) if entry["precision"] == "binary" and entry["dim"] == 16)
    assert table.rows[1][table.header.index("16 binary (2 bytes)")] == f"{-100 * loss['loss_by_language']['de']:+.1f}"
    assert "| ar | " in as_markdown(table)
    assert as_text(table, 200).splitlines()[-1].startswith("Points of P@1")
    with pytest.raises(ValueError, match="evaluate with --dims"):
        size_table(Results("m"))


def test_results_with_nothing_but_what_the_format_asks_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = {"benchmark": "M", "dataset": "xm", "task": "t2i", "style": "plain"}
    rows = [{**names, "language": code, "n": 10, "p_at_1": 0.5, "ci95": [0.2, 0.8]} for code in ("en", "de")]
    (tmp_path / "results.json").write_text(json.dumps({"model": "m", "rows": rows}))
    for options in ([], ["--metric", "mrr"], ["--yaml"], ["--eval-results", "a/b"]):
        assert main(["report", str(tmp_path), *options]) == 0
    shown = capsys.readouterr().out
    assert "| de | 50.0 [20.0, 80.0] |" in shown
    assert "| mean | - |" in shown
    assert "ties shared evenly\n" in shown
    assert main(["report", str(tmp_path), str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
