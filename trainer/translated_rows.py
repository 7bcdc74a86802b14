"""Rows without any translation, which a corpus may hold and a distillation step cannot use."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Image, IterableDataset

logger = logging.getLogger(__name__)

CHUNK = 10_000
SHOWN = 5


def translated(rows: Any) -> Any:
    """A corpus without the rows that have no translation; what is left out is counted in a warning.

    Of a stored corpus only the columns `id` and `translations` are read; a stream leaves rows out as they come. Rows
    that are made when they are read stay as they are: the collator leaves out those without.

    Args:
        rows: A corpus, several by name, or `None`.

    Raises:
        ValueError: No row has a translation.
    """
    if isinstance(rows, Mapping):
        return {name: translated(part) for name, part in rows.items()}
    if isinstance(rows, IterableDataset):
        if isinstance((rows.features or {}).get("image"), Image):
            rows = rows.cast_column("image", Image(decode=False))  # the filter would decode, and store them otherwise
        return rows.filter(HasTranslation())
    if not isinstance(rows, Dataset) or not {"id", "translations"} <= set(rows.column_names):
        return rows
    kept: list[int] = []
    left_out: list[str] = []
    columns = rows.with_format(None).select_columns(["id", "translations"])
    for start in range(0, len(columns), CHUNK):
        part = columns[start : start + CHUNK]
        for place, (name, items) in enumerate(zip(part["id"], part["translations"], strict=True), start):
            if any(map(has_text, items or ())):
                kept.append(place)
            else:
                left_out.append(str(name))
    if not left_out:
        return rows
    if not kept:
        raise ValueError("No row of the corpus has a translation.")
    logger.warning(
        "%d of %d rows have no translation and are left out: %s",
        len(left_out), len(rows), ", ".join(left_out[:SHOWN]) + (" ..." if len(left_out) > SHOWN else ""),
    )  # fmt: skip
    return rows.select(kept)


def has_text(translation: Mapping[str, Any]) -> bool:
    """Whether there is more than blanks."""
    return bool((translation["text"] or "").strip())


class HasTranslation:
    """Tells whether a row that was just read has a translation, and counts the others in warnings that become rare.

    Attributes:
        count: Rows without, of all passes over the corpus, in this process.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Rows that are none of a parallel corpus pass: the collator names what they lack."""
        if "translations" not in row or any(map(has_text, row["translations"] or ())):
            return True
        self.count += 1
        if math.log10(self.count).is_integer():
            logger.warning(
                "%d rows have had no translation so far and are left out, the last of them %r",
                self.count, row.get("id"),
            )  # fmt: skip
        return False
