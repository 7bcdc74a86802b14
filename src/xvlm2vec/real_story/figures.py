"""Two figures of a run: every language before and after, and whether the price of a script explains its gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .table import STAMPS, Report, costs, gain_of, in_order, is_wide, most_rows, name_of, scores_of

BEFORE, AFTER, MUTED = "#b4560f", "#1f5fbf", "#5b6270"
FIRST = 10  # of the candidates


def draw_languages(report: Report, kind: str, path: Path) -> None:
    """R@10 of each language with half of the stamps or more, the mean of both directions, as an SVG.

    The bar at a score after distillation is its standard deviation over the seeds.

    Args:
        report: The report.
        kind: The kind of adapter.
        path: The file.
    """
    codes = [code for code in in_order(report, kind) if is_wide(report, code)][::-1]
    figure, axes = _figure(9, 1.5 + 0.17 * len(codes))
    for place, code in enumerate(codes):
        before, after, deviation = scores_of(report, kind, code)
        axes.plot([before, after], [place, place], color=AFTER, alpha=0.3, linewidth=3, solid_capstyle="round")
        axes.errorbar(after, place, xerr=deviation, color=AFTER, marker="o", markersize=5, linewidth=1)
        axes.plot(before, place, color=BEFORE, marker="o", markersize=5, markerfacecolor="white", linestyle="none")
    axes.set_yticks(range(len(codes)), [name_of(report, code) for code in codes], fontsize=7)
    axes.set_ylim(-1, len(codes))
    rows, tasks = most_rows(report), " and ".join(STAMPS.tasks.values())
    guess = 100 * FIRST / rows
    axes.axvline(guess, color=MUTED, linestyle=":", linewidth=1)
    axes.text(guess, len(codes) - 0.8, "chance", ha="center", va="top", fontsize=7, color=MUTED)
    axes.set_xlabel(f"R@10 in percent, mean of {tasks}, of {rows} held-out stamps")
    axes.set_title("open: before, filled: after distillation", loc="left", fontsize=10)
    _save(figure, path)


def draw_tokens(report: Report, kind: str, path: Path) -> None:
    """What each taught language gained in R@10 over its tokens per character, as an SVG.

    Args:
        report: The report.
        kind: The kind of adapter.
        path: The file.
    """
    figure, axes = _figure(8, 5)
    cost, gained = prices_and_gains(report, kind)
    for code, gain in gained.items():
        axes.annotate(code, (cost[code], gain), fontsize=7, ha="center", va="center", color=AFTER)
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.8 * min(cost.values()), 1.25 * max(cost.values()))
    axes.set_ylim(min(gained.values()) - 1, max(gained.values()) + 1)
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.set_xlabel("tokens per character of the captions (logarithmic)")
    axes.set_ylabel("gained R@10, points")
    correlation = f"rank correlation {token_correlation(report, kind):+.2f}"
    axes.set_title(f"{len(gained)} taught languages, {correlation}", loc="left", fontsize=10)
    _save(figure, path)


def token_correlation(report: Report, kind: str) -> float:
    """Spearman's rank correlation of tokens per character and gain, over the taught languages."""
    from scipy.stats import spearmanr

    cost, gained = prices_and_gains(report, kind)
    return float(spearmanr(list(cost.values()), list(gained.values())).statistic)


def prices_and_gains(report: Report, kind: str) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens per character, and points of R@10, of the taught languages with half of the stamps or more."""
    cost = {code: price for code, price in costs(report).items() if code in report["taught"] and is_wide(report, code)}
    return cost, {code: gain_of(report, kind, code) for code in cost}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e7e4dd", linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    """Writes a file that is the same for the same numbers, with text as text."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "real story"}):
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")
