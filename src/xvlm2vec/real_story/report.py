"""What a run of the real story found: each language before and after, and what its script costs."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.result_keys import CELL_KEYS
from xvlm2vec.eval.bootstrap import bootstrap_ci, paired_test
from xvlm2vec.eval.results import FILE, PerRow, Results, row_key

TOKENS = "tokens"
METRICS = ("p_at_1", "r_at_10")
WIDE = 0.5
"""A language is in the means if it has at least this share of the rows."""


def story_report(
    scores: Path, teacher: str, students: Sequence[str], taught: Sequence[str], **more: Any
) -> dict[str, Any]:
    """Everything that the page of the real story says in numbers.

    Args:
        scores: Where each model has a folder, and in it one for each benchmark.
        teacher: Name of the model before distillation.
        students: Names of those after.
        taught: Codes of the languages that distillation has taught.
        **more: Entries that stand first.
    """
    results = {name: read_scores(scores / name) for name in (teacher, *students)}
    benchmarks = results[teacher]
    tables = {name: {bench: cells(found) for bench, found in held.items()} for name, held in results.items()}
    return {
        **more,
        "taught": list(taught),
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "scores": tables,
        "tokens": {bench: tokens(found) for bench, found in benchmarks.items()},
        "spread": {bench: spread(tables, students, bench) for bench in benchmarks},
        "gains": {
            bench: {
                kind: gains(found, [results[name][bench] for name in names], taught)
                for kind, names in by_kind(measured_on(results, students, bench)).items()
            }
            for bench, found in benchmarks.items()
        },
        "versions": next(iter(benchmarks.values())).versions,
    }


def read_scores(folder: Path) -> dict[str, Results]:
    """The results of a model by benchmark."""
    return {path.parent.name: Results.load(path.parent) for path in sorted(folder.glob(f"*/{FILE}"))}


def by_kind(students: Sequence[str]) -> dict[str, list[str]]:
    """The students of each kind of adapter, which differ in their seeds."""
    kinds: dict[str, list[str]] = {}
    for name in students:
        kinds.setdefault(name.rpartition("-")[0], []).append(name)
    return kinds


def measured_on(found: Mapping[str, Mapping[str, Any]], students: Sequence[str], benchmark: str) -> list[str]:
    """The students that have scores on a benchmark."""
    return [name for name in students if benchmark in found[name]]


def cells(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """`{data set/task: {language: {"p_at_1", "n", "ci95", "r_at_10", "r_at_10_ci95"}}}`.

    Intervals are for 95%, by resampling rows; that of R@10 is left out where single rows are not kept.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for row in results.rows:
        cell = {name: row[name] for name in (*CELL_KEYS, "r_at_10")}
        single = results.per_row.get(row_key(row))
        if single is not None:
            cell["r_at_10_ci95"] = list(bootstrap_ci(values_of(single, "r_at_10")))
        table.setdefault(f"{row['dataset']}/{row['task']}", {})[row["language"]] = cell
    return table


def tokens(results: Results) -> dict[str, dict[str, float]]:
    """What the tokenizer makes of each language's texts, as evaluations count it: tokens per character and the like."""
    return {row["language"]: row[TOKENS] for row in results.rows if row.get(TOKENS)}


def spread(
    scores: Mapping[str, Mapping[str, Any]], students: Sequence[str], benchmark: str
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Mean and standard deviation over the seeds of each kind of adapter, by data set, task, language and metric.

    Args:
        scores: What `cells` gave, by model and benchmark.
        students: Names of the models after distillation.
        benchmark: Name of the benchmark.
    """
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for kind, names in by_kind(measured_on(scores, students, benchmark)).items():
        tables = [scores[name][benchmark] for name in names]
        for task, languages in tables[0].items():
            for language in languages:
                of_metric = {}
                for metric in METRICS:
                    values = [table[task][language][metric] for table in tables if task in table]
                    of_metric[metric] = {"mean": mean(values), "seeds": float(len(values))}
                    of_metric[metric] |= {"standard_deviation": stdev(values)} if len(values) > 1 else {}
                found.setdefault(kind, {})[f"{task}/{language}"] = of_metric
    return found


def gains(before: Results, after: Sequence[Results], taught: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What distillation gave the taught languages on average, with an interval over the things that are looked for.

    Languages show the same images, so that their scores rise and fall together: a row of the test is an image with
    the mean over its languages and over the seeds, and images are resampled. Languages that have fewer than half of
    the rows are left out of the means.

    Args:
        before: Scores of the teacher.
        after: Those of the students of one kind, one for each seed; of these, the ones that have a data set count.
        taught: Codes of the languages.

    Returns:
        By data set and task: the number of `languages`, and for each metric the means `before` and `after`, their
        `difference`, its 95% interval `ci95`, `p_value` (paired sign flips), and what each of the `seeds` has after.
    """
    wanted, found = set(taught), {}
    tasks: dict[str, list[tuple[str, ...]]] = {}
    most: dict[str, int] = {}
    for row in before.rows:
        name = f"{row['dataset']}/{row['task']}"
        most[name] = max(most.get(name, 0), row["n"])
        tasks.setdefault(name, []).append(row_key(row))
    of_key = {row_key(row): row for row in before.rows}
    for name, keys in tasks.items():
        keys = [
            key
            for key in keys
            if of_key[key]["language"] in wanted and key in before.per_row and of_key[key]["n"] >= WIDE * most[name]
        ]
        seeds = [results for results in after if set(keys) <= results.per_row.keys()]
        if keys:
            found[name] = {"languages": len(keys), **{metric: _gain(before, seeds, keys, metric) for metric in METRICS}}
    return found


def _gain(before: Results, after: Sequence[Results], keys: Sequence[tuple[str, ...]], metric: str) -> dict[str, Any]:
    first, second = means_of_rows([before], keys, metric), means_of_rows(after, keys, metric)
    test = paired_test(first, second)
    return {
        "before": float(first.mean()),
        "after": float(second.mean()),
        "difference": test.difference,
        "ci95": [test.low, test.high],
        "p_value": test.p_value,
        "rows": test.n,
        "seeds": [float(means_of_rows([results], keys, metric).mean()) for results in after],
    }


def means_of_rows(models: Sequence[Results], keys: Sequence[tuple[str, ...]], metric: str) -> npt.NDArray[np.floating]:
    """For each row that any of the tasks has, in the order of their ids, the mean over tasks and models."""
    values: dict[int, list[float]] = {}
    for results in models:
        for key in keys:
            single = results.per_row[key]
            for row, value in zip(single.row_ids.tolist(), values_of(single, metric).tolist(), strict=True):
                values.setdefault(row, []).append(value)
    return np.array([mean(values[row]) for row in sorted(values)])


def values_of(single: PerRow, metric: str) -> npt.NDArray[np.floating]:
    """The values of single rows whose mean a metric is; rows whose rank is shared count by their expected rank."""
    return np.asarray(single.hits if metric == "p_at_1" else single.ranks < 10, dtype=np.float64)
