"""What a run of the real story found: each language before and after, and what its script costs."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from xvlm2vec.common.result_keys import CELL_KEYS
from xvlm2vec.eval.results import FILE, Results

TOKENS = "tokens"


def story_report(scores: Path, teacher: str, students: Sequence[str], **more: Any) -> dict[str, Any]:
    """Everything that the page of the real story says in numbers.

    Args:
        scores: Where each model has a folder, and in it one for each benchmark.
        teacher: Name of the model before distillation.
        students: Names of those after.
        **more: Entries that stand first.
    """
    results = {name: read_scores(scores / name) for name in (teacher, *students)}
    benchmarks = results[teacher]
    return {
        **more,
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "scores": {name: {bench: cells(found) for bench, found in held.items()} for name, held in results.items()},
        "tokens": {bench: tokens(found) for bench, found in benchmarks.items()},
        "spread": {bench: spread(results, students, bench) for bench in benchmarks},
        "versions": next(iter(benchmarks.values())).versions,
    }


def read_scores(folder: Path) -> dict[str, Results]:
    """The results of a model by benchmark."""
    return {path.parent.name: Results.load(path.parent) for path in sorted(folder.glob(f"*/{FILE}"))}


def cells(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """`{data set/task: {language: {"p_at_1", "n", "ci95"}}}`."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for row in results.rows:
        cell = {name: row[name] for name in CELL_KEYS}
        table.setdefault(f"{row['dataset']}/{row['task']}", {})[row["language"]] = cell
    return table


def tokens(results: Results) -> dict[str, dict[str, float]]:
    """What the tokenizer makes of each language's texts, as evaluations count it: tokens per character and the like."""
    return {row["language"]: row[TOKENS] for row in results.rows if row.get(TOKENS)}


def spread(
    results: dict[str, dict[str, Results]], students: Sequence[str], benchmark: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation over the seeds of each kind of adapter, by data set, task and language."""
    kinds: dict[str, list[str]] = {}
    for name in students:
        kinds.setdefault(name.rpartition("-")[0], []).append(name)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind, names in kinds.items():
        tables = [cells(results[name][benchmark]) for name in names]
        for task, languages in tables[0].items():
            for language in languages:
                values = [table[task][language]["p_at_1"] for table in tables]
                summary = {"mean": mean(values), "seeds": float(len(values))}
                summary |= {"standard_deviation": stdev(values)} if len(values) > 1 else {}
                found.setdefault(kind, {})[f"{task}/{language}"] = summary
    return found
