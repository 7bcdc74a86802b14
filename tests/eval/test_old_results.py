"""Results as an earlier version wrote them: copies of images in `pictures/`, the cosine as `english_drift`."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import pytest
from PIL import Image

from xvlm2vec.cli import main
from xvlm2vec.eval.report.results_page import results_page
from xvlm2vec.eval.results import Results


def old_folder(folder: Path) -> Path:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "WEBP")
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "red.webp").write_bytes(buffer.getvalue())
    names = {"benchmark": "B", "dataset": "d", "task": "i2t", "language": "en", "style": "verbatim"}
    shown = {"text": None, "image": "1", "pictures": ["red.webp"]}
    answer = {"id": 0, "text": "red", "image": None}
    row = {**names, "n": 2, "p_at_1": 0.5, "ci95": [0.0, 1.0]}
    row["alignment"] = {"english_drift": 0.98, "english_drift_min": 0.9}
    example = {**names, "row": 0, "drawn": True, "rank": 1.0, "query": shown, "gold": answer, "golds": [0],
               "top": [answer | {"score": 1.0}]}  # fmt: skip
    content = {"model": "m", "fingerprint": "", "rows": [row], "examples": [example]}
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_an_old_folder_is_read(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match=r"results\.json was written by an earlier version"):
        results = Results.load(old_folder(tmp_path / "old"))
    assert results.rows[0]["alignment"] == {
        "english_drift": pytest.approx(0.02), "english_drift_max": pytest.approx(0.1),
    }  # fmt: skip
    assert results.examples[0]["query"]["images"] == list(results.images) == ["red.webp"]
    page = results_page(results)
    assert page.images == results.images
    assert page.examples[0].query_image == "red.webp"
    results.save(tmp_path / "new")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Results.load(tmp_path / "new")
    assert (again.rows, again.examples, again.images) == (results.rows, results.examples, results.images)
    assert json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))["format"] == 2


def test_the_report_of_an_old_folder(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert (
        main(["report", str(old_folder(tmp_path / "old")), "--html", str(page), "--output", str(tmp_path / "t")]) == 0
    )
    assert "data:image/webp" in page.read_text(encoding="utf-8")


def test_results_of_others_are_no_old_ones(tmp_path: Path) -> None:
    row = {"benchmark": "B", "dataset": "d", "task": "i2t", "language": "en", "style": "v", "n": 2, "p_at_1": 0.5}
    (tmp_path / "results.json").write_text(json.dumps({"model": "m", "rows": [row | {"ci95": [0, 1]}]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Results.load(tmp_path).model == "m"
