"""Stored data sets: written whole, opened as a whole or as a stream."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.columns import PARALLEL_COLUMNS
from xvlm2vec.common.files import files_below
from xvlm2vec.modeling.hub_ids import is_hub_id

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

SHARDS = 64
"""Into how many parts a stream of a data set in one folder is divided: processes and workers each read some of them."""
BUFFER = 1_000


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

    written = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal written
        for example in examples():
            written += 1
            yield example

    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        draft, cache = Path(name) / "whole", Path(name) / "cache"
        try:
            dataset = Dataset.from_generator(
                counted, features=features, cache_dir=str(cache), fingerprint=os.urandom(8).hex()
            )
        except DatasetGenerationError as error:
            raise ValueError(f"{folder} could not be written: {error.__cause__ or error}") from error
        except ValueError as error:  # what the library says of nothing
            if written:
                raise
            raise ValueError(f"there is nothing to write into {folder}: no row is usable.") from error
        dataset.save_to_disk(str(draft))
        del dataset
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    return Dataset.load_from_disk(str(folder))


def load_parallel(path_or_id: str | Path, split: str = "train") -> Dataset:
    """Opens a parallel corpus; see `load_rows`."""
    return load_rows(path_or_id, PARALLEL_COLUMNS, split)


def load_rows(path_or_id: str | Path, columns: Sequence[str], split: str = "train") -> Dataset:
    """Opens a data set as `open_rows` does, with these columns only.

    Args:
        path_or_id: Where it is.
        columns: What it must have; others are left out.
        split: Which part, where there are several.

    Raises:
        FileNotFoundError: There is nothing of this name.
        ValueError: It is damaged, lacks a column, or has no such split or no rows.
    """
    from datasets import Image

    rows = open_rows(path_or_id, split)
    _check_columns(rows.column_names, columns, path_or_id)
    rows = rows.select_columns(list(columns))
    for column in columns:
        if column.endswith("image") and not isinstance(rows.features[column], Image):
            rows = rows.cast_column(column, Image())
    return rows


def open_rows(path_or_id: str | Path, split: str = "train") -> Dataset:
    """Opens a data set from a folder of `save_to_disk`, a folder with parquet files, a parquet file, or the Hub.

    Args:
        path_or_id: Where it is.
        split: Which part, where there are several.

    Raises:
        FileNotFoundError: There is nothing of this name.
        ValueError: It is damaged, or has no such split or no rows.
    """
    try:
        opened = _open(path_or_id, split)
    except FileNotFoundError:
        raise
    except Exception as error:  # datasets and Arrow raise whatever damaged files lead to
        raise ValueError(f"{path_or_id} cannot be read ({type(error).__name__}: {error}).") from error
    rows: Dataset = _of_split(opened, split, path_or_id)
    if not len(rows):
        raise ValueError(f"{path_or_id} has no rows.")
    return rows


def stream_parallel(path_or_id: str | Path, split: str = "train", seed: int = 0) -> IterableDataset:
    """Opens a parallel corpus as a stream without a copy of it, shuffled by shards and within a buffer.

    Args:
        path_or_id: A folder of `save_to_disk` (one split), a folder of parquet files, a parquet file, or a Hub id.
        split: Split of a data set on the Hub.
        seed: Seed of the shuffling; the epoch is added to it.

    Raises:
        FileNotFoundError: There is nothing of this name.
        ValueError: A column is missing.
    """
    from datasets import Dataset

    stream = _of_split(_open(path_or_id, split, streaming=True), split, path_or_id)
    if isinstance(stream, Dataset):
        stream = stream.to_iterable_dataset(num_shards=min(SHARDS, len(stream)))
    _check_columns(stream.column_names or (), PARALLEL_COLUMNS, path_or_id)
    return stream.select_columns(list(PARALLEL_COLUMNS)).shuffle(seed=seed, buffer_size=BUFFER)


def _check_columns(present: Sequence[str], columns: Sequence[str], path_or_id: str | Path) -> None:
    missing = [column for column in columns if column not in present]
    if missing:
        raise ValueError(
            f"{path_or_id} lacks {', '.join(missing)}: it has the columns {', '.join(present)}, "
            f"and {', '.join(columns)} are needed."
        )


def _of_split(rows: Any, split: str, path_or_id: str | Path) -> Any:
    from datasets import DatasetDict

    if not isinstance(rows, DatasetDict):
        return rows
    if split not in rows:
        raise ValueError(f"{path_or_id} has the splits {', '.join(rows)}, no {split!r}.")
    return rows[split]


def _open(path_or_id: str | Path, split: str, streaming: bool = False) -> Any:
    from datasets import Dataset, load_dataset, load_from_disk

    path = Path(path_or_id)
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return load_from_disk(str(path))
    if path.exists():
        files = [str(path)] if path.is_file() else [str(file) for file in files_below(path, "**/*.parquet")]
        if not files:
            raise FileNotFoundError(f"{path} holds neither a data set of save_to_disk nor a parquet file.")
        if streaming:
            return load_dataset("parquet", data_files=files, split="train", streaming=True)
        return Dataset.from_parquet(files)
    if "/" not in str(path_or_id) or not is_hub_id(str(path_or_id)):
        raise FileNotFoundError(f"there is no folder or file {path_or_id}.")
    return load_dataset(str(path_or_id), split=split, streaming=streaming)
