"""Instructions around texts and images, by task and language, and the styles in which texts end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

Templates = Mapping[str, Mapping[str, Mapping[str, str]]]
"""`{task: {language: {"query": ..., "target": ...}}}`: `{text}` is a row's text, `*` stands for all other languages."""

STYLES = ("plain", "punct", "newline")
VERBATIM = "verbatim"  # no style at all: for benchmarks whose texts are to be embedded as they are
_ENDS = ".?!。？！؟।"
_SIDES = ("query", "target")

NO_INSTRUCTIONS: Templates = {
    task: {"*": {"query": query, "target": target}}
    for task, query, target in (
        ("c", "", "{text}"),
        ("i2t", "", "{text}"),
        ("t2i", "{text}", ""),
        ("vqa", "{text}", "{text}"),
        ("vg", "{text}", ""),
        ("page", "{text}", ""),
        ("product", "{text}", "{text}"),
        ("retrieval", "{text}", "{text}"),
    )
}
"""For models that take no instructions, such as those of two towers: images alone, texts as they are."""


def mmmeb_instructions() -> Templates:
    """Our instructions for MMMEB: all five tasks in en, it, es, fr and de."""
    return _shipped("templates_mmmeb.json")


def instructions() -> Templates:
    """Our instructions for every task of every benchmark; `*` stands for the languages without any of their own."""
    mmmeb, further = mmmeb_instructions(), _shipped("templates_benchmarks.json")
    return {task: {**mmmeb.get(task, {}), **further.get(task, {})} for task in {**mmmeb, **further}}


def _shipped(name: str) -> Templates:
    return json.loads(resources.files("xvlm2vec.eval.benchmarks").joinpath(name).read_text(encoding="utf-8"))


def read_templates(path: str | Path) -> Templates:
    """Read instructions from a JSON file; null is the same as none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, or not of the form of `Templates`; names the place.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there are no instructions {path}; pass a file with --templates, as "
            '{"t2i": {"en": {"query": "Find: {text}", "target": "An image"}}}'
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error
    for task, languages in _items(content, path, "the file"):
        for language, sides in _items(languages, path, repr(task)):
            for side, text in _items(sides, path, f"{task!r}, {language!r}"):
                if side not in _SIDES or not isinstance(text, str | None):
                    raise ValueError(f"{path}: {task!r}, {language!r} may hold texts for query and target, no {side!r}")
    return {
        task: {code: {side: text for side, text in sides.items() if text is not None} for code, sides in codes.items()}
        for task, codes in content.items()
    }


def _items(value: Any, path: Path, where: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {where} must be an object, not {value!r:.60}")
    return list(value.items())


def templates_hash(templates: Templates) -> str:
    """Short name of a set of instructions: equal for equal contents."""
    return hashlib.sha256(json.dumps(templates, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def sides_for(templates: Templates, task: str, language: str) -> Mapping[str, str]:
    """The instructions of a task in a language; `*` stands for all other languages."""
    by_language = templates.get(task) or {}
    return by_language.get(language) or by_language.get(language.split("-")[0]) or by_language.get("*") or {}


def apply_style(text: str, style: str, mark: str = ".") -> str:
    """Format a text in one of MMMEB's three styles.

    `plain` drops one final `.` or `?`; `punct` ends the text with `mark` unless it ends like a sentence already;
    `newline` is `punct` and a line break. `VERBATIM` changes nothing, and an empty text stays empty.

    Raises:
        ValueError: The style is unknown.
    """
    if style not in (*STYLES, VERBATIM):
        raise ValueError(f"unknown style {style!r}; choose from {', '.join((*STYLES, VERBATIM))}")
    if style == VERBATIM or not text:
        return text
    if style == "plain":
        return text[:-1] if text.endswith((".", "?")) else text
    ended = text if text.endswith(tuple(_ENDS)) else text + mark
    return ended + "\n" if style == "newline" else ended
