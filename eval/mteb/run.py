"""Retrieval tasks of mteb by their names, and run by mteb itself, with their scores as rows of `Results`."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from xvlm2vec.common.languages import comparable_code
from xvlm2vec.common.result_keys import TASK_KEYS
from xvlm2vec.eval.benchmarks.instructions import Templates, templates_hash
from xvlm2vec.eval.metrics import expected_rank, hit_at_1
from xvlm2vec.eval.results import PerRow, Results, row_key
from xvlm2vec.eval.runner import library_versions, rank_scores

from .models import EncoderForMteb, MtebModelEncoder, subset_language
from .tasks import counts_of_results

logger = logging.getLogger(__name__)

BENCHMARK = "mteb"
STYLE = "verbatim"
_THEIR_SCORES = {"r_at_5": "recall_at_5", "r_at_10": "recall_at_10", "ndcg_at_10": "ndcg_at_10"}


def mteb_task(name: str, languages: Sequence[str] | None = None) -> Any:
    """A task of mteb by its name.

    Args:
        name: Such as `XM3600T2IRetrieval`; case matters.
        languages: Names of its subsets, codes that begin them, or codes of their languages (default: all).

    Raises:
        ValueError: mteb has no such task or subset, or it is no retrieval.
    """
    import mteb
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise ValueError(f"mteb has no task {name!r}: {error.args[0] if error.args else error}") from error
    if not isinstance(task, AbsTaskRetrieval):
        raise ValueError(f"{name} is a task of type {task.metadata.type}; only retrieval is scored here")
    if languages is not None:
        subsets = _subset_names(task)
        _check_spoken(name, languages, [task])
        wanted = set(map(comparable_code, languages))
        task.hf_subsets = [subset for subset, names in subsets.items() if names & wanted]
    return task


def mteb_tasks_named(names: Sequence[str], languages: Sequence[str] | None = None) -> list[Any]:
    """Tasks of mteb by their names, or by that of a benchmark of mteb such as `JinaVDR`.

    Args:
        names: Names; case matters.
        languages: As for `mteb_task`; of several tasks, those that have none of them are left out with a warning.

    Raises:
        ValueError: mteb has no such task, none of the tasks has a language, or one is no retrieval.
    """
    names = [task for name in names for task in _names_within(name)]
    if languages is None or len(names) == 1:
        return [mteb_task(name, languages) for name in names]
    tasks = {name: mteb_task(name) for name in names}
    _check_spoken(", ".join(names), languages, list(tasks.values()))
    chosen = []
    for name, task in tasks.items():
        spellings = set[str]().union(*_subset_names(task).values())
        spoken = [code for code in languages if comparable_code(code) in spellings]
        if spoken:
            chosen.append(mteb_task(name, spoken))
        else:
            logger.warning("Left out %s: it has no language %s", name, ", ".join(languages))
    return chosen


def _names_within(name: str) -> list[str]:
    """The names of a benchmark's tasks; any other name as it is."""
    import mteb

    with suppress(KeyError):  # the names of benchmarks are asked for last: mteb makes a thousand tasks for them
        return [mteb.get_task(name).metadata.name]
    with suppress(KeyError):
        return [task.metadata.name for task in mteb.get_benchmark(name).tasks]
    return [name]


def _subset_names(task: Any) -> dict[str, set[str]]:
    """What a language of each subset of a task may be called."""
    spellings = {subset: (subset, subset.split("-")[0], _language(task, subset)) for subset in task.hf_subsets}
    return {subset: set(map(comparable_code, names)) for subset, names in spellings.items()}


def _check_spoken(name: str, languages: Sequence[str], tasks: Sequence[Any]) -> None:
    spellings = [names for task in tasks for names in _subset_names(task).values()]
    unknown = [code for code in languages if not any(comparable_code(code) in names for names in spellings)]
    if unknown:
        spoken = dict.fromkeys(_language(task, subset) for task in tasks for subset in task.hf_subsets)
        raise ValueError(f"{name} has no language {', '.join(unknown)}; it has {', '.join(spoken)}")


def evaluate_mteb(
    encoder: Any,
    tasks: Sequence[Any],
    *,
    templates: Templates | None = None,
    seed: int = 0,
    bootstrap: int = 1000,
    progress: bool = True,
) -> Results:
    """Score a model on retrieval tasks of mteb.

    `p_at_1`, its interval, ties and MRR are computed here from the documents that mteb found (1,000 for each query),
    levels shared evenly; recall and nDCG are mteb's own.

    Args:
        encoder: The model; one of mteb's is used with its own prompts.
        tasks: Retrieval tasks of mteb, such as `mteb_task` returns.
        templates: Instructions (see `models_for_mteb.EncoderForMteb`).
        seed: Seed of the bootstrap.
        bootstrap: Resamplings behind each interval.
        progress: Whether to show bars.

    Raises:
        ValueError: The model cannot embed what a task needs, or a vector holds a NaN.
    """
    import mteb

    theirs = isinstance(encoder, MtebModelEncoder)
    model: Any = encoder.model if theirs else EncoderForMteb(encoder, templates)
    results = Results(
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        templates_hash="" if theirs else templates_hash(model.templates),
        versions=library_versions() | {"mteb": mteb.__version__},
        settings={"seed": seed, "bootstrap": bootstrap, "similarity": "mteb's for the model"},
    )
    started = time.perf_counter()
    for task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            task.load_data()
            scored = mteb.evaluate(
                model, task, cache=None, prediction_folder=folder, show_progress_bar=progress, co2_tracker=False,
                encode_kwargs={"show_progress_bar": False},
            )  # fmt: skip
            predictions = json.loads((Path(folder) / task.prediction_file_name).read_text(encoding="utf-8"))
        for split, scores in scored.task_results[0].scores.items():
            for score in scores:
                _add(results, task, split, score, predictions[score["hf_subset"]][split], seed, bootstrap)
        task.unload_data()
    results.seconds = {"mteb": time.perf_counter() - started}
    return results


def _add(
    results: Results,
    task: Any,
    split: str,
    score: Mapping[str, Any],
    predictions: Mapping[str, Mapping[str, float]],
    seed: int,
    bootstrap: int,
) -> None:
    subset = score["hf_subset"]
    counts = counts_of_results(task.dataset[subset][split]["relevant_docs"], predictions)
    row: dict[str, Any] = names_of_rows(task, split, subset) | rank_scores(counts, seed=seed, bootstrap=bootstrap)
    row |= {ours: float(score[theirs]) for ours, theirs in _THEIR_SCORES.items()} | {"parallel": False}
    row["main_score"] = {"name": task.metadata.main_score, "value": float(score["main_score"])}
    results.rows.append(row)
    results.per_row[row_key(row)] = PerRow(np.arange(len(counts.above)), hit_at_1(counts), expected_rank(counts))


def names_of_rows(task: Any, split: str, subset: str) -> dict[str, Any]:
    """`TASK_KEYS` of a split and subset of a task of mteb, which name its row of results."""
    codes = {name: _language(task, name) for name in task.hf_subsets}
    language = codes[subset] if list(codes.values()).count(codes[subset]) == 1 else subset  # rows must not share a name
    name = task.metadata.name if len(task.eval_splits) == 1 else f"{task.metadata.name}:{split}"
    return dict(zip(TASK_KEYS, (BENCHMARK, name, str(task.metadata.category), language, STYLE), strict=True))


def _language(task: Any, subset: str) -> str:
    """The code of a subset's language, or its name where that tells more, such as `es-Mexico`."""
    code = subset_language(task.metadata, subset)
    return subset if subset.startswith(f"{code}-") else code
