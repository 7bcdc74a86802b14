"""Parallel corpora are counted and checked, and written without the rows that would stop a training in its middle."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from xvlm2vec.common.columns import LANG, TEXT, TEXT_EN, TRANSLATIONS
from xvlm2vec.common.files import write_json
from xvlm2vec.common.image_marks import parallel_row_without_marks
from xvlm2vec.common.languages import normal_or_same
from xvlm2vec.modeling.images import ImageError, load_image

from .rows import REPORT, RejectedRow, rejection_report
from .schema import validate_parallel_rows
from .stored import write_dataset
from .texts import is_null_word

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
        null_words: Texts such as `nan`, by row.
    """

    rows: int
    images: int
    languages: dict[str, int]
    sources: dict[str, int]
    faults: list[str]
    warnings: dict[str, int]
    null_words: list[str]


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
    null_words: list[str] = []
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
        warnings.update(f"translations into {item['lang']!r}: the code's normal form is {code!r}"
                        for item in items if (code := normal_or_same(item["lang"])) != item["lang"])  # fmt: skip
        null_words += [f"row {number} (id {row['id']!r}): {place} is {text!r}" for place, text in _null_words(row)]
        content = (row["text_en"], _image_key(row["image"]))
        warnings["rows with the text and image of an earlier row"] += content in texts
        texts.add(content)
    warnings["texts that look like missing values"] = len(null_words)
    by_language, by_source = dict(languages.most_common()), dict(sources.most_common())
    return CorpusCheck(len(encoded), images, by_language, by_source, faults, dict(+warnings), null_words)


def clean_parallel(
    corpus: Dataset, folder: str | Path, progress: bool = False, drop_null_words: bool = False
) -> dict[str, Any]:
    """Writes the rows that can be used into `folder/parallel`, and a report on the others into `folder/bad-rows.json`.

    Left out are rows that break the schema, repeat an id, have an image that cannot be read, or have no translation.
    Codes of languages are written in their normal form.

    Args:
        corpus: The corpus.
        folder: Where to write.
        progress: Whether to show a bar.
        drop_null_words: Whether to leave out texts such as `nan`, with their rows where these have no others.

    Returns:
        The report: how many rows are kept, how many are bad, faults by kind, and each bad row.

    Raises:
        ValueError: No row can be used.
    """
    from datasets import Image

    encoded = corpus.cast_column("image", Image(decode=False))
    kept, rejected, doubtful = _split_rows(encoded, progress, drop_null_words)
    report = rejection_report(rejected, kept=len(kept)) | {"doubtful": [row.as_json() for row in doubtful]}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT, report)
    write_dataset(
        lambda: (_cleaned(encoded[number], drop_null_words) for number in kept), corpus.features, folder / "parallel"
    )
    return report


def _cleaned(row: dict[str, Any], drop_null_words: bool) -> dict[str, Any]:
    """A row with normal codes of languages, of each the first text, and without null words if they are dropped."""
    items: dict[str, Mapping[str, Any]] = {}
    for item in row[TRANSLATIONS] or ():
        if not (drop_null_words and is_null_word(item[TEXT])):
            items.setdefault(normal_or_same(item[LANG]), item)
    return {**row, TRANSLATIONS: [{**item, LANG: code} for code, item in items.items()]}


def _null_words(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The texts of a row that are null words, with what they should be."""
    translated = [(f"the text in {item[LANG]!r}", item[TEXT]) for item in row[TRANSLATIONS] or ()]
    texts = [("the English text", row[TEXT_EN]), *translated]
    return [(place, text) for place, text in texts if isinstance(text, str) and is_null_word(text)]


def row_faults(row: Mapping[str, Any], number: int, ids: dict[str, int]) -> list[str]:
    """What makes a row of a parallel corpus unusable.

    Args:
        row: The row, its image encoded.
        number: Number of the row, counted from 0.
        ids: Numbers of the earlier rows by their ids; this row is added.
    """
    faults = []
    try:
        validate_parallel_rows([row])
    except ValueError as error:
        faults.append(str(error).replace("row 0", f"row {number}", 1))
    else:
        try:
            parallel_row_without_marks(row)
        except ValueError as error:
            faults.append(f"Parallel corpus, row {number}, column 'image': {error}")
    if ids.setdefault(row["id"], number) != number:
        faults.append(f"Parallel corpus, row {number}, column 'id': {row['id']!r} is the id of row {ids[row['id']]}")
    if row["image"] is not None:
        try:
            load_image(row["image"], name=f"Parallel corpus, row {number} (id {row['id']!r}), column 'image'")
        except ImageError as error:
            faults.append(str(error))
    return faults


def _split_rows(
    encoded: Dataset, progress: bool, drop_null_words: bool
) -> tuple[list[int], list[RejectedRow], list[RejectedRow]]:
    """Numbers of the rows that can be used, the others, and what may be wrong in any."""
    kept: list[int] = []
    rejected: list[RejectedRow] = []
    doubtful: list[RejectedRow] = []
    ids: dict[str, int] = {}
    for number, row in enumerate(tqdm(encoded, desc="Checking", unit="row", disable=not progress)):
        faults = row_faults(row, number, ids)
        if not faults:
            words = [f"{place} is {text!r}" for place, text in _null_words(row)]
            doubtful += [RejectedRow("null word", word, row=number, id=row["id"]) for word in words]
            if drop_null_words and is_null_word(row[TEXT_EN]):
                faults = [f"Parallel corpus, row {number}, column 'text_en': {words[0]}"]
        if not faults and not _cleaned(row, drop_null_words)[TRANSLATIONS]:
            faults = [f"Parallel corpus, row {number}, column 'translations': there is none"]
        if faults:
            column = re.search(r"column '(\w+)", faults[0])
            kind = column[1] if column else "row"
            rejected.append(RejectedRow(kind, "; ".join(faults), row=number, id=str(row["id"])))
        else:
            kept.append(number)
    return kept, rejected, doubtful


def _image_key(image: Mapping[str, Any] | None) -> Any:
    return None if image is None else (hash(image["bytes"]) if image.get("bytes") else image.get("path"))
