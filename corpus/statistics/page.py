"""The page of `corpus stats`: counts and plots in one file that loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from xvlm2vec.common.files import write_text
from xvlm2vec.common.languages import language

_WIDTH = 320
"""Of a full bar, in pixels."""


def write_page(path: Path, name: str, stats: dict[str, Any]) -> None:
    """Writes the page.

    Args:
        path: The HTML file.
        name: The corpus.
        stats: `CorpusStats.as_json`.
    """
    env = Environment(
        loader=PackageLoader("xvlm2vec.corpus.statistics", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["count"] = lambda number: "" if number is None else f"{number:,}"
    languages = [{"code": code, "name": language(code).name, **counts} for code, counts in stats["languages"].items()]
    html = env.get_template("page.html").render(
        name=name,
        stats=stats,
        languages=languages,
        plots=[plot for plot in _plots(stats, languages) if plot["bars"]],
    )
    write_text(path, html.encode("utf-8", "replace").decode())


def _plots(stats: dict[str, Any], languages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is drawn: a title, a sentence, and bars."""
    others = [counts for counts in languages if counts["code"] != "en"]
    per_row, longest = stats["translations_per_row"], "characters_per_text"
    plots = [
        _plot("Coverage", "Share of the rows that have a text in the language.", others, "coverage", full=1.0),
        _plot("Length", "Characters against those of the English texts of the same rows; the line is 1.", others,
              "characters_against_english", line=1.0),
        {"title": "Translations of a row", "note": "Rows by their number of translations.", "line": None,
         "bars": _bars([(count, rows, f"{rows:,}") for count, rows in per_row.items()])},
        {"title": "Characters of a text", "note": "The median.", "line": None,
         "bars": _bars([(counts["name"], counts[longest]["median"], str(counts[longest]["median"]))
                        for counts in languages])},
    ]  # fmt: skip
    if stats["tokenizer"]:
        note = f"Tokens of {stats['tokenizer']} for each character, against English; the line is 1."
        plots.insert(1, _plot("Tokens per character", note, others, "tokens_per_character_against_english", line=1.0))
        note = "Tokens of a text against those of its English text: what the language costs; the line is 1."
        plots.insert(2, _plot("Tokens per text", note, others, "tokens_against_english", line=1.0))
    return plots


def _plot(
    title: str, note: str, languages: list[dict[str, Any]], key: str, full: float | None = None,
    line: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A bar for each language."""
    shown = "{:.0%}" if full is not None else "{:.2f}"
    values = [(counts["name"], counts[key], shown.format(counts[key])) for counts in languages if counts[key]]
    most = full or max([line or 0.0, *(value for _, value, _ in values)])
    return {"title": title, "note": note, "line": None if line is None else _WIDTH * line / most,
            "bars": _bars(values, most)}  # fmt: skip


def _bars(values: list[tuple[str, float, str]], most: float | None = None) -> list[dict[str, Any]]:
    """Labels, widths and values."""
    most = most or max((value for _, value, _ in values), default=1.0) or 1.0
    return [{"label": label, "width": _WIDTH * value / most, "value": text} for label, value, text in values]
