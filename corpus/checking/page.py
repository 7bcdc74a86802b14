"""The page of a check: rules, counts, and examples by rule and language; one file without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from xvlm2vec.common.files import write_text
from xvlm2vec.common.languages import language
from xvlm2vec.corpus.rules.registry import LINE
from xvlm2vec.corpus.rules.rule import Action, Rule

_MOST = 400


@dataclass(frozen=True)
class Example:
    """A row that shows what a rule finds.

    Attributes:
        place: Line or number of the row.
        english: The English text.
        text: The translation.
        reason: What is wrong.
        repaired: The repaired text, if it is repaired.
    """

    place: int
    english: str
    text: str
    reason: str
    repaired: str | None = None


def write_page(path: Path, name: str, result: Any, rules: Sequence[Rule]) -> None:
    """Writes the page.

    Args:
        path: The HTML file.
        name: What was checked.
        result: The counts and examples of a check (`CheckResult`).
        rules: The rules that were run.
    """
    env = Environment(
        loader=PackageLoader("xvlm2vec.corpus.checking", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["language_name"] = lambda code: language(code).name if code else ""
    env.filters["is_rtl"] = lambda code: bool(code) and language(code).rtl
    env.filters["cut"] = lambda text: text if len(text) <= _MOST else f"{text[:_MOST]}…"
    lines = Rule(LINE, "lines that cannot be read", lambda batch: ())
    html = env.get_template("page.html").render(
        name=name, result=result, sections=[_section(rule, result) for rule in (lines, *rules)]
    )
    write_text(path, html.encode("utf-8", "replace").decode())


def _section(rule: Rule, result: Any) -> dict[str, Any]:
    """What the page shows of a rule."""
    counts = {action: getattr(result, name)[rule.name] for action, name in
              ((Action.DROP, "dropped"), (Action.REPAIR, "repaired"), (Action.TELL, "told"))}  # fmt: skip
    examples = [
        (language(code) if code else None, rows)
        for (name, code), rows in sorted(result.examples.items(), key=lambda item: item[0])
        if name == rule.name
    ]
    return {"rule": rule, "counts": counts, "examples": examples, "found": any(counts.values())}
