"""Every language of a run as a row of Markdown tables: before, after, and what its texts cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from xvlm2vec.common.languages import language

from .report import WIDE, by_kind

ENGLISH, TEACHER = "en", "teacher"
BY_TEXT, BY_IMAGE = "image by text", "text by image"

Report = Mapping[str, Any]
"""The content of `report.json`."""


@dataclass(frozen=True)
class Held:
    """What was held out, and is a table of its own.

    Attributes:
        title: Above the table.
        benchmark: Name in the report.
        tasks: Titles of its tasks, by data set and task.
    """

    title: str
    benchmark: str
    tasks: Mapping[str, str]


def _both(title: str, benchmark: str, dataset: str) -> Held:
    return Held(title, benchmark, {f"{dataset}/t2i": BY_TEXT, f"{dataset}/i2t": BY_IMAGE})


STAMPS = _both("Stamps", "stamps", "stamps")
TABLES = (
    STAMPS,
    _both("Symbols", "stamps", "symbols"),
    _both("Drawings", "stamps", "drawings"),
    _both("Sentences of GCompris", "sentences", "sentences"),
    Held("Names of emoji, in a drawing style that was not taught", "emoji", {"twitter/c": BY_IMAGE}),
)


def language_tables(report: Report, kinds: Sequence[str]) -> str:
    """R@10 of all that was measured, in every language that it has, in percent.

    Args:
        report: The report.
        kinds: Kinds of adapters, such as `activated`.
    """
    scores, spread = report["scores"][TEACHER], report["spread"]
    there = [
        held for held in TABLES if set(held.tasks) <= set(scores.get(held.benchmark, ())) and spread[held.benchmark]
    ]
    return "\n".join(f"## {held.title}\n\n{language_table(report, kinds, held)}" for held in there)


def language_table(report: Report, kinds: Sequence[str], held: Held = STAMPS) -> str:
    """R@10 in every language that was measured, in percent.

    Args:
        report: The report.
        kinds: Kinds of adapters, such as `activated`; those that were not measured are left out.
        held: What was held out.
    """
    kinds = [kind for kind in kinds if kind in report["spread"][held.benchmark]]
    heads = ["language", "texts taught", "tokens per character", "rows"]
    for title in held.tasks.values():
        heads += [f"{title}: before", *kinds]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [_row(report, kinds, code, held) for code in in_order(report, kinds[0], held)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_order(report: Report, kind: str, held: Held = STAMPS) -> list[str]:
    """English, the taught languages from the largest gain to the smallest, the controls, then those with few rows."""

    def place(code: str) -> tuple[int, float, str]:
        narrow, control = not is_wide(report, code, held), code in report["controls"]
        group = 0 if code == ENGLISH else 3 if narrow else 2 if control else 1
        return group, -gain_of(report, kind, code, held), code

    return sorted(_cells(report, held), key=place)


def gain_of(report: Report, kind: str, code: str, held: Held = STAMPS) -> float:
    """What distillation added to a language's R@10, in points: the mean of all tasks and of the seeds."""
    before, after, _ = scores_of(report, kind, code, held)
    return after - before


def scores_of(report: Report, kind: str, code: str, held: Held = STAMPS) -> tuple[float, float, float]:
    """R@10 before and after in percent, the mean of all tasks, and its standard deviation over the seeds."""

    def of_model(name: str) -> float:
        return 100 * mean(report["scores"][name][held.benchmark][task][code]["r_at_10"] for task in held.tasks)

    students = [name for name in report["scores"] if name != TEACHER and held.benchmark in report["scores"][name]]
    after = [of_model(name) for name in by_kind(students)[kind]]
    return of_model(TEACHER), mean(after), stdev(after) if len(after) > 1 else 0.0


def is_wide(report: Report, code: str, held: Held = STAMPS) -> bool:
    """Whether a language has so many of the rows that its scores are compared with others'."""
    return bool(_cells(report, held)[code]["n"] >= WIDE * most_rows(report, held))


def most_rows(report: Report, held: Held = STAMPS) -> int:
    """Rows of the language that has most."""
    return max(cell["n"] for cell in _cells(report, held).values())


def costs(report: Report, held: Held = STAMPS) -> dict[str, float]:
    """Tokens per character of the texts of each language."""
    return {code: cost["per_character"] for code, cost in report["tokens"][held.benchmark].items()}


def name_of(report: Report, code: str) -> str:
    """A language's name; controls are marked."""
    return language(code).name + (" (control)" if code in report["controls"] else "")


def _cells(report: Report, held: Held) -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = report["scores"][TEACHER][held.benchmark][next(iter(held.tasks))]
    return cells


def _row(report: Report, kinds: Sequence[str], code: str, held: Held) -> list[str]:
    taught = 0 if code in report["controls"] else report["rows"]["train"]["texts"].get(code, 0)
    cost, rows = costs(report, held).get(code), _cells(report, held)[code]["n"]
    row = [name_of(report, code), f"{taught:,}", "" if cost is None else f"{cost:.2f}", str(rows)]
    for task in held.tasks:
        row.append(_before(report["scores"][TEACHER][held.benchmark][task][code]))
        row += [_after(report["spread"][held.benchmark][kind][f"{task}/{code}"]["r_at_10"]) for kind in kinds]
    return row


def _before(cell: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in cell["r_at_10_ci95"])
    return f"{100 * cell['r_at_10']:.1f} ({low:.0f} to {high:.0f})"


def _after(seeds: Mapping[str, float]) -> str:
    deviation = seeds.get("standard_deviation")
    return f"{100 * seeds['mean']:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
