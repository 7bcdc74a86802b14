"""Alignment of a task's vectors, on vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from xvlm2vec.eval import alignment
from xvlm2vec.eval.alignment import TaskVectors, alignment_scores, drift_scores
from xvlm2vec.eval.ranking import RankingTask, Row

ITEMS = 12
EYE = np.eye(ITEMS, dtype=np.float32)


def part(language: str, texts: np.ndarray, images: np.ndarray, *, task: str = "t2i", ids=None) -> TaskVectors:
    """Texts as queries and images as candidates, the other way round for `i2t`; item i belongs to image i."""
    ids = np.arange(len(texts)) if ids is None else np.asarray(ids)
    text_rows = [Row(f"{language} {i}") for i in ids]
    image_rows = [Row("find", f"p{i}") for i in range(len(images))]
    sides = (text_rows, image_rows) if task == "t2i" else (image_rows, text_rows)
    gold = [[int(i)] for i in (ids if task == "t2i" else range(len(images)))]
    made = RankingTask("B", "d", task, language, "plain", *sides, gold, row_ids=ids if task == "t2i" else None)
    places = np.arange(len(texts)), np.arange(len(texts), len(texts) + len(images))
    vectors = np.concatenate([texts, images])
    return TaskVectors(made, *(places if task == "t2i" else places[::-1]), vectors)


def together(*parts: TaskVectors) -> list[TaskVectors]:
    """The parts over one array of vectors, as the runner has them."""
    starts = np.cumsum([0, *(len(p.vectors) for p in parts)])
    vectors = np.concatenate([p.vectors for p in parts])
    return [
        TaskVectors(p.task, p.query_places + start, p.candidate_places + start, vectors)
        for p, start in zip(parts, starts, strict=False)
    ]


@pytest.mark.parametrize("task", ["t2i", "i2t"])
def test_equal_translations_are_aligned(task: str) -> None:
    english, german = alignment_scores(together(part("en", EYE, EYE, task=task), part("de", EYE, EYE, task=task)))
    assert german["translation_accuracy"] == 1
    assert german["n"] == ITEMS
    assert german["cka"] == pytest.approx(1)
    assert "translation_accuracy" not in english
    assert german["modality_gap"] == english["modality_gap"] == 0
    assert german["language_bias_chance"] == pytest.approx(11 / 23)


def test_a_rotated_language_keeps_its_geometry_and_loses_its_place() -> None:
    rotated = np.roll(EYE, 1, axis=1)
    _, german = alignment_scores(together(part("en", EYE, EYE), part("de", rotated, EYE)))
    assert german["translation_accuracy"] == 0
    assert german["cka"] == pytest.approx(1)


def test_items_are_paired_by_their_ids_and_shared_texts_once() -> None:
    german = part("de", EYE[[3, 1]], EYE, ids=[3, 1])
    assert alignment_scores(together(part("en", EYE, EYE), german))[1]["translation_accuracy"] == 1
    both = together(part("en", EYE, EYE), part("de", EYE, EYE))
    twice = RankingTask(**{**vars(both[1].task), "queries": both[1].task.queries})
    places = both[1].query_places.copy()
    places[5] = places[4]  # items 4 and 5 have one German text
    found = alignment_scores([both[0], TaskVectors(twice, places, both[1].candidate_places, both[1].vectors)])[1]
    assert (found["n"], found["translation_accuracy"]) == (ITEMS - 1, 1)


def test_a_language_of_its_own_corner() -> None:
    corner = np.concatenate([np.zeros((ITEMS, ITEMS)), np.ones((ITEMS, 1))], axis=1) + np.pad(EYE, ((0, 0), (0, 1))) / 9
    english = np.pad(EYE, ((0, 0), (0, 1))).astype(np.float32)
    found = alignment_scores(together(part("en", english, english), part("de", corner, english)))
    assert found[1]["language_bias"] == 1
    assert found[1]["modality_gap"] > found[0]["modality_gap"]


def test_hubs_are_found_and_small_pools_left_out() -> None:
    queries = np.random.default_rng(0).normal(size=(40, 16))
    hub = np.concatenate([queries.mean(axis=0, keepdims=True) * 50 + 1, np.random.default_rng(1).normal(size=(59, 16))])
    plain = np.random.default_rng(2).normal(size=(60, 16))
    spread = alignment_scores([part("en", queries, plain)])[0]["hubness"]
    assert alignment_scores([part("en", queries, hub)])[0]["hubness"] != spread
    assert "hubness" not in alignment_scores([part("en", queries[:5], plain[:10])])[0]


def test_rows_without_text_alone_have_no_translations() -> None:
    grounding = RankingTask("B", "d", "vg", "en", "plain", [Row("dog", "p")], [Row("", "a"), Row("", "b")], [[0, 1]])
    other = RankingTask("B", "d", "vg", "de", "plain", [Row("Hund", "p")], [Row("", "a"), Row("", "b")], [[0, 1]])
    vectors = np.eye(4)
    places = np.array([0]), np.array([1, 2])
    assert alignment_scores([TaskVectors(task, *places, vectors) for task in (grounding, other)]) == [{}, {}]


def test_large_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_SAMPLE", 12)
    found = alignment_scores(together(part("en", EYE, EYE), part("de", EYE, EYE)), items=6)[1]
    assert found["n"] == 6
    assert found["language_bias_chance"] == pytest.approx(5 / 11)


def test_drift() -> None:
    places = np.arange(len(EYE))
    assert drift_scores(EYE, places, EYE * 3, places) == {"english_drift": 0, "english_drift_max": 0}
    with pytest.raises(ValueError, match="12 and 11"):
        drift_scores(EYE, places, EYE[:, :11], places)


def test_drift_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    student, teacher, places = rng.normal(size=(20, 4)), rng.normal(size=(20, 4)), rng.permutation(20)
    whole = drift_scores(student, np.arange(20), teacher[places], np.argsort(places))
    monkeypatch.setattr(alignment, "_SAMPLE", 7)
    assert drift_scores(student, np.arange(20), teacher[places], np.argsort(places)) == pytest.approx(whole)
