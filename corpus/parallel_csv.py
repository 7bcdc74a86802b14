"""Parallel texts from a CSV with a column per language, and a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from xvlm2vec.common.languages import normal_code

from .csv_reader import LITERAL_MARK, CsvTable, Record
from .image_folder import ImageFolder, unmarked
from .rows import ENGLISH, RejectedRow, RowFault, TextCorpus, TextRow
from .texts import is_null_word

_OTHERS = ("image", "id")


def read_csv(
    path: str | Path, images: str | Path | None = None, progress: bool = False, drop_null_words: bool = False
) -> TextCorpus:
    """Reads a CSV whose header names languages: `image,en,de,pt-BR` and, if there is one, `id`.

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
    corpus = TextCorpus((ENGLISH, *(name for name in table.columns if name not in {ENGLISH, *_OTHERS})))
    bar = tqdm(table, desc=f"Reading {table.path.name}", unit="row", disable=not progress)
    for number, record in enumerate(bar):
        row_id = record.cells.get("id", "").strip() or f"row-{number:06d}"
        try:
            name = record.cells.get("image", "").strip()
            texts = _texts(corpus, record, row_id, name, drop_null_words)
            image, digest = folder.find(name) if name else (None, None)
            corpus.rows.append(TextRow(row_id, texts, image, name, table.path.stem, image_digest=digest))
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


def _check_ids(rows: Sequence[TextRow]) -> None:
    counts = Counter(row.id for row in rows)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ValueError(
            f"the id {repeated[0]!r} occurs {counts[repeated[0]]} times ({len(repeated)} ids are repeated); make them "
            "unique, or remove the column 'id'."
        )
