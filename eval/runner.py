"""One runner for every model: embed the distinct rows of all tasks once, then score each task."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .abilities import EVERYTHING, split_by_ability, task_kinds
from .alignment import TaskVectors, alignment_scores, drift_scores
from .bootstrap import bootstrap_ci
from .causes import add_causes
from .embedding import CHUNK, distinct_rows, embed_distinct
from .encoders import Deferred, EmbedFunction, Encoder, as_encoder
from .examples import Gallery, task_examples
from .graded import GradedRanks, graded_ranks, some_ranks
from .metrics import RankCounts, expected_rank, hit_at_1, ndcg_at_k, recall_at_k, reciprocal_rank, tied_rows
from .processes import processes
from .ranking import RankingTask, score_task
from .results import PerRow, Results, row_key
from .sizes import Size, size_row, smaller_sizes
from .spoken import tell_languages

logger = logging.getLogger(__name__)

_LIBRARIES = ("xvlm2vec", "numpy", "torch", "transformers", "sentence-transformers", "pyarrow")
_WITHOUT_FAULTS = ("n", "ties", "p_at_1", "ci95", "r_at_5", "r_at_10", "ndcg_at_10", "mrr")


@dataclass(frozen=True)
class Extras:
    """What is measured and kept beside the scores.

    Attributes:
        examples: Example queries per task, drawn at random.
        failures: Further ones per task that the model missed.
        image_size: Longest side of the copies of the examples' images; None keeps none.
        alignment: Whether to look at the vectors themselves (see `alignment.alignment_scores`).
        causes: Whether to look for what a language's misses come from (see `causes.add_causes`).
        dims: Numbers of values that vectors are also cut to.
        precisions: Names from `sizes.PRECISIONS`: forms in which vectors are also scored.
        drift_from: Another model, usually the teacher: how far English has moved from its vectors is measured. A
            `Deferred` one is loaded once the first model has embedded everything.
    """

    examples: int = 3
    failures: int = 0
    image_size: int | None = None
    alignment: bool = True
    causes: bool = True
    dims: Sequence[int] = ()
    precisions: Sequence[str] = ()
    drift_from: Encoder | EmbedFunction | Deferred | None = None


def evaluate(
    encoder: Encoder | EmbedFunction,
    tasks: Sequence[RankingTask],
    *,
    seed: int = 0,
    store: str | Path | None = None,
    bootstrap: int = 1000,
    chunk: int = CHUNK,
    progress: bool = True,
    extras: Extras | None = None,
) -> Results:
    """Score a model on ranking tasks.

    Processes that a launcher started together share the embedding through the store, and all return the same scores.

    Args:
        encoder: The model, or anything else that `embedding.as_encoder` wraps, such as a function.
        tasks: The tasks. A row that several of them share is embedded once.
        seed: Seed of the bootstrap and of the choice of examples.
        store: Folder for embeddings, so that an interrupted run resumes and another one reuses them.
        bootstrap: Resamplings behind each interval.
        chunk: Rows handed to the encoder at a time.
        progress: Whether to show a bar.
        extras: What is measured and kept beside the scores.

    Returns:
        The scores; `Results.save` writes them. Tasks that the model cannot embed are left out, with the reason.

    Raises:
        ValueError: There are no tasks, two have the same name, the model can embed none of them, its vectors are not
            usable, or they cannot be cut as `extras` ask for.
    """
    _check_tasks(tasks)
    encoder = as_encoder(encoder)
    tasks, left_out = split_by_ability(encoder, tell_languages(encoder, tasks))
    for entry in left_out:
        logger.warning("Left out %s: %s", "/".join(row_key(entry)), entry["reason"])
    extras, started = extras or Extras(), time.perf_counter()
    distinct, places = distinct_rows(tasks)
    logger.info("%d tasks with %d distinct rows", len(tasks), len(distinct.rows))
    vectors = embed_distinct(encoder, distinct, store, chunk, progress)
    parts = [TaskVectors(task, *where, vectors) for task, where in zip(tasks, places, strict=True)]
    fingerprint = encoder.fingerprint if store is not None else ""  # all weights are read for it
    drift = _drift(extras.drift_from, parts, store, chunk, progress)
    embedded = time.perf_counter()
    results = Results(
        model=encoder.name,
        fingerprint=fingerprint,
        templates_hash=",".join(sorted({task.templates_hash for task in tasks if task.templates_hash})),
        versions=library_versions(),
        settings={
            **{"seed": seed, "bootstrap": bootstrap, "similarity": "float32 cosine"},
            **{"width": vectors.shape[1], "distinct_rows": len(distinct.rows), "processes": processes().count},
        },
        left_out=left_out,
    )
    if not getattr(encoder, "joint", True):
        results.settings["text with image"] = "sum of both unit vectors"
    gallery = Gallery(extras.image_size)
    sizes = smaller_sizes(vectors.shape[1], extras.dims, extras.precisions)
    alignment = alignment_scores(parts) if extras.alignment else [{} for _ in parts]
    for part, measures in zip(parts, alignment, strict=True):
        _add_task(results, part, measures | drift.get(part.task.name, {}), sizes, gallery, extras)
    if extras.causes:
        add_causes(results, parts, encoder)
    results.images = gallery.files
    results.seconds = {"embed": embedded - started, "score": time.perf_counter() - embedded}
    return results


def _add_task(
    results: Results,
    part: TaskVectors,
    measures: Mapping[str, float],
    sizes: Sequence[Size],
    gallery: Gallery,
    extras: Extras,
) -> None:
    """Scores one task, and adds its scores, smaller sizes and examples to the results."""
    task, pair = part.task, part.pair()
    chance: dict[str, int] = {name: results.settings[name] for name in ("seed", "bootstrap")}
    ranks = score_task(task, *pair)
    graded = graded_ranks(task, *pair, ranks)
    scores = rank_scores(ranks, graded, **chance)
    row = task.names | scores | {"skipped": task.skipped, "templates": task.templates_hash}
    if graded is not None and task.main_score and (value := graded.named(task.main_score)) is not None:
        row["main_score"] = {"name": task.main_score, "value": value}
    row |= {} if task.parallel else {"parallel": False}
    row |= {"skipped_for": dict(task.skipped_for)} if task.skipped_for else {}
    row |= _fault_scores(task, ranks, graded, chance) | dict(task.notes)
    results.rows.append(row | ({"alignment": dict(measures)} if measures else {}))
    results.per_row[row_key(row)] = PerRow(np.asarray(task.row_ids), hit_at_1(ranks), expected_rank(ranks))
    results.sizes += [size_row(task, ranks, pair, size, **chance) for size in sizes]
    counts = {"drawn": extras.examples, "failures": extras.failures}
    results.examples += task_examples(task, pair, ranks, gallery, seed=chance["seed"], **counts)


def _fault_scores(
    task: RankingTask, ranks: RankCounts, graded: GradedRanks | None, chance: Mapping[str, int]
) -> dict[str, Any]:
    """How many rows the known faults of the data concern, and the scores of all others."""
    if not task.faults:
        return {}
    kept = np.ones(len(task.queries), dtype=bool)
    for rows in task.faults.values():
        kept[list(rows)] = False
    fields: dict[str, Any] = {"faults": {name: len(rows) for name, rows in task.faults.items()}}
    if kept.any():
        scores = rank_scores(some_ranks(ranks, kept), graded.of(kept) if graded else None, **chance)
        fields["without_faults"] = {name: scores[name] for name in _WITHOUT_FAULTS}
    return fields


def rank_scores(
    ranks: RankCounts, graded: GradedRanks | None = None, *, seed: int = 0, bootstrap: int = 1000
) -> dict[str, Any]:
    """All scores of one task as a row of `Results` has them; recall and nDCG over all right documents, if graded."""
    hits = hit_at_1(ranks)
    return {
        "n": len(hits),
        "skipped": 0,
        "ties": tied_rows(ranks),
        "p_at_1": float(hits.mean()),
        "ci95": list(bootstrap_ci(hits, samples=bootstrap, seed=seed)),
        "r_at_5": float((graded.recall(5) if graded else recall_at_k(ranks, 5)).mean()),
        "r_at_10": float((graded.recall(10) if graded else recall_at_k(ranks, 10)).mean()),
        "ndcg_at_10": float((graded.ndcg(10) if graded else ndcg_at_k(ranks, 10)).mean()),
        "mrr": float((graded.reciprocal() if graded else reciprocal_rank(ranks)).mean()),
    }


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that bear on the scores, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _check_tasks(tasks: Sequence[RankingTask]) -> None:
    if not tasks:
        raise ValueError("there are no tasks to evaluate")
    names = [task.name for task in tasks]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"two tasks have the name {doubled[0]}; give them different data sets or styles")


def _drift(
    other: Encoder | EmbedFunction | Deferred | None,
    parts: Sequence[TaskVectors],
    store: str | Path | None,
    chunk: int,
    progress: bool,
) -> dict[str, dict[str, float]]:
    """Drift of the English tasks' rows from another model's vectors, by the task's name, as far as it embeds them."""
    english = [part for part in parts if part.task.language.split("-")[0] == "en"]
    if other is None or not english:
        return {}
    encoder = as_encoder(other)
    embeds = getattr(encoder, "embeds", EVERYTHING)
    spared = [part for part in english if task_kinds(part.task) - embeds]
    for part in spared:
        logger.warning("No drift of %s: %s does not embed all that it needs", part.task.name, encoder.name)
    english = [part for part in english if part not in spared]
    if not english:
        return {}
    distinct, places = distinct_rows([part.task for part in english])
    theirs = embed_distinct(encoder, distinct, store, chunk, progress)
    drifts = {}
    for part, (queries, candidates) in zip(english, places, strict=True):
        ours = np.concatenate([part.query_places, part.candidate_places])
        drifts[part.task.name] = drift_scores(part.vectors, ours, theirs, np.concatenate([queries, candidates]))
    return drifts
