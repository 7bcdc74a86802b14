"""Rows without any translation, or without anything in English, which a distillation step cannot use."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Image, IterableDataset

from xvlm2vec.common.texts import is_blank, with_text

logger = logging.getLogger(__name__)

CHUNK = 10_000
SHOWN = 5
TRANSLATION, ENGLISH = "translation", "English text and no image"


def drop_unusable_rows(rows: Any) -> Any:
    """A corpus without the rows that have no translation, or neither an English text nor an image.

    What is left out is counted in a warning. Of a stored corpus only the columns of texts are read; a stream leaves
    rows out as they come. Rows that are made when they are read stay as they are: the collator leaves out those without
    a translation.

    Args:
        rows: A corpus, several by name, or `None`.

    Raises:
        ValueError: No row has a translation.
    """
    if isinstance(rows, Mapping):
        return {name: drop_unusable_rows(part) for name, part in rows.items()}
    if isinstance(rows, IterableDataset):  # the filter would decode the images, and store them otherwise
        return keep_encoded(rows).filter(IsUsable())
    if not isinstance(rows, Dataset) or not {"id", "translations"} <= set(rows.column_names):
        return rows
    return _stored(rows)


def _stored(rows: Dataset) -> Dataset:
    """The rows of a stored corpus that can be used."""
    kept: list[int] = []
    left_out: dict[str, list[str]] = {}
    bare = rows.with_format(None)
    columns = bare.select_columns([name for name in ("id", "translations", "text_en") if name in rows.column_names])
    for start in range(0, len(columns), CHUNK):
        part = columns[start : start + CHUNK]
        english = part.get("text_en") or ["-"] * len(part["id"])  # the collator names a column that lacks
        for place, (name, items, text) in enumerate(zip(part["id"], part["translations"], english, strict=True), start):
            if not with_text(items):
                left_out.setdefault(TRANSLATION, []).append(str(name))
            elif is_blank(text) and not _has_image(bare, place):
                left_out.setdefault(ENGLISH, []).append(str(name))
            else:
                kept.append(place)
    if not left_out:
        return rows
    if not kept:
        raise ValueError("No row of the corpus has a translation, and an English text or an image.")
    for what, names in left_out.items():
        shown = ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
        logger.warning("%d of %d rows have no %s and are left out: %s", len(names), len(rows), what, shown)
    return rows.select(kept)


def _has_image(rows: Dataset, place: int) -> bool:
    """Whether a row of a stored corpus has an image, which is not decoded."""
    if "image" not in rows.column_names:
        return False
    column = rows.select_columns(["image"]).with_format("arrow")
    return bool(column[place : place + 1]["image"].is_valid()[0].as_py())


def keep_encoded(rows: Any) -> Any:
    """A corpus whose images stay as they are stored: they are named by these bytes, and decoded when prepared.

    Args:
        rows: A corpus, several by name, or `None`.
    """
    if isinstance(rows, Mapping):
        return {name: keep_encoded(part) for name, part in rows.items()}
    features = getattr(rows, "features", None) or {}
    if isinstance(features.get("image"), Image) and getattr(rows, "format", {}).get("type") is None:
        return rows.cast_column("image", Image(decode=False))
    return rows


def corpora_in(*rows: Any) -> list[Any]:
    """The corpora among arguments that are each one corpus, several by name, or `None`."""
    parts = [part for item in rows for part in (item.values() if isinstance(item, Mapping) else [item])]
    return [part for part in parts if part is not None]


class HasTranslation:
    """Tells whether a row that was just read has a translation, and counts the others in warnings that become rare.

    Attributes:
        count: Rows without, of all passes over the corpus, in this process.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Rows that are none of a parallel corpus pass: the collator names what they lack."""
        if "translations" not in row or with_text(row["translations"]):
            return True
        self._leave_out(TRANSLATION, row)
        return False

    def _leave_out(self, what: str, row: Mapping[str, Any]) -> None:
        self.count += 1
        if math.log10(self.count).is_integer():
            logger.warning(
                "%d rows have had no %s so far and are left out, the last of them %r", self.count, what, row.get("id")
            )


class IsUsable(HasTranslation):
    """As `HasTranslation`, and leaves out rows with neither an English text nor an image."""

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of a stream can be used."""
        if "text_en" in row and is_blank(row["text_en"]) and row.get("image") is None:
            self._leave_out(f"{ENGLISH}, or no translation,", row)
            return False
        return super().__call__(row)
