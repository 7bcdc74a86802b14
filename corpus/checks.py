"""Parallel corpora are counted and checked, and written without the rows that would stop a training in its middle."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from xvlm2vec.common.files import write_json
from xvlm2vec.modeling.images import ImageError, load_image

from .rows import REPORT, RejectedRow, rejection_report
from .schema import validate_parallel_rows
from .stored import write_dataset

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class CorpusCheck:
    """What `check_parallel` tells.

    Attributes:
        rows: Number of rows.
        images: Rows with an image.
        languages: Translations by language.
        sources: Rows by source.
        faults: What makes the corpus unusable, by row.
        warnings: What may be meant, counted.
    """

    rows: int
    images: int
    languages: dict[str, int]
    sources: dict[str, int]
    faults: list[str]
    warnings: dict[str, int]


def check_parallel(corpus: Dataset, progress: bool = False, most: int = 100) -> CorpusCheck:
    """Goes through a parallel corpus: schema, repetitions, texts, images.

    Args:
        corpus: The corpus.
        progress: Whether to show a bar.
        most: After so many faults the rest is not looked at.
    """
    from datasets import Image

    encoded = corpus.cast_column("image", Image(decode=False))
    languages: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    warnings: Counter[str] = Counter()
    faults: list[str] = []
    ids: dict[str, int] = {}
    texts: set[tuple[str, Any]] = set()
    images = 0
    for number, row in enumerate(tqdm(encoded, desc="Checking", unit="row", disable=not progress)):
        faults += row_faults(row, number, ids)
        if len(faults) >= most:
            break
        images += row["image"] is not None
        sources[row["source"]] += 1
        items = row["translations"] or []
        languages.update(item["lang"] for item in items)
        warnings["rows without a translation"] += not items
        warnings["translations equal to the English text"] += sum(item["text"] == row["text_en"] for item in items)
        content = (row["text_en"], _image_key(row["image"]))
        warnings["rows with the text and image of an earlier row"] += content in texts
        texts.add(content)
    return CorpusCheck(
        len(encoded), images, dict(languages.most_common()), dict(sources.most_common()), faults, dict(+warnings)
    )


def clean_parallel(corpus: Dataset, folder: str | Path, progress: bool = False) -> dict[str, Any]:
    """Writes the rows that can be used into `folder/parallel`, and a report on the others into `folder/bad-rows.json`.

    Left out are rows that break the schema, repeat an id, have an image that cannot be read, or have no translation.

    Args:
        corpus: The corpus.
        folder: Where to write.
        progress: Whether to show a bar.

    Returns:
        The report: how many rows are kept, how many are bad, faults by kind, and each bad row.

    Raises:
        ValueError: No row can be used.
    """
    from datasets import Image

    encoded = corpus.cast_column("image", Image(decode=False))
    kept, rejected = _part(encoded, progress)
    report = rejection_report(rejected, kept=len(kept))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT, report)
    write_dataset(lambda: (encoded[number] for number in kept), corpus.features, folder / "parallel")
    return report


def row_faults(row: Mapping[str, Any], number: int, ids: dict[str, int]) -> list[str]:
    """What makes a row of a parallel corpus unusable.

    Args:
        row: With its image encoded.
        number: Of the row, counted from 0.
        ids: Numbers of the rows before by their ids; this one is added.
    """
    faults = []
    try:
        validate_parallel_rows([row])
    except ValueError as error:
        faults.append(str(error).replace("row 0", f"row {number}", 1))
    if ids.setdefault(row["id"], number) != number:
        faults.append(f"Parallel corpus, row {number}, column 'id': {row['id']!r} is the id of row {ids[row['id']]}")
    if row["image"] is not None:
        try:
            load_image(row["image"], name=f"Parallel corpus, row {number} (id {row['id']!r}), column 'image'")
        except ImageError as error:
            faults.append(str(error))
    return faults


def _part(encoded: Dataset, progress: bool) -> tuple[list[int], list[RejectedRow]]:
    """Numbers of the rows that can be used, and the others."""
    kept: list[int] = []
    rejected: list[RejectedRow] = []
    ids: dict[str, int] = {}
    for number, row in enumerate(tqdm(encoded, desc="Checking", unit="row", disable=not progress)):
        faults = row_faults(row, number, ids)
        if not faults and not row["translations"]:
            faults = [f"Parallel corpus, row {number}, column 'translations': there is none"]
        if faults:
            column = re.search(r"column '(\w+)", faults[0])
            kind = column[1] if column else "row"
            rejected.append(RejectedRow(kind, "; ".join(faults), row=number, id=str(row["id"])))
        else:
            kept.append(number)
    return kept, rejected


def _image_key(image: Mapping[str, Any] | None) -> Any:
    return None if image is None else (hash(image["bytes"]) if image.get("bytes") else image.get("path"))
