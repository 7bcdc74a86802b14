"""Rows of the same English text and image are brought together: one row with all their translations."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.columns import ALIGNMENT, LANG, TEXT, TRANSLATIONS
from xvlm2vec.common.store import content_digest
from xvlm2vec.common.texts import is_blank

from .schema import translation_fields

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


class Groups:
    """Translations by English text and image, in the order in which these come.

    Attributes:
        texts: Translations by language, for each English text with what names its image.
        others: Further fields of a translation, such as `alignment`, for the same and a language.
    """

    def __init__(self) -> None:
        self.texts: dict[tuple[str, Any], dict[str, str]] = {}
        self.others: dict[tuple[tuple[str, Any], str], dict[str, Any]] = {}

    def add(self, english: str, image: Any, items: Iterable[Mapping[str, Any]]) -> list[str]:
        """Adds translations, and gives the languages that have another one already, which stays.

        Of the same text once more, only fields that the first one lacks are taken.
        """
        key = (english, image)
        texts = self.texts.setdefault(key, {})
        different = []
        for item in items:
            if is_blank(item[TEXT]):
                continue
            code = item[LANG]
            if texts.setdefault(code, item[TEXT]) != item[TEXT]:
                different.append(code)
                continue
            others = {name: value for name, value in item.items() if name not in (LANG, TEXT) and value is not None}
            if others:
                self.others[key, code] = others | self.others.get((key, code), {})
        return different

    def translations(self) -> list[list[dict[str, Any]]]:
        """The translations of each group."""
        return [
            [{LANG: code, TEXT: text, **self.others.get((key, code), {})} for code, text in texts.items()]
            for key, texts in self.texts.items()
        ]


def group_parallel(rows: Dataset | Iterable[Mapping[str, Any]]) -> Any:
    """Brings rows of the same English text and image together: one row with all their translations.

    Distillation passes a row's image and English text once for all its translations, so that corpora with a row per
    language cost several times the work. The first row of each group gives the other columns, and the first text of a
    language stays; others that differ are counted in a warning.

    Args:
        rows: A stored parallel corpus, or any rows with `text_en`, `image` (may be missing), and either `translations`,
            or a `text`, its `lang` and perhaps its `alignment`.

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
    lacking = dict.fromkeys(translation_fields(rows.features))
    grouped = encoded.select([place for place, _ in kept]).map(
        lambda _, place: {TRANSLATIONS: [{**lacking, **item} for item in translations[place]]},
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


def _items(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A row's translations: several, or its one."""
    if TRANSLATIONS in row:
        return list(row[TRANSLATIONS] or ())
    return [{name: row[name] for name in (LANG, TEXT, ALIGNMENT) if name != ALIGNMENT or name in row}]


def _parallel_row(row: Mapping[str, Any], place: int, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": str(row.get("id", f"row-{place:06d}")),
        "image": row.get("image"),
        "text_en": row["text_en"],
        "translations": items,
        "source": row.get("source", "grouped"),
    }
