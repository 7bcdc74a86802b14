"""The baseline that everyone asks for: the same model on queries that were translated into English."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xvlm2vec.common.languages import comparable_code

from .ranking import RankingTask, Row

logger = logging.getLogger(__name__)

STYLE = "translated"  # how the styles of such tasks end
Translate = Callable[[Sequence[str], str], Iterable[tuple[int, str | None, str]]]
"""Takes texts and their language; yields the number of a text, its English or None, and what is wrong."""


@dataclass(frozen=True)
class Entry:
    """One translation.

    Attributes:
        english: The text in English; None where it could not be had.
        problem: Why not.
        seconds: What it took, if that is known.
    """

    english: str | None
    problem: str = ""
    seconds: float | None = None


class TranslatedQueries:
    """Queries in English, as JSON lines: `{"language": "de", "text": "ein Hund", "english": "a dog"}`.

    `problem` and `seconds` may be there, too. A file that this class writes is read again after an interruption, and
    may be edited and passed as a file.

    Args:
        path: The file; made with the first translation.

    Raises:
        ValueError: A line is damaged; names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[tuple[str, str], Entry] = {}
        if path.is_file():
            self._read()

    def get(self, language: str, text: str) -> Entry | None:
        """The translation of a text, if there is any."""
        return self.entries.get((comparable_code(language), text))

    def add(self, language: str, found: Sequence[tuple[str, Entry]]) -> None:
        """Adds translations, on disk when it returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for text, entry in found:
            self.entries[comparable_code(language), text] = entry
            fields = {"language": language, "text": text, "english": entry.english}
            more = {"problem": entry.problem or None, "seconds": entry.seconds}
            lines.append(json.dumps(fields | {k: v for k, v in more.items() if v is not None}, ensure_ascii=False))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def fill(self, wanted: Mapping[str, Sequence[str]], translate: Translate, batch: int = 32) -> None:
        """Translates what is missing.

        Args:
            wanted: Distinct texts by language.
            translate: The translator.
            batch: Texts that are written at a time.
        """
        for language, texts in wanted.items():
            missing = [text for text in texts if self.get(language, text) is None]
            logger.info("Translating %d queries from %s", len(missing), language)
            started, found = time.perf_counter(), list[tuple[str, str | None, str]]()
            for number, english, problem in translate(missing, language):
                found.append((missing[number], english, problem))
                if len(found) == batch:
                    started = self._add_timed(language, found, started)
                    found = []
            if found:
                self._add_timed(language, found, started)

    def _add_timed(self, language: str, found: Sequence[tuple[str, str | None, str]], started: float) -> float:
        """Adds translations with each one's share of the time since then; returns the time now."""
        now = time.perf_counter()
        share = round((now - started) / len(found), 6)
        self.add(language, [(text, Entry(english, problem, share)) for text, english, problem in found])
        return now

    def _read(self) -> None:
        content = self.path.read_bytes()
        lines = content.splitlines()
        if content and not content.endswith(b"\n") and not _is_json(lines[-1]):  # an interruption left half a line
            with open(self.path, "r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
            lines = lines[:-1]
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                english, text = row["english"], row["text"]
                if not isinstance(text, str) or not isinstance(english, str | None):
                    raise TypeError("text and english must be texts")
                entry = Entry(english or None, row.get("problem") or "", row.get("seconds"))
                self.entries[comparable_code(row["language"]), text] = entry
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{self.path}, line {number}: not of the form "
                    f'{{"language": "de", "text": "ein Hund", "english": "a dog"}} ({error!r})'
                ) from error


def queries_to_translate(tasks: Sequence[RankingTask]) -> dict[str, list[str]]:
    """The distinct texts of queries in other languages than English, without their instructions, by language."""
    wanted: dict[str, dict[str, None]] = {}
    for task in tasks:
        if _is_translatable(task) and task.asked is not None:
            wanted.setdefault(task.language, {}).update(dict.fromkeys(text for text in task.asked.texts if text))
    return {language: list(texts) for language, texts in wanted.items() if texts}


def translated_tasks(tasks: Sequence[RankingTask], queries: TranslatedQueries, name: str) -> list[RankingTask]:
    """Each task whose queries are texts in another language, once more with English in their place.

    A query without a translation is asked as it is, and counted. Candidates stay as they are.

    Args:
        tasks: The tasks.
        queries: The translations.
        name: The translator, for the results.

    Raises:
        ValueError: No query of any task has a translation.
    """
    found = [_translated(task, queries, name) for task in tasks if _is_translatable(task)]
    kept = [task for task in found if task is not None]
    if not kept:
        languages = ", ".join(sorted({task.language for task in tasks}))
        raise ValueError(f"{queries.path} has no translation of any query ({languages})")
    return kept


def _is_translatable(task: RankingTask) -> bool:
    return task.asked is not None and any(task.asked.texts) and task.language.split("-")[0] != "en"


def _translated(task: RankingTask, queries: TranslatedQueries, name: str) -> RankingTask | None:
    asked = task.asked
    if asked is None:
        return None
    entries = {text: queries.get(task.language, text) for text in asked.texts if text}
    english = {text: entry.english for text, entry in entries.items() if entry is not None and entry.english}
    if not english:
        logger.warning("Left out %s with translated queries: none is translated", task.name)
        return None
    seconds = [entry.seconds for entry in entries.values() if entry is not None]
    rows = [
        Row(asked.in_english(english[text], row.image is not None), row.image) if text in english else row
        for text, row in zip(asked.texts, task.queries, strict=True)
    ]
    notes: dict[str, Any] = {
        "by": name,
        "texts": len(entries),
        "untranslated": sum(text is not None and text not in english for text in asked.texts),
        "seconds": round(sum(filter(None, seconds)), 3) if all(part is not None for part in seconds) else None,
    }
    return replace(
        task,
        style=f"{task.style}+{STYLE}",
        queries=rows,
        query_language="en",
        notes={**task.notes, "translation": notes},
    )


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
