"""Every language of a run as a row of a Markdown table: before, after, and what its texts cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from xvlm2vec.common.languages import language

from .report import WIDE, by_kind

ENGLISH, TEACHER, STAMPS = "en", "teacher", "stamps"
TASKS = {"stamps/t2i": "image by text", "stamps/i2t": "text by image"}

Report = Mapping[str, Any]
"""The content of `report.json`."""


def language_table(report: Report, kinds: Sequence[str]) -> str:
    """R@10 of the stamps in every language that was measured, in percent.

    Args:
        report: The report.
        kinds: Kinds of adapters, such as `activated`.
    """
    heads = ["language", "texts taught", "tokens per character", "rows"]
    for title in TASKS.values():
        heads += [f"{title}: before", *kinds]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [_row(report, kinds, code) for code in in_order(report, kinds[0])]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_order(report: Report, kind: str) -> list[str]:
    """English, the taught languages from the largest gain to the smallest, the controls, then those with few rows."""

    def place(code: str) -> tuple[int, float, str]:
        group = 0 if code == ENGLISH else 3 if not is_wide(report, code) else 2 if code in report["controls"] else 1
        return group, -gain_of(report, kind, code), code

    return sorted(_cells(report), key=place)


def gain_of(report: Report, kind: str, code: str) -> float:
    """What distillation added to a language's R@10, in points: the mean of both directions and of the seeds."""
    before, after, _ = scores_of(report, kind, code)
    return after - before


def scores_of(report: Report, kind: str, code: str) -> tuple[float, float, float]:
    """R@10 before and after in percent, the mean of both directions, and its standard deviation over the seeds."""

    def of_model(name: str) -> float:
        return 100 * mean(report["scores"][name][STAMPS][task][code]["r_at_10"] for task in TASKS)

    after = [of_model(name) for name in by_kind([name for name in report["scores"] if name != TEACHER])[kind]]
    return of_model(TEACHER), mean(after), stdev(after) if len(after) > 1 else 0.0


def is_wide(report: Report, code: str) -> bool:
    """Whether a language has so many of the stamps that its scores are compared with others'."""
    return bool(_cells(report)[code]["n"] >= WIDE * most_rows(report))


def most_rows(report: Report) -> int:
    """Stamps of the language that has most."""
    return max(cell["n"] for cell in _cells(report).values())


def costs(report: Report) -> dict[str, float]:
    """Tokens per character of the captions of each language."""
    return {code: cost["per_character"] for code, cost in report["tokens"][STAMPS].items()}


def name_of(report: Report, code: str) -> str:
    """A language's name; controls are marked."""
    return language(code).name + (" (control)" if code in report["controls"] else "")


def _cells(report: Report) -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = report["scores"][TEACHER][STAMPS]["stamps/t2i"]
    return cells


def _row(report: Report, kinds: Sequence[str], code: str) -> list[str]:
    taught = 0 if code in report["controls"] else report["rows"]["train"]["texts"].get(code, 0)
    cost = costs(report).get(code)
    row = [name_of(report, code), f"{taught:,}", "" if cost is None else f"{cost:.2f}", str(_cells(report)[code]["n"])]
    for task in TASKS:
        row.append(_before(report["scores"][TEACHER][STAMPS][task][code]))
        row += [_after(report["spread"][STAMPS][kind][f"{task}/{code}"]["r_at_10"]) for kind in kinds]
    return row


def _before(cell: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in cell["r_at_10_ci95"])
    return f"{100 * cell['r_at_10']:.1f} ({low:.0f} to {high:.0f})"


def _after(seeds: Mapping[str, float]) -> str:
    deviation = seeds.get("standard_deviation")
    return f"{100 * seeds['mean']:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
