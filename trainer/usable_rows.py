"""Rows without any translation, or without anything in English, which a distillation step cannot use."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Image, IterableDataset

from xvlm2vec.common.texts import is_blank, with_text

logger = logging.getLogger(__name__)

CHUNK = 10_000
SHOWN = 5
TRANSLATION, ENGLISH, ENGLISH_TEXT = "translation", "English text and no image", "English text"


def drop_unusable_rows(rows: Any, images: bool = True) -> Any:
    """A corpus without the rows that have no translation, or neither an English text nor an image.

    What is left out is counted in a warning. Of a stored corpus only the columns of texts are read; a stream leaves
    rows out as they come. Rows that are made when they are read (a transform) stay, as what is stored does not tell
    what they will be: the collator leaves out those that cannot be used.

    Args:
        rows: A corpus, several by name, or `None`.
        images: Whether an image may stand for an English text, as in a model that embeds texts with their images.

    Raises:
        ValueError: No row has a translation.
    """
    if isinstance(rows, Mapping):
        return {name: drop_unusable_rows(part, images) for name, part in rows.items()}
    if isinstance(rows, IterableDataset):  # the filter would decode the images, and store them otherwise
        return keep_encoded(rows).filter(IsUsable(images))
    if not isinstance(rows, Dataset) or not {"id", "translations"} <= set(rows.column_names):
        return rows
    if rows.format["type"] == "custom":
        return rows
    return _stored(rows, images)


def _stored(rows: Dataset, images: bool) -> Dataset:
    """The rows of a stored corpus that can be used."""
    kept: list[int] = []
    left_out: dict[str, list[str]] = {}
    bare = rows.with_format(None)
    columns = bare.select_columns([name for name in ("id", "translations", "text_en") if name in rows.column_names])
    for start in range(0, len(columns), CHUNK):
        part = columns[start : start + CHUNK]
        english = part.get("text_en") or ["-"] * len(part["id"])  # the collator names a column that is missing
        for place, (name, items, text) in enumerate(zip(part["id"], part["translations"], english, strict=True), start):
            missing = _missing_part({"translations": items, "text_en": text}, images)
            if missing is None or (missing == ENGLISH and _has_image(bare, place)):
                kept.append(place)
            else:
                left_out.setdefault(missing, []).append(str(name))
    if not left_out:
        return rows
    if not kept:
        raise ValueError(f"No row of the corpus has a translation, and an English text{' or an image' * images}.")
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


def has_english(row: Mapping[str, Any], images: bool = True) -> bool:
    """Whether a row has an English text, or an image if that counts; the collator names a column that is missing."""
    return "text_en" not in row or not is_blank(row["text_en"]) or (images and row.get("image") is not None)


def _missing_part(row: Mapping[str, Any], images: bool) -> str | None:
    """What a row needs and does not have; the collator names a column that is missing."""
    if "translations" in row and not with_text(row["translations"]):
        return TRANSLATION
    if has_english(row, images):
        return None
    return ENGLISH if images else ENGLISH_TEXT


class IsUsable:
    """Tells whether a row that was just read can be used, and counts the others in warnings that become rare.

    Args:
        images: As for `drop_unusable_rows`.

    Attributes:
        counts: Rows left out by what they lack, of all passes over the corpus, in this process.
    """

    def __init__(self, images: bool = True) -> None:
        self.images = images
        self.counts: Counter[str] = Counter()

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Rows that are none of a parallel corpus pass: the collator names what they lack."""
        missing = _missing_part(row, self.images)
        if missing is None:
            return True
        self.counts[missing] += 1
        count = self.counts[missing]
        if math.log10(count).is_integer():
            message = "%d rows have had no %s so far and are left out, the last of them %r"
            logger.warning(message, count, missing, row.get("id"))
        return False
