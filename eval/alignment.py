"""What vectors look like beside their scores: across languages, across modalities, against another model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.store import StoredVectors

from .metrics import (
    english_drift,
    linear_cka,
    modality_gap,
    occurrence_skewness,
    same_language_share,
    translation_accuracy,
)
from .pool import VectorSource, pool_occurrence
from .ranking import RankingTask, gold_places

_SAMPLE = 4_000  # rows looked at for a mean, or in the mixed pool of all languages
_HUB_SCORES = 1 << 28  # queries times candidates up to which hubness is worth its time
_NEIGHBOURS = 10

Places = npt.NDArray[np.integer]
Vectors = npt.NDArray[np.floating]


@dataclass(frozen=True)
class TaskVectors:
    """A task with the vectors of its two sides.

    Attributes:
        task: The task.
        query_places: `(n,)`, where each query stands among the distinct rows of all tasks.
        candidate_places: `(pool,)`, the same of the candidates.
        vectors: `(rows, D)`, the vectors of the distinct rows.
    """

    task: RankingTask
    query_places: Places
    candidate_places: Places
    vectors: Any

    def pair(self) -> tuple[VectorSource, VectorSource]:
        """Vectors of the queries and of the candidates; a whole pool that is stored stays on disk."""
        queries = self.vectors[self.query_places]
        if self.task.whole_pool and isinstance(self.vectors, StoredVectors):
            return queries, self.vectors.select(self.candidate_places)
        return queries, self.vectors[self.candidate_places]

    def texts(self) -> tuple[Places, Places] | None:
        """Item ids, and the distinct row that holds each item's text alone; None if the task has no such rows."""
        task = self.task
        if all(row.image is None for row in task.queries):
            return np.asarray(task.row_ids), self.query_places
        gold = task.candidate_index[:, 0]
        found = gold_places(task)[:, 0]  # tasks of mteb may lack a right document
        if found.any() and all(task.candidates[int(place)].image is None for place in gold[found]):
            return np.asarray(task.row_ids)[found], self.candidate_places[gold[found]]
        return None


def alignment_scores(parts: Sequence[TaskVectors], *, reference: str = "en", items: int = 1000) -> list[dict[str, Any]]:
    """Measures of alignment for each task, as far as its rows allow them.

    Args:
        parts: The tasks with their vectors.
        reference: The language that translations are held against.
        items: Items of a parallel set that are looked at, drawn evenly.

    Returns:
        A dictionary for each task, with some of:

        - `translation_accuracy` and `cka`: of an item's text and its text in the reference language, over `n` items
          whose texts are distinct, if the task's rows are parallel;
        - `language_bias` and `language_bias_chance`: share of the language among the ten nearest texts in a pool of
          all languages, and the share by chance;
        - `modality_gap`: between the rows with an image and those of text alone;
        - `hubness`: of the candidates, ten neighbours of each query.
    """
    scores: list[dict[str, Any]] = [_within(part) for part in parts]
    for group in parallel_groups(parts):
        members = {language: parts[number] for language, number in group.items()}
        for language, measures in _between(members, reference, items).items():
            scores[group[language]] |= measures
    return scores


def parallel_groups(parts: Sequence[TaskVectors]) -> list[dict[str, int]]:
    """For each set of tasks whose rows are the same items in several languages, the task's number by language."""
    groups: dict[tuple[str, ...], dict[str, int]] = {}
    for number, part in enumerate(parts):
        task = part.task
        if task.parallel:
            groups.setdefault((task.benchmark, task.dataset, task.task, task.style), {})[task.language] = number
    return list(groups.values())


def drift_scores(
    student: VectorSource, student_places: Places, teacher: VectorSource, teacher_places: Places
) -> dict[str, float]:
    """How far two models' vectors of the same rows lie apart, read a few thousand at a time.

    Args:
        student: `(rows, D)`.
        student_places: `(n,)` rows of it.
        teacher: `(other rows, D)`.
        teacher_places: `(n,)`, where it has the same rows.

    Returns:
        `english_drift` and `english_drift_max`: mean and largest of one minus the cosine of the two vectors of a row,
        from 0 (nothing moved) to 2.

    Raises:
        ValueError: The models' vectors differ in width.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"the drift needs two models of one width, and these have {student.shape[1]} and {teacher.shape[1]}"
        )
    parts = [slice(start, start + _SAMPLE) for start in range(0, len(student_places), _SAMPLE)]
    drifts = [english_drift(student[student_places[part]], teacher[teacher_places[part]]) for part in parts]
    sizes = [len(student_places[part]) for part in parts]
    mean = float(np.average([drift.mean for drift in drifts], weights=sizes))
    return {"english_drift": mean, "english_drift_max": max(drift.maximum for drift in drifts)}


def _within(part: TaskVectors) -> dict[str, float]:
    task = part.task
    rows = [*task.queries, *task.candidates]
    places = np.concatenate([part.query_places, part.candidate_places])
    seen = np.array([row.image is not None for row in rows])
    measures = {}
    if 0 < seen.sum() < len(seen):
        images, texts = (part.vectors[_sample(places[side], _SAMPLE)] for side in (seen, ~seen))
        measures["modality_gap"] = modality_gap(images, texts)
    if len(task.candidates) > _NEIGHBOURS and len(task.queries) * len(task.candidates) <= _HUB_SCORES:
        measures["hubness"] = occurrence_skewness(pool_occurrence(*part.pair(), _NEIGHBOURS))
    return measures


def _between(members: Mapping[str, TaskVectors], reference: str, items: int) -> dict[str, dict[str, Any]]:
    """Measures by language over a parallel set."""
    texts = {language: side for language, part in members.items() if (side := part.texts()) is not None}
    measures: dict[str, dict[str, Any]] = {language: {} for language in texts}
    if len(texts) < 2:
        return measures
    vectors = next(iter(members.values())).vectors
    for language in texts:
        if reference in texts and language != reference:
            measures[language] |= _translation(texts[reference], texts[language], vectors, items)
    for language, bias in _bias(texts, vectors, items).items():
        measures[language] |= bias
    return measures


def _translation(
    reference: tuple[Places, Places], other: tuple[Places, Places], vectors: Any, items: int
) -> dict[str, Any]:
    _, ours, theirs = np.intersect1d(reference[0], other[0], return_indices=True)
    pairs = np.stack([reference[1][ours], other[1][theirs]])
    for side in (0, 1):  # a text that two items share would be its own rival
        pairs = pairs[:, np.sort(np.unique(pairs[side], return_index=True)[1])]
    pairs = pairs[:, evenly(pairs.shape[1], items)]
    if pairs.shape[1] < 2:
        return {}
    left, right = vectors[pairs[0]], vectors[pairs[1]]
    measures = {"n": pairs.shape[1], "translation_accuracy": translation_accuracy(left, right)}
    if np.ptp(left, axis=0).any() and np.ptp(right, axis=0).any():
        measures["cka"] = linear_cka(left, right)
    return measures


def _bias(texts: Mapping[str, tuple[Places, Places]], vectors: Any, items: int) -> dict[str, dict[str, float]]:
    size = min(items, _SAMPLE // len(texts))
    pool = {language: _sample(places, size) for language, (_, places) in texts.items()}
    languages = np.repeat(list(pool), [len(places) for places in pool.values()])
    if len(languages) <= _NEIGHBOURS:
        return {language: {} for language in pool}
    share = same_language_share(vectors[np.concatenate(list(pool.values()))], languages, _NEIGHBOURS)
    return {
        language: {
            "language_bias": float(share[languages == language].mean()),
            "language_bias_chance": (len(places) - 1) / (len(languages) - 1),
        }
        for language, places in pool.items()
    }


def _sample(places: Places, wanted: int) -> Places:
    distinct = np.unique(places)
    return distinct[evenly(len(distinct), wanted)]


def evenly(total: int, wanted: int) -> Places:
    """Places of `wanted` out of `total`, or of all if there are fewer, at even distances."""
    return np.arange(total) if total <= wanted else np.linspace(0, total - 1, wanted).astype(int)
