"""Parallel texts from a CSV with a column per language, and a folder of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from xvlm2vec.common.languages import normal_code

from .csv_reader import LITERAL_MARK, CsvTable, Record
from .disk_rows import DiskRows
from .image_folder import ImageFolder, unmarked
from .rows import ENGLISH, RejectedRow, RowFault, TextRow, rejection_report
from .texts import is_null_word

_OTHERS = ("image", "id")


@dataclass
class TextCorpus:
    """What files hold.

    Attributes:
        languages: Codes, English first.
        rows: The rows that can be used, on the disk.
        rejected: The others.
        doubtful: What may be wrong in rows that are kept.
    """

    languages: tuple[str, ...]
    rows: DiskRows
    rejected: list[RejectedRow] = field(default_factory=list)
    doubtful: list[RejectedRow] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """How many rows are kept, and what is wrong with each of the others, as JSON takes it."""
        report = rejection_report(self.rejected, languages=list(self.languages), kept=len(self.rows))
        return {**report, "doubtful": [row.as_json() for row in self.doubtful]}


def read_csv(
    path: str | Path, images: str | Path | None = None, progress: bool = False, drop_null_words: bool = False
) -> TextCorpus:
    """Reads a CSV whose header names languages: `image,en,de,pt-BR` and, if there is one, `id`.

    Rows that can be used wait on the disk, so that the memory does not grow with them.

    English may be the only language; the rows then have no translation yet.

    Commas, semicolons or tabs separate the columns, and the file is UTF-8; see `csv_reader.CsvTable`. `image` is a path
    below the folder of images; it may be empty, and the column may be missing. Every image is decoded once, so that a
    broken one is noticed here rather than in the middle of a training. Marks such as `<image>` are removed from the
    texts of a row with an image.

    Args:
        path: The file.
        images: The folder of images.
        progress: Whether to show a bar.
        drop_null_words: Whether cells such as `nan` and `NULL` count as empty; otherwise they are told and kept.

    Returns:
        The rows, and those that are rejected.

    Raises:
        ValueError: The file is not UTF-8, or its header does not fit; names the line.
        FileNotFoundError: The file or the folder of images is missing.
    """
    folder = ImageFolder(images)
    table = CsvTable(path, (ENGLISH,), _OTHERS, normal_code)
    if "image" in table.columns and folder.folder is None:
        raise table.fault("there is a column 'image'; name the folder that holds the images (--images)")
    languages = (ENGLISH, *(name for name in table.columns if name not in {ENGLISH, *_OTHERS}))
    corpus = TextCorpus(languages, DiskRows())
    bar = tqdm(table, desc=f"Reading {table.path.name}", unit="row", disable=not progress)
    for number, record in enumerate(bar):
        row_id = record.cells.get("id", "").strip() or f"row-{number:06d}"
        try:
            name = record.cells.get("image", "").strip()
            texts = _texts(corpus, record, row_id, name, drop_null_words)
            image, digest = folder.find(name) if name else (None, None)
            corpus.rows.add(TextRow(row_id, texts, image, name, table.path.stem, image_digest=digest))
        except RowFault as fault:
            corpus.rejected.append(RejectedRow(fault.kind, fault.problem, line=record.line, id=row_id))
        if record.literal:
            corpus.doubtful.append(RejectedRow("quotation mark", LITERAL_MARK, line=record.line, id=row_id))
    _check_ids(corpus.rows)
    return corpus


def _texts(corpus: TextCorpus, record: Record, row_id: str, image: str, drop_null_words: bool) -> dict[str, str]:
    """The texts of a row by language, English first, without the mark of its image."""
    if record.excess:
        raise RowFault("too many cells", f"{record.excess} cells too many; put texts with commas in double quotes")
    texts = {code: unmarked(record.cells[code], image, f"the column {code!r}") for code in corpus.languages}
    for code, text in texts.items():
        if is_null_word(text):
            problem = f"{text!r} in the column {code!r} looks like a missing value"
            problem += " and is left out" if drop_null_words else ""
            corpus.doubtful.append(RejectedRow("null word", problem, line=record.line, id=row_id))
            texts[code] = "" if drop_null_words else text
    if not texts[ENGLISH]:
        raise RowFault("empty English text", "the English text is empty")
    texts = {code: text for code, text in texts.items() if text}
    if len(texts) < 2 <= len(corpus.languages):
        raise RowFault("no translation", "there is no translation in any language")
    return texts


def _check_ids(rows: DiskRows) -> None:
    repeated = rows.repeated_ids()
    if repeated:
        name, count = repeated[0]
        raise ValueError(
            f"the id {name!r} occurs {count} times ({len(repeated)} ids are repeated); make them unique, or remove the "
            "column 'id'."
        )
