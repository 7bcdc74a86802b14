"""Results as text: a Markdown table, a table for the terminal, and entries for a model card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xvlm2vec.common.result_keys import METRICS, TASK_KEYS
from xvlm2vec.eval.results import Results, row_key
from xvlm2vec.eval.sizes import size_summary

from .failing import PARTS, WORST, Failing, FailingLanguage, failing_languages
from .templates import percent

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, EvalResultEntry

Column = tuple[str, str, str, str]
"""Benchmark, data set, task and style."""

_SMALL = 0.001
_CARD_METRICS = {"p_at_1": "precision_at_1", "ndcg_at_10": "ndcg_at_10"}


@dataclass(frozen=True)
class Table:
    """Cells of a table, already formatted.

    Attributes:
        header: Names of the columns.
        rows: One list of cells per language, and a last one with the means.
        notes: Lines below the table.
    """

    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def score_table(
    results: Results, before: Results | None = None, *, metric: str = "p_at_1", intervals: bool = True
) -> Table:
    """Languages by tasks, in percent; `before -> after` where two results are given.

    Args:
        results: The results.
        before: Results of an earlier model on the same tasks.
        metric: One of `result_keys.METRICS`.
        intervals: Whether to show the 95% interval (of P@1 only).

    Raises:
        ValueError: The metric is unknown or there are no rows.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")
    if not results.rows:
        raise ValueError(f"the results of {results.model} have no rows")
    before_rows = {row_key(row): row for row in before.rows} if before else {}
    columns = list(dict.fromkeys(map(column_of, results.rows)))

    def cell(row: Mapping[str, Any]) -> str:
        earlier = before_rows.get(row_key(row))
        if metric not in row:
            return "-"
        value = percent(row[metric])
        if intervals and metric == "p_at_1":
            low, high = row["ci95"]
            value += f" [{percent(low)}, {percent(high)}]"
        return f"{percent(earlier[metric])} -> {value}" if earlier and metric in earlier else value

    rows = _by_language(results.rows, columns, cell)
    rows.append(["mean", *(_mean_cell(results, before, column, metric) for column in columns)])
    return Table(["language", *column_names(columns)], rows, _notes(results, before, metric, intervals))


def size_table(results: Results) -> Table:
    """Languages by smaller sizes of vectors: points of P@1 against full vectors, mean over the tasks.

    Raises:
        ValueError: No smaller sizes were scored.
    """
    sizes = size_summary(results.sizes)
    if not sizes:
        raise ValueError(f"the results of {results.model} have no smaller sizes; evaluate with --dims or --precision")
    languages = list(dict.fromkeys(language for size in sizes for language in size["loss_by_language"]))
    rows = [[language, *(_points(-size["loss_by_language"][language]) for size in sizes)] for language in languages]
    rows.append(["P@1", *(percent(size["p_at_1"]) for size in sizes)])
    notes = ["Points of P@1 gained or lost against full vectors, mean over the tasks; below, P@1 over all languages."]
    header = [f"{size['dim']} {size['precision']} ({size['bytes']} bytes)" for size in sizes]
    return Table(["language", *header], rows, notes)


def change_table(results: Results, before: Results) -> Table:
    """Languages by tasks: points of P@1 gained since `before` on the same rows, with the p value of a paired test.

    Raises:
        ValueError: The values of single rows are missing, or the two did not score the same rows.
    """
    changes = before.compare(results)
    columns = list(dict.fromkeys(map(column_of, changes)))

    def cell(change: Mapping[str, Any]) -> str:
        return f"{_points(change['difference'])} ({_p_value(change['p_value'])})"

    rows = _by_language(changes, columns, cell)
    notes = [f"Points of P@1, {before.model} -> {results.model}; two-sided paired permutation test over rows."]
    return Table(["language", *column_names(columns)], rows, notes)


def failing_table(
    results: Results, before: Results | None = None, *, metric: str = "p_at_1", most: int | None = None
) -> Table | None:
    """Languages by what their misses come from, the worst first; None where only English was scored.

    Args:
        results: The results.
        before: Results of an earlier model on the same tasks.
        metric: One of `result_keys.METRICS`.
        most: How many languages to show (default: all).
    """
    failing = failing_languages(results, before, metric)
    if failing is None:
        return None
    header = ["language", *_failing_columns(failing)]
    rows = [[one.lang.name, *_failing_cells(one, before is not None)] for one in failing.languages[:most]]
    english = "-" if failing.figures.english is None else percent(failing.figures.english)
    rows.append(["English", english, *["-"] * (len(header) - 2)])
    return Table(header, rows, _failing_notes(failing, results, before))


def _failing_columns(failing: Failing) -> list[str]:
    tested = ["p value"] if failing.before else []
    return [METRICS[failing.metric], *tested, "behind en", "tokens/char x en", "tokens/text x en", "unknown or bytes",
            "text found", "hubness", *(f"missed: {name}" for name in PARTS.values())]  # fmt: skip


def _failing_cells(one: FailingLanguage, compared: bool) -> list[str]:
    cells = [_arrow(one.before, one.score)]
    if compared:
        cells.append(_p_value(one.test.p_value) if one.test else "-")
    cells.append("-" if one.gap is None else percent(one.gap))
    cells += ["-" if times is None else f"{times:.1f}" for times in (one.over_english, one.text_over_english)]
    cells.append("-" if one.broken is None else percent(one.broken))
    cells.append("-" if one.found is None else _arrow(one.found_before, one.found))
    cells.append("-" if one.hubness is None else f"{one.hubness:.1f}")
    return cells + ["-" if name not in one.parts else percent(one.parts[name]) for name in PARTS]


def _arrow(before: float | None, after: float) -> str:
    return percent(after) if before is None else f"{percent(before)} -> {percent(after)}"


def _failing_notes(failing: Failing, results: Results, before: Results | None) -> list[str]:
    now, old, count = failing.figures, failing.before, len(failing.languages)
    parity = "" if now.parity is None else (
        f"; parity to English {_arrow(old.parity if old else None, now.parity)}%"
    )  # fmt: skip
    below = f"{old.below} -> {now.below}" if old else str(now.below)
    models = f"{before.model} -> {results.model}" if before else results.model
    return [
        f"{models}: {below} of {count} languages besides English below 50%; mean of the worst {min(WORST, count)} "
        f"{_arrow(old.worst if old else None, now.worst)}%{parity}.",
        "Text found: by the vectors of texts alone, the item's English text is the first of all English ones. Missed "
        "because of the text: it is not; English too: it is, and English misses the item as well; image: it is, and "
        "English finds the item. All in percent.",
    ]


def _p_value(value: float) -> str:
    return f"p < {_SMALL}" if value < _SMALL else f"p = {value:.3f}"


def markdown_table(results: Results, before: Results | None = None, **options: Any) -> str:
    """`score_table` as GitHub Markdown."""
    return as_markdown(score_table(results, before, **options))


def as_markdown(table: Table) -> str:
    """A table as GitHub Markdown, its notes below."""
    lines = [table.header, ["---"] + ["---:"] * (len(table.header) - 1), *table.rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return body + "\n\n" + "\n".join(table.notes) + "\n"


def terminal_table(results: Results, before: Results | None = None, *, width: int | None = None, **options: Any) -> str:
    """`score_table` as aligned plain text; columns that do not fit continue below.

    Args:
        results: The results.
        before: Results of an earlier model on the same tasks.
        width: Characters per line (default: that of the terminal).
        **options: As for `score_table`.
    """
    return as_text(score_table(results, before, **options), width)


def as_text(table: Table, width: int | None = None) -> str:
    """A table as aligned plain text; columns that do not fit `width` (default: the terminal) continue below."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    blocks = []
    for columns in _fitting(widths, width or shutil.get_terminal_size().columns):
        text = [
            "  ".join([line[0].ljust(widths[0]), *(line[column].rjust(widths[column]) for column in columns)]).rstrip()
            for line in lines
        ]
        rule = "-" * max(map(len, text))
        blocks.append("\n".join([text[0], rule, *text[1:-1], rule, text[-1]]))
    return "\n\n".join(blocks) + "\n\n" + "\n".join(table.notes) + "\n"


def eval_results(results: Results, *, dataset_type: str = "custom", task_type: str = "retrieval") -> list[EvalResult]:
    """Entries of a model card's `model-index`: P@1 and nDCG@10 in percent for each row.

    Args:
        results: The results.
        dataset_type: Id of the benchmark's data set on the Hub, if it has one.
        task_type: The Hub's name of the task.
    """
    from huggingface_hub import EvalResult

    # Entries of one configuration become one entry with the scores of all: so each row has a configuration of its own.
    configurations = _row_ids(results, TASK_KEYS, ("task", "language"))
    return [
        EvalResult(
            task_type=task_type,
            task_name=row["task"],
            dataset_type=dataset_type,
            dataset_name=f"{row['benchmark']} {row['dataset']} {row['task']} ({row['language']}, {row['style']})",
            dataset_config=configuration,
            dataset_split="test",
            metric_type=name,
            metric_name=METRICS[metric],
            metric_value=round(100 * row[metric], 2),
        )
        for row, configuration in zip(results.rows, configurations, strict=True)
        for metric, name in _CARD_METRICS.items()
        if metric in row
    ]


def eval_result_entries(results: Results, dataset_id: str) -> list[EvalResultEntry]:
    """Entries of a model repository's `.eval_results/*.yaml`: P@1 in percent for each row.

    The Hub shows them beside the benchmark `dataset_id`, if its `eval.yaml` names the same task ids: data set, task,
    language and style, of which those are left out that are the same everywhere.
    """
    from huggingface_hub import EvalResultEntry

    task_ids = _row_ids(results, ("dataset", "task", "language", "style"), ("task",))
    return [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id=task_id,
            value=round(100 * row["p_at_1"], 2),
            notes=f"P@1 in percent of {row['n']} rows, ties shared evenly{_instructions(row)}",
        )
        for row, task_id in zip(results.rows, task_ids, strict=True)
    ]


def _instructions(row: Mapping[str, Any]) -> str:
    return f"; instructions {row['templates']}" if row.get("templates") else ""


def _row_ids(results: Results, names: Sequence[str], always: Sequence[str]) -> list[str]:
    """A name for each row from those of its values that vary, and from those that are always named."""
    kept = [name for name in names if name in always or len({row[name] for row in results.rows}) > 1]
    return ["_".join(str(row[name]).replace(" ", "-") for name in kept) for row in results.rows]


def _by_language(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], cell: Callable[[Mapping[str, Any]], str]
) -> list[list[str]]:
    """The cells of each language, `-` where there is no row."""
    places = {(row["language"], column_of(row)): row for row in rows}
    languages = dict.fromkeys(row["language"] for row in rows)
    return [
        [language, *(cell(places[language, column]) if (language, column) in places else "-" for column in columns)]
        for language in languages
    ]


def _mean_cell(results: Results, before: Results | None, column: Column, metric: str) -> str:
    means = [
        percent(float(np.mean(values)))
        for one in (before, results)
        if one and (values := [row[metric] for row in one.rows if column_of(row) == column and metric in row])
    ]
    return " -> ".join(means) or "-"


def column_of(row: Mapping[str, Any]) -> Column:
    """The column of a table that a row of results belongs to."""
    return (row["benchmark"], row["dataset"], row["task"], row["style"])


def column_names(columns: Sequence[Column]) -> list[str]:
    """The task, and of benchmark, data set and style what is not the same everywhere."""
    varies = [len({column[i] for column in columns}) > 1 for i in range(4)]
    return [" ".join([column[2], *(column[i] for i in (0, 1, 3) if varies[i])]) for column in columns]


def _notes(results: Results, before: Results | None, metric: str, intervals: bool) -> list[str]:
    rows = results.rows
    counts = sorted({row["n"] for row in rows})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    first = f"{METRICS[metric]} in percent of {n} rows each"
    if metric == "p_at_1" and intervals:
        first += ", with 95% bootstrap intervals"
    models = f"{before.model} -> {results.model}" if before else results.model
    skipped, ties = (sum(row.get(name, 0) for row in rows) for name in ("skipped", "ties"))
    return [
        f"{models}: {first}; ties shared evenly.",
        f"Rows left out for want of a query text: {skipped}; rows tied: {ties} of {sum(row['n'] for row in rows)}.",
        *filter(None, [fault_sentence(rows)]),
    ]


def fault_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many rows the known faults of the data concern, and what the worst task scores without them; or nothing."""
    concerned = [row for row in rows if row.get("faults")]
    if not concerned:
        return ""
    count = sum(row["n"] - row.get("without_faults", {"n": 0})["n"] for row in concerned)
    worst = max(concerned, key=lambda row: sum(row["faults"].values()))
    kinds = ", ".join(f"{name}: {number}" for name, number in worst["faults"].items())
    text = f"Known faults of the data concern {count} rows, most in {worst['task']} {worst['language']} ({kinds})"
    if "without_faults" not in worst:
        return f"{text}, where nothing else is left."
    others = worst["without_faults"]["p_at_1"]
    return f"{text}: P@1 {100 * worst['p_at_1']:.1f}, without them {100 * others:.1f}."


def _fitting(widths: list[int], limit: int) -> list[list[int]]:
    """Split the columns after the first into groups whose lines fit the limit, one column at least."""
    groups: list[list[int]] = []
    room = 0
    for column in range(1, len(widths)):
        needed = widths[column] + 2
        if not groups or needed > room:
            groups.append([])
            room = limit - widths[0]
        groups[-1].append(column)
        room -= needed
    return groups


def _points(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # no negative zero
