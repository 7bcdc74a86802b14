"""Rows of the same English text and image are brought together: one row with all their translations."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.store import content_digest

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


class Groups:
    """Translations by English text and image, in the order in which these come.

    Attributes:
        texts: By English text and what names its image, and then by language.
    """

    def __init__(self) -> None:
        self.texts: dict[tuple[str, Any], dict[str, str]] = {}

    def add(self, english: str, image: Any, items: Iterable[tuple[str, str]]) -> list[str]:
        """Adds translations, and gives the languages that have another one already, which stays."""
        texts = self.texts.setdefault((english, image), {})
        return [code for code, text in items if text and texts.setdefault(code, text) != text]

    def translations(self) -> list[list[dict[str, str]]]:
        """Of each group."""
        return [[{"lang": code, "text": text} for code, text in texts.items()] for texts in self.texts.values()]


def group_parallel(rows: Dataset | Iterable[Mapping[str, Any]]) -> Any:
    """Brings rows of the same English text and image together: one row with all their translations.

    Distillation passes a row's image and English text once for all its translations, so that corpora with a row per
    language cost several times the work. The first row of each group gives the other columns, and the first text of a
    language stays; others that differ are counted in a warning.

    Args:
        rows: A stored parallel corpus, or any rows with `text_en`, `image` (may be missing), and either `translations`,
            or a `text` and its `lang`.

    Returns:
        For a `datasets.Dataset` another one; else a list of rows of a parallel corpus.

    Raises:
        ValueError: A row lacks a column; names it, counted from 0.
    """
    from datasets import Dataset, Image

    if not isinstance(rows, Dataset):
        kept, groups = _gather(rows)
        return [
            _parallel_row(row, place, items)
            for place, ((_, row), items) in enumerate(zip(kept, groups.translations(), strict=True))
        ]
    encoded = rows.cast_column("image", Image(decode=False))
    kept, groups = _gather(encoded, keep_rows=False)
    if len(kept) == len(rows):
        return rows
    translations = groups.translations()
    grouped = encoded.select([place for place, _ in kept]).map(
        lambda _, place: {"translations": translations[place]},
        with_indices=True,
        input_columns=["id"],
        features=encoded.features,
        new_fingerprint=os.urandom(8).hex(),  # hashing all the texts would take longer
        desc="Grouping",
    )
    return grouped.cast_column("image", rows.features["image"])


def _gather(
    rows: Iterable[Mapping[str, Any]], keep_rows: bool = True
) -> tuple[list[tuple[int, Mapping[str, Any]]], Groups]:
    """Places of the first row of each group, with the row if asked for, and the groups."""
    groups, others = Groups(), 0
    kept: list[tuple[int, Mapping[str, Any]]] = []
    for place, row in enumerate(rows):
        try:
            image = row.get("image")
            digest = None if image is None else content_digest(image)
            others += len(groups.add(row["text_en"], digest, _items(row)))
        except KeyError as error:
            raise ValueError(f"row {place} lacks the column {error}") from error
        if len(groups.texts) > len(kept):
            kept.append((place, row if keep_rows else {}))
    if others:
        logger.warning("%d translations are left out: a row before has another one of the same text", others)
    return kept, groups


def _items(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A row's translations: several, or its one."""
    if "translations" in row:
        return [(item["lang"], item["text"]) for item in row["translations"] or ()]
    return [(row["lang"], row["text"])]


def _parallel_row(row: Mapping[str, Any], place: int, items: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "id": str(row.get("id", f"row-{place:06d}")),
        "image": row.get("image"),
        "text_en": row["text_en"],
        "translations": items,
        "source": row.get("source", "grouped"),
    }
