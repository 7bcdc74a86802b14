"""The report keeps every language and tells seeds apart; the time that is left follows from what has been done."""

from types import SimpleNamespace

from xvlm2vec.eval.results import Results
from xvlm2vec.real_story.report import cells, spread, tokens
from xvlm2vec.real_story.run import Stage, time_left


def results(**scores):
    rows = [
        {
            "benchmark": "Tux Paint",
            "dataset": "stamps",
            "task": "t2i",
            "language": code,
            "style": "verbatim",
            "p_at_1": score,
            "n": 10,
            "ci95": [0.0, 1.0],
            **({} if code == "en" else {"tokens": {"per_character": 2.0}}),
        }
        for code, score in scores.items()
    ]
    return Results(model="m", rows=rows)


def test_seeds_are_told_apart_and_failed_languages_stay():
    found = {
        "activated-0": {"stamps": results(en=0.5, km=0.0)},
        "activated-1": {"stamps": results(en=0.5, km=0.2)},
        "lora-0": {"stamps": results(en=0.25, km=0.0)},
    }
    assert cells(found["lora-0"]["stamps"])["stamps/t2i"]["km"] == {"p_at_1": 0.0, "n": 10, "ci95": [0.0, 1.0]}
    assert tokens(found["lora-0"]["stamps"]) == {"km": {"per_character": 2.0}}
    table = spread(found, list(found), "stamps")
    assert table["activated"]["stamps/t2i/en"] == {"mean": 0.5, "seeds": 2, "standard_deviation": 0.0}
    assert round(table["activated"]["stamps/t2i/km"]["standard_deviation"], 4) == 0.1414
    assert table["lora"]["stamps/t2i/en"] == {"mean": 0.25, "seeds": 1}


def test_the_time_that_is_left_follows_from_the_stages_that_are_done():
    plan = [Stage(name, name, share, lambda: None) for name, share in (("a", 1), ("b", 2), ("c", 5))]
    state = SimpleNamespace(seconds={"a": 100.0, "b": 200.0})
    assert time_left(plan, 2, state, started=0.0).endswith("about 8 min left)")
    assert time_left(plan, 0, state, started=0.0) == ""
