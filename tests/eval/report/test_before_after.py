import re
import xml.etree.ElementTree as ET

import pytest

from xvlm2vec.common.tasks import MEAN_TASKS
from xvlm2vec.eval.report.before_after import before_after_svg, mean_over_tasks

CODES = ("en", "de", "ar", "ko")
SVG = "{http://www.w3.org/2000/svg}"


def make_scores(teacher: dict[str, float], student: dict[str, float]) -> dict:
    return {
        model: {task: {code: {"p_at_1": value} for code, value in values.items()} for task in (*MEAN_TASKS, "vqa")}
        for model, values in (("teacher", teacher), ("student", student))
    }


SCORES = make_scores(
    {"en": 0.84, "de": 0.02, "ar": 0.0, "ko": 0.031}, {"en": 0.836, "de": 0.82, "ar": 0.78, "ko": 0.027}
)


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


def test_mean_counts_each_task_once():
    scores = {"c": {"de": {"p_at_1": 0.2}}, "t2i": {"de": {"p_at_1": 0.6}}, "vqa": {"de": {"p_at_1": 1.0}}}
    assert mean_over_tasks(scores, "de") == pytest.approx(0.4)
    assert mean_over_tasks(scores, "de", ["vqa"]) == 1.0
    with pytest.raises(ValueError, match=r"'fr' has no score in \['c', 't2i'\]"):
        mean_over_tasks(scores, "fr")
    with pytest.raises(ValueError, match="no scores for any"):
        mean_over_tasks({}, "de")


def test_every_language_has_its_two_values():
    found = texts(before_after_svg(SCORES, CODES, ["de", "ar"], ["ko"]))
    for expected in ("English", "German", "Arabic", "Korean", "2.0", "82.0", "0.0", "78.0", "84.0 → 83.6", "3.1 → 2.7"):
        assert expected in found
    assert "2 taught languages: mean P@1 from 1.0% to 80.0%" in found
    assert found.index("German") < found.index("Control: never taught") < found.index("Korean")


def test_positions_follow_the_values():
    svg = ET.fromstring(before_after_svg(SCORES, CODES, ["de", "ar"], ["ko"]))
    ticks = {node.text: float(node.get("x")) for node in svg.iter(f"{SVG}text") if node.text in ("0", "100%")}
    circles = [float(node.get("cx")) for node in svg.iter(f"{SVG}circle")][2:]
    fractions = [(x - ticks["0"]) / (ticks["100%"] - ticks["0"]) for x in circles]
    assert fractions == pytest.approx([0.836, 0.84, 0.82, 0.02, 0.78, 0.0, 0.027, 0.031], abs=2e-4)
    (reference,) = [float(n.get("x1")) for n in svg.iter(f"{SVG}line") if n.get("stroke-dasharray")]
    assert reference == pytest.approx(circles[0])


def test_nothing_leaves_the_image():
    extreme = make_scores({"en": 1.0, "de": 1.0, "ar": 0.0, "ko": 0.99}, {"en": 1.0, "de": 0.0, "ar": 1.0, "ko": 1.0})
    svg = before_after_svg(extreme, CODES, ["de", "ar"], ["ko"])
    root = ET.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    for node in root.iter(f"{SVG}text"):
        length = 0.62 * float(node.get("font-size")) * len("".join(node.itertext()))
        start = (
            float(node.get("x")) - {"start": 0, "middle": length / 2, "end": length}[node.get("text-anchor", "start")]
        )
        assert 0 <= start <= start + length <= width
        assert 0 < float(node.get("y")) < height


def test_self_contained_and_escaped():
    scores = make_scores({"en": 0.8, "<b>&": 0.1}, {"en": 0.8, "<b>&": 0.7})
    svg = before_after_svg(scores, ["en", "<b>&"], ["<b>&"], [])
    assert "<b>&" in texts(svg)
    assert re.findall(r"https?://[^\s\"]+", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<image|<script|<style|href", svg)


def test_missing_scores_are_named():
    with pytest.raises(ValueError, match="'student' are missing"):
        before_after_svg({"teacher": SCORES["teacher"]}, CODES, ["de"], [])
    with pytest.raises(ValueError, match="'fr' has no score"):
        before_after_svg(SCORES, [*CODES, "fr"], ["fr"], [])
