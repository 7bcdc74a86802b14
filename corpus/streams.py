"""Parallel corpora that are read while training, without a copy on disk or in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .schema import PARALLEL_COLUMNS

if TYPE_CHECKING:
    from datasets import IterableDataset

SHARDS = 64
"""Into how many parts a data set in one folder is cut: processes and workers each read some of them."""
BUFFER = 1_000


def stream_parallel(path_or_id: str | Path, split: str = "train", seed: int = 0) -> IterableDataset:
    """Opens a parallel corpus as a stream, shuffled by shards and within a buffer of rows.

    Args:
        path_or_id: A folder of `save_to_disk` (one split), a folder of parquet files, a parquet file, or a Hub id.
        split: Of a data set on the Hub.
        seed: Of the shuffling; the epoch is added to it.

    Raises:
        FileNotFoundError: There is nothing of this name.
        ValueError: A column is missing.
    """
    stream = _open(path_or_id, split)
    missing = [column for column in PARALLEL_COLUMNS if column not in (stream.column_names or ())]
    if missing:
        raise ValueError(
            f"{path_or_id} lacks {', '.join(missing)}: it has the columns {', '.join(stream.column_names or ())}, "
            f"and {', '.join(PARALLEL_COLUMNS)} are needed."
        )
    return stream.select_columns(list(PARALLEL_COLUMNS)).shuffle(seed=seed, buffer_size=BUFFER)


def _open(path_or_id: str | Path, split: str) -> IterableDataset:
    from datasets import Dataset, load_dataset, load_from_disk

    path = Path(path_or_id)
    if path.is_dir() and (path / "dataset_info.json").is_file():
        rows = load_from_disk(str(path))
        assert isinstance(rows, Dataset)
        return rows.to_iterable_dataset(num_shards=min(SHARDS, len(rows)))
    if path.exists():
        files = [str(path)] if path.is_file() else sorted(str(file) for file in path.rglob("*.parquet"))
        if not files:
            raise FileNotFoundError(f"{path} holds neither a data set of save_to_disk nor a parquet file.")
        return load_dataset("parquet", data_files=files, split="train", streaming=True)
    if str(path_or_id).startswith((".", "/", "~")) or str(path_or_id).count("/") != 1:
        raise FileNotFoundError(f"there is no folder or file {path_or_id}.")
    return load_dataset(str(path_or_id), split=split, streaming=True)
