"""Rows on their way from files into a corpus: those that can be used, and those that are left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import LANG, TEXT

ENGLISH = "en"
REPORT = "bad-rows.json"
_SHOWN = 5

logger = logging.getLogger(__name__)


class RowFault(Exception):
    """Why a row is left out.

    Args:
        kind: The sort of fault, for counting.
        problem: What is wrong.
    """

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(kind, problem)
        self.kind, self.problem = kind, problem


@dataclass(frozen=True)
class RejectedRow:
    """A row, line or text that is left out; only the fields that apply say where it stands.

    Attributes:
        kind: The sort of fault, for counting.
        problem: What is wrong.
        file: The file, where there are several.
        line: Line of the file, counted from 1.
        row: Number of the row, counted from 0.
        id: Its id.
        language: The language that it could not be translated into.
    """

    kind: str
    problem: str
    file: str | None = None
    line: int | None = None
    row: int | None = None
    id: str | None = None
    language: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields that apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        places = [self.file, f"line {self.line}" if self.line is not None else None]
        places.append(f"row {self.row}" if self.row is not None else None)
        place = ", ".join(part for part in places if part)
        name = " into ".join(part for part in (self.id, self.language) if part)
        return f"{place} ({name}): {self.problem}" if place and name else f"{place or name}: {self.problem}"


def rejection_report(rejected: Sequence[RejectedRow], key: str = "bad_rows", **counts: Any) -> dict[str, Any]:
    """What is left out and why, as JSON takes it.

    Args:
        rejected: The rows.
        key: Under which they are listed.
        counts: Further entries, which stand first.
    """
    faults = dict(Counter(row.kind for row in rejected).most_common())
    return {**counts, "bad": len(rejected), "faults": faults, key: [row.as_json() for row in rejected]}


def log_rows(rows: Sequence[RejectedRow], count: str, report: str | Path) -> None:
    """Logs the first of some rows, and where all are listed.

    Args:
        rows: The rows.
        count: Their number in words.
        report: The file that lists them.
    """
    for row in rows[:_SHOWN]:
        logger.warning("%s", row)
    if rows:
        logger.warning("%s; all are listed in %s", count, report)


@dataclass(frozen=True)
class TextRow:
    """Texts that mean the same, and perhaps the image that they go with.

    Attributes:
        id: Unique name.
        texts: The text in each language, English among them.
        image: The image's file, or None.
        image_name: The file's path below the folder of images, or an empty string.
        source: Where the row comes from.
        image_digest: SHA-256 of the image's pixels: the same for the same image under another name.
    """

    id: str
    texts: Mapping[str, str]
    image: Path | None = None
    image_name: str = ""
    source: str = ""
    image_digest: bytes | None = None

    def example(self) -> dict[str, Any]:
        """The row as a parallel corpus has it."""
        items = [{LANG: code, TEXT: text} for code, text in self.texts.items() if code != ENGLISH]
        return {
            "id": self.id,
            "image": self.stored_image(),
            "text_en": self.texts[ENGLISH],
            "translations": items,
            "source": self.source,
        }

    def stored_image(self) -> dict[str, Any] | None:
        """The image's file as it is, without decoding and encoding it again."""
        return None if self.image is None else {"bytes": self.image.read_bytes(), "path": self.image_name}
