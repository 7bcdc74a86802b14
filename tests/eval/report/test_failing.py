"""Which languages fail, and why: the order, the figures, the test over items, the tables and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xvlm2vec.cli import main
from xvlm2vec.eval.report.failing import failing_languages, language_test
from xvlm2vec.eval.report.page import render_report, write_report
from xvlm2vec.eval.report.results_page import results_page
from xvlm2vec.eval.report.tables import as_markdown, failing_table
from xvlm2vec.eval.results import PerRow, Results, row_key

ITEMS = 40
TEXTS = {"te": "గడ్డిపై కుక్క", "km": "ឆ្កែនៅលើស្មៅ", "ar": "كلب على العشب", "my": "မြက်ပေါ်ရှိခွေး"}
CODES = ("en", "de", "sw", *TEXTS, "fr", "es", "it", "ru", "ja", "ko", "zh")


def result_row(code: str, task: str, p_at_1: float, **more: Any) -> dict[str, Any]:
    names = {"benchmark": "B", "dataset": "d", "task": task, "language": code, "style": "plain"}
    return names | {"n": ITEMS, "p_at_1": p_at_1, "ci95": [p_at_1, p_at_1], "ndcg_at_10": p_at_1 / 2} | more


def scores(name: str, hits: dict[str, float], codes: tuple[str, ...] = CODES) -> Results:
    """A share of the items is found, first ones first, both ways; Swahili has one direction only."""
    results = Results(name)
    for code in codes:
        for task in ("t2i", "i2t") if code != "sw" else ("t2i",):
            right = (np.arange(ITEMS) < hits.get(code, 0.75) * ITEMS).astype(float)
            missed = float(1 - right.mean())
            row = result_row(code, task, float(right.mean()), alignment={"hubness": 1.25})
            row["tokens"] = {
                "texts": ITEMS,
                "per_character": 0.25 if code == "en" else 0.75,
                "unknown": 0.1,
                "bytes": 0.2,
            }
            if code != "en":
                row["tokens"]["over_english"] = 2.0
                row["misses"] = {"n": ITEMS, "translation_at_1": 0.5, "translation_rank": 1.5, "rank": 4.0,
                                 "missed": missed, "text": 0.7, "english": 0.1, "image": 0.2}  # fmt: skip
            results.rows.append(row)
            results.per_row[row_key(row)] = PerRow(np.arange(ITEMS), right, 1 - right)
            if task == "t2i" and code in TEXTS:
                results.examples.append(example(row, TEXTS[code]))
    return results


def example(row: dict[str, Any], text: str) -> dict[str, Any]:
    answer = {"id": 0, "text": None, "image": "a"}
    item = {"text": text, "english": "a dog on the grass <b>", "translation_rank": 7.0}
    names = {key: row[key] for key in ("benchmark", "dataset", "task", "language", "style")}
    return names | {
        "row": 39, "drawn": True, "rank": 12.0, "query": {"text": text, "image": None}, "gold": answer, "golds": [0],
        "top": [answer | {"score": 0.5}], "item": item,
    }  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> tuple[Results, Results]:
    low = {"te": 0.1, "sw": 0.2, "km": 0.3, "my": 0.4, "ar": 0.45, "en": 0.8}
    return scores("before", {code: 0.1 for code in CODES} | {"en": 0.8}), scores("after", low)


def test_worst_first_with_figures_of_both(pair: tuple[Results, Results]) -> None:
    failing = failing_languages(pair[1], pair[0])
    assert [one.lang.code for one in failing.languages[:5]] == ["te", "sw", "km", "my", "ar"]
    assert (failing.figures.below, failing.before.below) == (5, 13)
    assert failing.figures.worst == pytest.approx(np.mean([0.1, 0.2, 0.3, 0.4, 0.45, *[0.75] * 5]))
    assert failing.figures.parity == pytest.approx(np.mean([0.1, 0.2, 0.3, 0.4, 0.45, *[0.75] * 8]) / 0.8)
    assert (len(failing.worst), len(failing.languages)) == (10, 13)
    swahili = failing.languages[1]
    assert (swahili.is_partial, failing.languages[0].is_partial) == (True, False)
    assert (swahili.gap, swahili.over_english, swahili.text_over_english) == pytest.approx((0.6, 3.0, 2.0))
    assert (swahili.broken, swahili.hubness, swahili.found) == pytest.approx((0.3, 1.25, 0.5))
    assert swahili.main_part == "text"
    assert failing.parts == pytest.approx({"text": 0.7, "english": 0.1, "image": 0.2})
    translated = [row | {"style": "plain+translated", "p_at_1": 1.0, "translation": {}} for row in pair[1].rows]
    beside = Results("after", rows=[*pair[1].rows, *translated])
    assert failing_languages(beside).languages[0].score == pytest.approx(0.1), "they are not those of the language"
    assert failing_languages(pair[1], metric="ndcg_at_10").languages[0].score == pytest.approx(0.05)


def test_an_item_is_one_sample_whichever_tasks_ask_for_it(pair: tuple[Results, Results]) -> None:
    keys = [row_key(row) for row in pair[1].select(language="ko")]
    test = language_test(*pair, keys)
    assert (test.n, test.difference) == (ITEMS, pytest.approx(0.65))
    assert test.p_value < 0.001
    same = language_test(pair[0], pair[0], keys)
    assert (same.difference, same.p_value) == (0, 1)
    assert language_test(Results("m"), pair[1], keys) is None
    other = scores("other", {}, ("ko",))
    other.per_row[keys[0]] = PerRow(np.arange(1, ITEMS + 1), np.zeros(ITEMS), np.zeros(ITEMS))
    with pytest.raises(ValueError, match=r"B/d/t2i/ko/plain: before and other were not scored on the same rows"):
        language_test(pair[0], other, keys)


def test_table(pair: tuple[Results, Results]) -> None:
    table = failing_table(pair[1], pair[0], most=2)
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["language"] == "Telugu"
    assert cells["P@1"] == "10.0 -> 10.0"
    assert (cells["p value"], cells["behind en"], cells["tokens/char x en"]) == ("p = 1.000", "70.0", "3.0")
    assert cells["missed: text"] == "70.0"
    assert [row[0] for row in table.rows] == ["Telugu", "Swahili", "English"]
    assert table.notes[0].startswith("before -> after: 13 -> 5 of 13 languages besides English below 50%; mean of the")
    assert "| Korean | 75.0 |" in as_markdown(failing_table(pair[1]))
    assert failing_table(scores("m", {}, ("en",))) is None


def test_what_was_not_measured_is_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bare = Results("bare", rows=[result_row("sw", "t2i", 0.25)])
    assert failing_table(bare).rows[0][1:] == ["25.0", *["-"] * 9]
    bare.save(tmp_path)
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    assert "## Which languages fail, and why\n\n| language | P@1 |" in capsys.readouterr().out
    assert "come from" in (tmp_path / "page.html").read_text()


def test_page_escapes_and_names_languages(pair: tuple[Results, Results]) -> None:
    page = render_report(results_page(pair[1], pair[0]))
    assert "a dog on the grass &lt;b&gt;" in page
    assert f'<bdi lang="ar" dir="rtl">{TEXTS["ar"]}</bdi>' in page
    assert page.count("<h1>") == 1
    assert "All 13 languages, the worst first" in page


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_answer_is_seen_without_scrolling(
    browser, pair: tuple[Results, Results], tmp_path: Path, width: int, height: int
) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < height}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(write_report(results_page(pair[1], pair[0]), tmp_path / "page.html").as_uri())
        last = browser.find_elements("css selector", ".why:not(.all) tbody tr")[9]
        assert last.rect["y"] + last.rect["height"] <= height
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert browser.execute_script(
            "const [e] = document.querySelectorAll('.why'); return e.scrollWidth <= e.clientWidth"
        )
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
