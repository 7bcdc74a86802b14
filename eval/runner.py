"""One runner for every model: embed the distinct rows of all tasks once, then score each task."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .bootstrap import bootstrap_ci
from .embedding import Encoder, Vectors, distinct_rows, embed_distinct
from .metrics import RankCounts, expected_rank, hit_at_1, ndcg_at_k, recall_at_k, reciprocal_rank, tied_rows
from .ranking import RankingTask, Row, score_task, top_candidates
from .results import PerRow, Results, row_key

logger = logging.getLogger(__name__)

_LIBRARIES = ("xvlm2vec", "numpy", "torch", "transformers", "sentence-transformers", "pyarrow")


def evaluate(
    encoder: Encoder,
    tasks: Sequence[RankingTask],
    *,
    seed: int = 0,
    store: str | Path | None = None,
    bootstrap: int = 1000,
    examples: int = 3,
    chunk: int = 1024,
    progress: bool = True,
) -> Results:
    """Score a model on ranking tasks.

    Args:
        encoder: The model; `embedding.as_encoder` wraps those of several libraries.
        tasks: The tasks. A row that several of them share is embedded once.
        seed: Seed of the bootstrap and of the choice of examples.
        store: Folder for embeddings, so that an interrupted run resumes and another one reuses them.
        bootstrap: Resamplings behind each interval.
        examples: Example queries per task.
        chunk: Rows handed to the encoder at a time.
        progress: Whether to show a bar.

    Returns:
        The scores; `Results.save` writes them.

    Raises:
        ValueError: There are no tasks, two have the same name, or the encoder's vectors are not usable.
    """
    _check_tasks(tasks)
    started = time.perf_counter()
    distinct, places = distinct_rows(tasks)
    logger.info("%d tasks with %d distinct rows", len(tasks), len(distinct.rows))
    vectors = embed_distinct(encoder, distinct, store, chunk, progress)
    embedded = time.perf_counter()
    results = Results(
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        templates_hash=",".join(sorted({task.templates_hash for task in tasks if task.templates_hash})),
        versions=library_versions(),
        settings={"seed": seed, "bootstrap": bootstrap, "similarity": "float32 cosine"},
    )
    for task, (queries, candidates) in zip(tasks, places, strict=True):
        sides = vectors[queries], vectors[candidates]
        ranks = score_task(task, *sides)
        row = score_row(task, ranks, seed=seed, bootstrap=bootstrap)
        results.rows.append(row)
        results.per_row[row_key(row)] = PerRow(np.asarray(task.row_ids), hit_at_1(ranks), expected_rank(ranks))
        results.examples += _examples(task, *sides, count=examples, seed=seed)
    results.seconds = {"embed": embedded - started, "score": time.perf_counter() - embedded}
    return results


def score_row(task: RankingTask, ranks: RankCounts, *, seed: int = 0, bootstrap: int = 1000) -> dict[str, Any]:
    """All scores of one task as a row of `Results`."""
    hits = hit_at_1(ranks)
    return {
        "benchmark": task.benchmark,
        "dataset": task.dataset,
        "task": task.task,
        "language": task.language,
        "style": task.style,
        "n": len(hits),
        "skipped": task.skipped,
        "ties": tied_rows(ranks),
        "p_at_1": float(hits.mean()),
        "ci95": list(bootstrap_ci(hits, samples=bootstrap, seed=seed)),
        "r_at_5": float(recall_at_k(ranks, 5).mean()),
        "r_at_10": float(recall_at_k(ranks, 10).mean()),
        "ndcg_at_10": float(ndcg_at_k(ranks, 10).mean()),
        "mrr": float(reciprocal_rank(ranks).mean()),
        "templates": task.templates_hash,
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


def _examples(
    task: RankingTask, queries: Vectors, candidates: Vectors, *, count: int, seed: int
) -> list[dict[str, Any]]:
    """A few rows, the same items in every language, with the gold candidate and the best five."""
    ids = np.asarray(task.row_ids)
    # Where each item stands in an order that does not depend on the language.
    position = np.random.default_rng(seed).permutation(int(ids.max()) + 1)
    chosen = np.argsort(position[ids])[:count]
    return [
        {
            **{name: getattr(task, name) for name in ("benchmark", "dataset", "task", "language", "style")},
            "row": int(ids[row]),
            "query": _row_dict(task.queries[row]),
            "gold": _candidate(task, int(task.candidate_index[row, 0])),
            "top": [
                _candidate(task, place) | {"score": score}
                for place, score in top_candidates(task, int(row), queries[row], candidates)
            ],
        }
        for row in chosen
    ]


def _candidate(task: RankingTask, place: int) -> dict[str, Any]:
    return {"id": place, **_row_dict(task.candidates[place])}


def _row_dict(row: Row) -> dict[str, str | None]:
    return {"text": row.text, "image": row.image}
