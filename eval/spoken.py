"""Tasks for a model with an adapter for each language: whoever embeds a text says in which it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from xvlm2vec.common.languages import comparable_code

from .ranking import RankingTask, Row

logger = logging.getLogger(__name__)


def tell_languages(encoder: Any, tasks: Sequence[RankingTask]) -> list[RankingTask]:
    """Tasks whose texts name their language, where the encoder's model has adapters that must be told.

    Texts in others are embedded by the model's base, as English is; this is logged.
    """
    spoken = {comparable_code(code): code for code in spoken_languages(encoder)}
    if not spoken:
        return list(tasks)
    others = sorted({task.language for task in tasks} - {"en"} - {t.language for t in tasks if _code(t) in spoken})
    if others:
        logger.warning("%s was never taught %s: its base embeds them", encoder.name, ", ".join(others))
    return [_told(task, spoken) for task in tasks]


def spoken_languages(encoder: Any) -> list[str]:
    """The languages that adapters beside an encoder's model speak."""
    adapters: Mapping[str, Any] = getattr(getattr(encoder, "model", None), "language_adapters", {})
    return sorted({language for adapter in adapters.values() for language in adapter.languages})


def told_languages(rows: Sequence[Row]) -> dict[str, Any]:
    """What `encode` is told of the languages of rows: nothing where none is known."""
    languages = [row.language for row in rows]
    return {"language": languages} if any(languages) else {}


def _code(task: RankingTask) -> str:
    return comparable_code(task.language) if task.language else ""


def _told(task: RankingTask, spoken: Mapping[str, str]) -> RankingTask:
    def told(rows: Sequence[Row], other: str | None) -> Sequence[Row]:
        language = spoken.get(_code(task) if other is None else comparable_code(other))
        if language is None:
            return rows
        return [replace(row, language=language) if row.text or not row.images else row for row in rows]

    queries = told(task.queries, task.query_language)
    return replace(task, queries=queries, candidates=told(task.candidates, task.candidate_language))
