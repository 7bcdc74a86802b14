"""Corpora from files: a CSV with a folder of images, and whatever `datasets` stores."""

from __future__ import annotations

import csv
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from xvlm2vec.modeling.images import ImageError, load_image

from .schema import PARALLEL_COLUMNS, validate_parallel_rows

if TYPE_CHECKING:
    from datasets import Dataset, Features

ENGLISH = "en"
PAIR_COLUMNS = ("qry", "qry_image", "pos_text", "pos_image")
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*\Z")
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        line: Line of the file on which the row ends, counted from 1.
        id: Its id.
        kind: The sort of fault, for counting.
        problem: What is wrong.
    """

    line: int
    id: str
    kind: str
    problem: str


@dataclass(frozen=True)
class TextRow:
    """One row of a CSV: texts that mean the same, and perhaps the image that they go with.

    Attributes:
        id: Unique name.
        texts: By language code, English among them.
        image: The image's file, or None.
        image_name: The file's path below the folder of images, or an empty string.
    """

    id: str
    texts: Mapping[str, str]
    image: Path | None = None
    image_name: str = ""


@dataclass
class CsvCorpus:
    """What a CSV holds.

    Attributes:
        languages: Codes of the columns, English first.
        rows: The rows that can be used.
        bad: The others.
    """

    languages: tuple[str, ...]
    rows: list[TextRow] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """How many rows are kept, and what is wrong with each of the others, as JSON takes it."""
        return {
            "languages": list(self.languages),
            "kept": len(self.rows),
            "bad": len(self.bad),
            "faults": dict(Counter(row.kind for row in self.bad)),
            "bad_rows": [asdict(row) for row in self.bad],
        }


class RowFault(Exception):
    """Why a row is left out: the kind of fault, and what is wrong."""


def read_csv(path: str | Path, images: str | Path | None = None, progress: bool = False) -> CsvCorpus:
    """Reads a CSV whose header names languages: `image,en,de,fr` and, if there is one, `id`.

    English may be the only language; the rows then have no translation yet.

    Commas, semicolons or tabs separate the columns, and the file is UTF-8. `image` is a path below the folder of
    images; it may be empty, and the column may be missing. Every image is decoded once, so that a broken one is
    found here rather than in the middle of a training.

    Args:
        path: The file.
        images: The folder of images.
        progress: Whether to show a bar.

    Returns:
        The good rows and the bad ones.

    Raises:
        ValueError: The file is not UTF-8, is no CSV, or its header does not fit; names the line.
        FileNotFoundError: The file or the folder of images is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    folder = Path(images) if images is not None else None
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder of images {folder}")
    line = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            reader = csv.DictReader(file, fieldnames=_header(header, path, folder), delimiter=_delimiter(header))
            corpus = CsvCorpus(_languages(reader.fieldnames or ()))
            for number, cells in enumerate(tqdm(reader, desc=f"Reading {path.name}", unit="row", disable=not progress)):
                line = reader.line_num + 1
                _add_row(corpus, cells, number, line, folder)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after line {line}: not UTF-8 ({error.reason}); save the file as UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"{path}, after line {line}: no valid CSV ({error}).") from error
    _drop_repeated_ids(corpus)
    return corpus


def write_dataset(examples: Callable[[], Iterator[dict[str, Any]]], features: Features, folder: str | Path) -> Dataset:
    """Writes examples one by one into a folder for `datasets.load_from_disk`, which appears whole or not at all.

    Args:
        examples: A function that gives them; images as `{"bytes", "path"}` or `PIL.Image`.
        features: Their columns.
        folder: Where to write; an earlier content is replaced.

    Raises:
        ValueError: There are no examples, or one cannot be stored; an earlier content stays.
    """
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    if next(examples(), None) is None:
        raise ValueError(f"there is nothing to write into {folder}: no row is usable.")

    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        draft, cache = Path(name) / "whole", Path(name) / "cache"
        try:
            dataset = Dataset.from_generator(
                examples, features=features, cache_dir=str(cache), fingerprint=os.urandom(8).hex()
            )
        except DatasetGenerationError as error:
            raise ValueError(f"{folder} could not be written: {error.__cause__ or error}") from error
        dataset.save_to_disk(str(draft))
        del dataset
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    return Dataset.load_from_disk(str(folder))


def load_parallel(path_or_id: str | Path, split: str = "train") -> Dataset:
    """Opens a parallel corpus; see `load_rows`."""
    return load_rows(path_or_id, PARALLEL_COLUMNS, split)


def load_pairs(path_or_id: str | Path, split: str = "train") -> Dataset:
    """Opens contrastive pairs in the columns of MMEB's training sets; see `load_rows`."""
    return load_rows(path_or_id, PAIR_COLUMNS, split)


def load_rows(path_or_id: str | Path, columns: Sequence[str], split: str = "train") -> Dataset:
    """Opens a data set from a folder of `save_to_disk`, a folder with parquet files, a parquet file, or the Hub.

    Args:
        path_or_id: Where it is.
        columns: What it must have; others are left out.
        split: Which part, where there are several.

    Raises:
        FileNotFoundError: There is nothing of this name.
        ValueError: It is damaged, lacks a column, or has no such split or no rows.
    """
    from datasets import DatasetDict, Image

    try:
        found = _open(path_or_id, split)
    except FileNotFoundError:
        raise
    except Exception as error:  # datasets and Arrow raise whatever damaged files lead to
        raise ValueError(f"{path_or_id} cannot be read ({type(error).__name__}: {error}).") from error
    if isinstance(found, DatasetDict):
        if split not in found:
            raise ValueError(f"{path_or_id} has the splits {', '.join(found)}, no {split!r}.")
        found = found[split]
    missing = [column for column in columns if column not in found.column_names]
    if missing:
        raise ValueError(
            f"{path_or_id} lacks {', '.join(missing)}: it has the columns {', '.join(found.column_names)}, "
            f"and {', '.join(columns)} are needed."
        )
    if not len(found):
        raise ValueError(f"{path_or_id} has no rows.")
    found = found.select_columns(list(columns))
    for column in columns:
        if column.endswith("image") and not isinstance(found.features[column], Image):
            found = found.cast_column(column, Image())
    return found


@dataclass
class CorpusCheck:
    """What `check_parallel` found.

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


def _image_key(image: Mapping[str, Any] | None) -> Any:
    return None if image is None else (hash(image["bytes"]) if image.get("bytes") else image.get("path"))


def _delimiter(header: str) -> str:
    """The first of the usual delimiters that makes `en` a column of the header."""
    split = {sign: [name.strip() for name in next(csv.reader([header], delimiter=sign), [])] for sign in _DELIMITERS}
    return next((sign for sign in _DELIMITERS if ENGLISH in split[sign]), ",")


def _header(line: str, path: Path, folder: Path | None) -> list[str]:
    names = [name.strip() for name in next(csv.reader([line], delimiter=_delimiter(line)), [])]
    where, form = f"{path}, line 1", "the header must look like image,en,de,fr (and id, if rows have ids)"
    if ENGLISH not in names:
        raise ValueError(f"{where}: no column {ENGLISH!r} in {line.strip()!r:.120}; {form}.")
    doubled = [name for name, count in Counter(names).items() if count > 1]
    strange = [name for name in names if name not in {"image", "id"} and not LANGUAGE_CODE.match(name)]
    if doubled or strange:
        raise ValueError(f"{where}: {', '.join(map(repr, doubled + strange))} cannot be a column; {form}.")
    if "image" in names and folder is None:
        raise ValueError(f"{where}: there is a column 'image'; name the folder that holds the images (--images).")
    return names


def _languages(names: Sequence[str]) -> tuple[str, ...]:
    return (ENGLISH, *(name for name in names if name not in {ENGLISH, "image", "id"}))


def _add_row(corpus: CsvCorpus, cells: Mapping[Any, Any], number: int, line: int, folder: Path | None) -> None:
    row_id = (cells.get("id") or "").strip() or f"row-{number:06d}"
    try:
        corpus.rows.append(_row(corpus.languages, cells, row_id, folder))
    except RowFault as fault:
        corpus.bad.append(BadRow(line, row_id, *fault.args))


def _row(languages: Sequence[str], cells: Mapping[Any, Any], row_id: str, folder: Path | None) -> TextRow:
    if None in cells:
        raise RowFault("too many cells", f"{len(cells[None])} cells too many; put texts with commas in double quotes")
    texts = {code: (cells.get(code) or "").strip() for code in languages}
    if not texts[ENGLISH]:
        raise RowFault("empty English text", "the English text is empty")
    texts = {code: text for code, text in texts.items() if text}
    if len(texts) < 2 <= len(languages):
        raise RowFault("no translation", "there is no translation in any language")
    name = (cells.get("image") or "").strip()
    return TextRow(row_id, texts, image_below(name, folder) if name and folder is not None else None, name)


def image_below(name: str, folder: Path) -> Path:
    """The file of an image that a corpus names, which can be decoded.

    Args:
        name: Path below the folder.
        folder: The folder of images.

    Raises:
        RowFault: It leads out of the folder, does not exist, or cannot be read as an image.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    path = folder / relative
    try:
        outside = relative.is_absolute() or ".." in relative.parts
        if outside or not path.resolve().is_relative_to(folder.resolve()):
            raise RowFault("image outside the folder", f"{name!r} leads out of the folder {folder}; refused")
        if not path.is_file():
            raise RowFault("missing image", f"there is no file {path}")
        load_image(path, name=name)
    except ImageError as error:
        raise RowFault("unreadable image", str(error)) from error
    except (OSError, ValueError) as error:  # names that no file can have: too long, or with a zero byte
        raise RowFault("missing image", f"{name!r:.120} is no path ({error})") from error
    return path


def _drop_repeated_ids(corpus: CsvCorpus) -> None:
    counts = Counter(row.id for row in corpus.rows)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ValueError(
            f"the id {repeated[0]!r} occurs {counts[repeated[0]]} times ({len(repeated)} ids are repeated); make them "
            "unique, or remove the column 'id'."
        )


def _open(path_or_id: str | Path, split: str) -> Any:
    from datasets import Dataset, load_dataset, load_from_disk

    path = Path(path_or_id)
    if path.is_file():
        return Dataset.from_parquet(str(path))
    if path.is_dir():
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            return load_from_disk(str(path))
        files = sorted(str(file) for file in path.rglob("*.parquet"))
        if not files:
            raise FileNotFoundError(f"{path} holds neither a data set of save_to_disk nor a parquet file.")
        return Dataset.from_parquet(files)
    if str(path_or_id).startswith((".", "/", "~")) or str(path_or_id).count("/") != 1:
        raise FileNotFoundError(f"there is no folder or file {path_or_id}.")
    return load_dataset(str(path_or_id), split=split)
