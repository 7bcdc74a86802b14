"""Parquet files: a row per language, a row with all its translations, or English alone; images as bytes or as paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.corpus.rows import RowFault

from .fields import record_of
from .records import Entries, ReadOptions, files_of, rejected

BATCH = 256
"""Rows that are held at once; they may hold their images."""


def read(inputs: Sequence[Path], options: ReadOptions) -> Entries:
    """Rows with the columns that JSONL lines have as fields."""
    for path in files_of(inputs, ("**/*.parquet",), "parquet file"):
        for number, row in parquet_rows(path):
            place = {"file": str(path), "row": number}
            try:
                if isinstance(row, RowFault):
                    raise row
                yield record_of(row, options.fields, place, path.stem)
            except RowFault as fault:
                yield rejected(fault, place)


def parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | RowFault]]:
    """The rows of a parquet file with their numbers from 0; a fault behind the last one that can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except (pa.ArrowException, OSError) as error:
        yield number, RowFault("damaged file", f"{path} cannot be read as parquet behind row {number} ({error})")
