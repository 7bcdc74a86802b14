"""The report keeps every language and tells seeds apart; the time that is left follows from what has been done."""

from types import SimpleNamespace

import numpy as np
import pytest

from xvlm2vec.common.run_state import RunState
from xvlm2vec.corpus.emoji.text import all_languages
from xvlm2vec.eval.results import PerRow, Results, row_key
from xvlm2vec.real_story.config import FULL, SMOKE, RealStoryConfig
from xvlm2vec.real_story.figures import draw_languages, draw_tokens, token_correlation
from xvlm2vec.real_story.plan import MEASURING, TEACHER, Stage, stages_of
from xvlm2vec.real_story.report import cells, gains, spread, story_report, tokens
from xvlm2vec.real_story.run import time_left
from xvlm2vec.real_story.stages import benchmarks_of
from xvlm2vec.real_story.table import gain_of, in_order, language_table, language_tables

TOKENS = {"en": 0.25, "de": 0.5, "km": 2.0, "hu": 0.6}


def results(ranks, tasks=("t2i", "i2t"), dataset="stamps"):
    """Scores of a data set whose ranks are given by language; rows are numbered from 0."""
    found = Results(model="m")
    for task in tasks:
        for code, places in ranks.items():
            row = {
                "benchmark": "Tux Paint",
                "dataset": dataset,
                "task": task,
                "language": code,
                "style": "verbatim",
                "p_at_1": float(np.mean(np.array(places) == 0)),
                "r_at_10": float(np.mean(np.array(places) < 10)),
                "n": len(places),
                "ci95": [0.0, 1.0],
                "tokens": {"per_character": TOKENS[code]},
            }
            found.rows.append(row)
            hits = np.array([float(place == 0) for place in places])
            found.per_row[row_key(row)] = PerRow(np.arange(len(places)), hits, np.array(places, dtype=float))
    return found


BEFORE = {"en": [0, 3, 0, 40], "de": [0, 30, 30, 30], "km": [30, 30, 30, 30], "hu": [30, 0]}
AFTER = [
    {"en": [0, 3, 0, 40], "de": [0, 0, 5, 30], "km": [30, 30, 30, 30], "hu": [30, 0]},
    {"en": [0, 3, 0, 40], "de": [0, 5, 30, 30], "km": [30, 30, 30, 5], "hu": [30, 0]},
]


def test_seeds_are_told_apart_and_failed_languages_stay():
    lora = results(BEFORE)
    found = {
        "activated-0": {"stamps": cells(results(AFTER[0]))},
        "activated-1": {"stamps": cells(results(AFTER[1]))},
        "lora-0": {"stamps": cells(lora)},
    }
    cell = found["lora-0"]["stamps"]["stamps/t2i"]["km"]
    assert cell == {"p_at_1": 0.0, "n": 4, "ci95": [0.0, 1.0], "r_at_10": 0.0, "r_at_10_ci95": [0.0, 0.0]}
    assert tokens(lora)["km"] == {"per_character": 2.0}
    table = spread(found, list(found), "stamps")
    english = table["activated"]["stamps/t2i/en"]["p_at_1"]
    assert english == {"mean": 0.5, "seeds": 2, "standard_deviation": 0.0}
    assert table["activated"]["stamps/t2i/km"]["r_at_10"]["standard_deviation"] == pytest.approx(0.25 / 2**0.5)
    assert table["lora"]["stamps/t2i/en"]["p_at_1"] == {"mean": 0.5, "seeds": 1}


def test_the_gain_of_all_languages_has_an_interval_over_images():
    after = [results(ranks) for ranks in AFTER]
    gain = gains(results(BEFORE), after, ["de", "km"])["stamps/t2i"]
    assert gain["languages"] == 2
    assert gain["r_at_10"]["before"] == pytest.approx(1 / 8)
    assert gain["r_at_10"]["seeds"] == [pytest.approx(3 / 8), pytest.approx(3 / 8)]
    assert gain["r_at_10"]["difference"] == pytest.approx(2 / 8)
    low, high = gain["r_at_10"]["ci95"]
    assert 0 <= low < 2 / 8 < high <= 0.5  # no image gained in more than half of languages and seeds
    assert gain["r_at_10"]["rows"] == 4
    assert gain["p_at_1"]["after"] == pytest.approx((2 + 1) / 16)


def test_a_further_seed_counts_where_it_was_measured():
    both = results(AFTER[0])
    both.rows += [{**row, "dataset": "symbols"} for row in both.rows]
    both.per_row |= {(key[0], "symbols", *key[2:]): single for key, single in both.per_row.items()}
    before = results(BEFORE)
    before.rows += [{**row, "dataset": "symbols"} for row in before.rows]
    before.per_row |= {(key[0], "symbols", *key[2:]): single for key, single in before.per_row.items()}
    found = gains(before, [both, results(AFTER[1])], ["de", "km"])
    assert len(found["stamps/t2i"]["p_at_1"]["seeds"]) == 2
    assert len(found["symbols/t2i"]["p_at_1"]["seeds"]) == 1
    seeds = {"a-0": {"stamps": cells(both)}, "a-1": {"stamps": cells(results(AFTER[1]))}}
    table = spread(seeds, list(seeds), "stamps")["a"]
    assert [table[f"{name}/t2i/de"]["r_at_10"]["seeds"] for name in ("stamps", "symbols")] == [2, 1]


def test_a_language_with_few_rows_is_not_in_the_means():
    before = results({"de": [0, 0, 0, 0], "hu": [30]})
    assert gains(before, [before], ["de", "hu"])["stamps/t2i"]["languages"] == 1
    assert gains(before, [before], ["hu"]) == {}


@pytest.fixture
def report(tmp_path):
    for name, ranks in (("teacher", BEFORE), ("activated-0", AFTER[0]), ("activated-1", AFTER[1]), ("lora-0", BEFORE)):
        results(ranks).save(tmp_path / name / "stamps")
    for name, ranks in (("teacher", BEFORE), ("activated-0", AFTER[0])):
        results(ranks, ("c",), "twitter").save(tmp_path / name / "emoji")
    rows = {"train": {"texts": {"en": 1818, "de": 1815, "km": 1460, "hu": 1814}}}
    students = ["activated-0", "activated-1", "lora-0"]
    return story_report(tmp_path, "teacher", students, ["de", "km"], controls=["hu"], rows=rows)


def test_the_table_has_every_language_and_says_which_was_not_taught(report):
    assert in_order(report, "activated") == ["en", "de", "km", "hu"]
    assert gain_of(report, "activated", "de") == pytest.approx(37.5)
    lines = language_table(report, ["activated", "lora"]).splitlines()
    assert lines[0].startswith(
        "| language | texts taught | tokens per character | rows | image by text: before | activ"
    )
    assert lines[3].startswith("| German | 1,815 | 0.50 | 4 | 25.0 (0 to 75) | 62.5 ± 17.7 | 25.0 |")
    assert lines[5].startswith("| Hungarian (control) | 0 | 0.60 | 2 |")


def test_everything_measured_has_a_table_of_its_own_with_the_models_that_have_scores(report):
    tables = language_tables(report, ["activated", "lora"])
    assert [line for line in tables.splitlines() if line.startswith("#")] == [
        "## Stamps", "## Names of emoji, in a drawing style that was not taught",
    ]  # fmt: skip
    stamps, emoji = tables.split("\n\n## Names of emoji")
    assert language_table(report, ["activated", "lora"]).strip() in stamps
    heads, _, *lines = emoji.splitlines()[2:]
    assert heads == "| language | texts taught | tokens per character | rows | text by image: before | activated |"
    assert [line.split(" | ")[0] for line in lines] == ["| English", "| German", "| Khmer", "| Hungarian (control)"]
    assert lines[1] == "| German | 1,815 | 0.50 | 4 | 25.0 (0 to 75) | 75.0 |"


def test_the_figures_name_every_language_and_are_the_same_for_the_same_numbers(report, tmp_path):
    draw_languages(report, "activated", tmp_path / "languages.svg")
    first = (tmp_path / "languages.svg").read_bytes()
    for name in ("English", "German", "Khmer", "Hungarian (control)"):
        assert f">{name}</text>" in first.decode()
    draw_languages(report, "activated", tmp_path / "languages.svg")
    assert (tmp_path / "languages.svg").read_bytes() == first
    draw_tokens(report, "activated", tmp_path / "tokens.svg")
    drawn = (tmp_path / "tokens.svg").read_text(encoding="utf-8")
    assert ">de</text>" in drawn
    assert ">km</text>" in drawn
    assert ">hu</text>" not in drawn
    assert token_correlation(report, "activated") == pytest.approx(-1)


def test_a_full_run_asks_for_every_language_of_each_benchmark(tmp_path):
    asked = benchmarks_of(tmp_path, tmp_path, FULL)
    assert set(asked) == set(MEASURING)
    assert not any("--languages" in flags for flags in asked.values())
    assert all("--languages" in flags for flags in benchmarks_of(tmp_path, tmp_path, SMOKE).values())
    assert set(SMOKE.emoji_languages) <= set(all_languages())


def test_every_student_is_measured_on_everything(tmp_path):
    config = RealStoryConfig(str(tmp_path / "run"), str(tmp_path / "packages"))
    names = {stage.name for stage in stages_of(config, RunState(config.output, config.settings()))}
    models = [TEACHER, *(student.name for student in config.sizes.students)]
    assert {f"{model} {benchmark}" for model in models for benchmark in MEASURING} <= names


def test_a_seed_is_told_and_released_before_the_next_one_is_distilled(tmp_path):
    config = RealStoryConfig(str(tmp_path / "run"), str(tmp_path / "packages"))
    names = [stage.name for stage in stages_of(config, RunState(config.output, config.settings()))]
    models = [TEACHER, "activated-0", "lora-0"]
    whole = {*(f"{model} {benchmark}" for model in models for benchmark in MEASURING), "release", "report 0"}
    assert whole <= set(names[: names.index("activated-1")])
    assert names.count("release") == 1
    assert names[-1] == "report 2"


def test_the_time_that_is_left_follows_from_the_stages_that_are_done():
    plan = [Stage(name, name, share, lambda: None) for name, share in (("a", 1), ("b", 2), ("c", 5))]
    state = SimpleNamespace(seconds={"a": 100.0, "b": 200.0})
    assert time_left(plan, 2, state, started=0.0).endswith("about 8 min left)")
    assert time_left(plan, 0, state, started=0.0) == ""
