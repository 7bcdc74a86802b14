"""Languages, instructions and list formatting of the emoji world."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

DATA_FOLDER = Path(__file__).resolve().parent / "data"
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "id", "tr", "ru", "fa", "ar", "zh", "ja", "ko")
"""Languages with names, instructions and questions."""
MORE_PATTERNS = "more_list_patterns.json"
TASKS = ("c", "i2t", "t2i", "vqa", "vg")
SIDES = ("left", "right")


@cache
def more_languages() -> tuple[str, ...]:
    """Further languages, which have names and the word for "and"; their instructions are the English ones."""
    return tuple(sorted(_load_json(MORE_PATTERNS)))


def all_languages() -> tuple[str, ...]:
    """All languages of the emoji world."""
    return LANGUAGES + more_languages()


def check_languages(codes: Iterable[str], allowed: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the codes as a tuple.

    Args:
        codes: Codes of languages.
        allowed: What they may be (default: all languages).

    Raises:
        ValueError: a code is not among `allowed`; the message lists those and the closest ones.
    """
    codes = tuple(codes)
    allowed = all_languages() if allowed is None else allowed
    for code in codes:
        if code not in allowed:
            known = [one for one in allowed if one in LANGUAGES]
            close = difflib.get_close_matches(str(code).lower(), known, n=3, cutoff=0.4)
            close += [one for one in difflib.get_close_matches(str(code), allowed, cutoff=0.6) if one not in close]
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise ValueError(f"Unknown language code {code!r}.{hint} Known codes: {', '.join(allowed)}")
    return codes


@cache
def _load_json(name: str) -> dict[str, Any]:
    return json.loads((DATA_FOLDER / name).read_text(encoding="utf-8"))


def instructions() -> dict[str, dict[str, dict[str, str]]]:
    """All instructions, `{task: {language: {"query": template, "target": template}}}`.

    A template with `{text}` takes the query's or target's own text there. Further languages have the English ones.
    """
    return {task: _load_json("emoji_instructions.json")[task] for task in TASKS}


def instruct(task: str, language: str, role: str, text: str = "") -> str:
    """The text a model reads: the instruction of a task with `text` inserted.

    Args:
        task: one of `TASKS`.
        language: one of `all_languages()`; those beyond `LANGUAGES` are instructed in English.
        role: "query" or "target".
        text: what replaces `{text}`.
    """
    by_language = _load_json("emoji_instructions.json")[task]
    return by_language["en" if language in more_languages() else language][role].replace("{text}", text)


def question(language: str, side: str, name: str) -> str:
    """The question of the vqa task: what is directly left or right of the thing of this name?"""
    return _load_json("emoji_instructions.json")["vqa_question"][language][side].replace("{name}", name)


def join_names(names: Sequence[str], language: str) -> str:
    """Joins names with the language's "and" (Unicode list patterns).

    Raises:
        ValueError: no names were given.
    """
    if not names:
        raise ValueError("join_names needs at least one name")
    if len(names) == 1:
        return names[0]
    pattern = _load_json(MORE_PATTERNS if language in more_languages() else "list_patterns.json")[language]
    if len(names) == 2:
        return _fill(pattern["2"], names[0], names[1])
    joined = names[0]
    for position, name in enumerate(names[1:], start=1):
        form = "start" if position == 1 else "end" if position == len(names) - 1 else "middle"
        joined = _fill(pattern[form], joined, name)
    return joined


def _fill(pattern: str, first: str, second: str) -> str:
    """Puts two texts into a pattern at once, so that braces in a name are left alone."""
    return re.sub(r"\{[01]\}", lambda place: first if place[0] == "{0}" else second, pattern)
