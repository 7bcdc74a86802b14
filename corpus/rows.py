"""Rows on their way from files into a corpus: those that can be used, and those that are left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from xvlm2vec.modeling.images import ImageError, load_image

ENGLISH = "en"
REPORT = "bad-rows.json"
_SHOWN = 5

logger = logging.getLogger(__name__)


class RowFault(Exception):
    """Why a row is left out: the kind of fault, and what is wrong."""


@dataclass(frozen=True)
class RejectedRow:
    """A row, line or text that is left out. Where it stands is told by those fields that apply.

    Attributes:
        kind: The sort of fault, for counting.
        problem: What is wrong.
        file: The file, where there are several.
        line: Line of the file, counted from 1.
        row: Number of the row, counted from 0.
        id: Its id.
        language: Into which it should have been translated.
    """

    kind: str
    problem: str
    file: str | None = None
    line: int | None = None
    row: int | None = None
    id: str | None = None
    language: str | None = None

    def __str__(self) -> str:
        places = [self.file, f"line {self.line}" if self.line is not None else None]
        places.append(f"row {self.row}" if self.row is not None else None)
        place = ", ".join(part for part in places if part)
        name = " into ".join(part for part in (self.id, self.language) if part)
        return f"{place} ({name}): {self.problem}" if place and name else f"{place or name}: {self.problem}"


def rejection_report(rejected: Sequence[RejectedRow], **counts: Any) -> dict[str, Any]:
    """What is left out and why, as JSON takes it.

    Args:
        rejected: The rows.
        counts: Further entries, which stand first.
    """
    rows = [{name: value for name, value in asdict(row).items() if value is not None} for row in rejected]
    faults = dict(Counter(row.kind for row in rejected).most_common())
    return {**counts, "bad": len(rejected), "faults": faults, "bad_rows": rows}


def tell_rejected(rejected: Sequence[RejectedRow], count: str, report: str | Path) -> None:
    """Logs the first rejected rows, and where all are listed.

    Args:
        rejected: The rows.
        count: Their number in words.
        report: The file that lists them.
    """
    for row in rejected[:_SHOWN]:
        logger.warning("%s", row)
    if rejected:
        logger.warning("%s; all are listed in %s", count, report)


@dataclass(frozen=True)
class TextRow:
    """Texts that mean the same, and perhaps the image that they go with.

    Attributes:
        id: Unique name.
        texts: By language code, English among them.
        image: The image's file, or None.
        image_name: The file's path below the folder of images, or an empty string.
        source: Where the row comes from.
    """

    id: str
    texts: Mapping[str, str]
    image: Path | None = None
    image_name: str = ""
    source: str = ""

    def example(self) -> dict[str, Any]:
        """The row as a parallel corpus has it."""
        items = [{"lang": code, "text": text} for code, text in self.texts.items() if code != ENGLISH]
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


@dataclass
class TextCorpus:
    """What files hold.

    Attributes:
        languages: Codes, English first.
        rows: The rows that can be used.
        rejected: The others.
    """

    languages: tuple[str, ...]
    rows: list[TextRow] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """How many rows are kept, and what is wrong with each of the others, as JSON takes it."""
        return rejection_report(self.rejected, languages=list(self.languages), kept=len(self.rows))


class ImageFolder:
    """The images of a folder by their names, each decoded once, so that broken ones are found early.

    Args:
        folder: The folder, or None where rows have no images.

    Raises:
        FileNotFoundError: It is missing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = Path(folder) if folder is not None else None
        if self.folder is not None and not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder of images {folder}")
        self._images: dict[str, Path | RowFault] = {}

    def find(self, name: str) -> Path:
        """The file of an image, which can be decoded.

        Args:
            name: Path below the folder.

        Raises:
            RowFault: It leads out of the folder, does not exist, or cannot be read as an image.
        """
        if name not in self._images:
            try:
                self._images[name] = self._check(name)
            except RowFault as fault:
                self._images[name] = fault
        image = self._images[name]
        if isinstance(image, RowFault):
            raise RowFault(*image.args)
        return image

    def _check(self, name: str) -> Path:
        if self.folder is None:
            raise RowFault("no folder of images", f"the image {name!r} lies somewhere; name the folder (--images)")
        relative = PurePosixPath(name.replace("\\", "/"))
        path = self.folder / relative
        try:
            outside = relative.is_absolute() or ".." in relative.parts
            if outside or not path.resolve().is_relative_to(self.folder.resolve()):
                raise RowFault("image outside the folder", f"{name!r} leads out of the folder {self.folder}; refused")
            if not path.is_file():
                raise RowFault("missing image", f"there is no file {path}")
            load_image(path, name=name)
        except ImageError as error:
            raise RowFault("unreadable image", str(error)) from error
        except (OSError, ValueError) as error:  # names that no file can have: too long, or with a zero byte
            raise RowFault("missing image", f"{name!r:.120} is no path ({error})") from error
        return path
