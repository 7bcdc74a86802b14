"""Finding and reading the files of published benchmarks; what is missing or damaged is named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MEMORY = 1 << 30  # parquet files below this size in bytes are read into memory, larger ones are mapped from the disk


def find_files(folder: Path, patterns: Sequence[str], name: str) -> list[Path]:
    """The files of the first pattern that has any.

    Raises:
        FileNotFoundError: None has; names what was looked for.
    """
    for pattern in patterns:
        files = sorted(path for path in folder.glob(pattern) if path.is_file())
        if files:
            return files
    tried = " or ".join(str(folder / pattern) for pattern in patterns)
    raise FileNotFoundError(f"{name}: there is no file {tried}; docs/benchmarks.md says where to get it")


def read_parquet(paths: Sequence[Path], columns: Mapping[str, str]) -> tuple[Any, str]:
    """A `datasets.Dataset` of some columns of parquet files, mapped from the disk if they are large, and their name.

    Raises:
        ValueError: A file is damaged, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    chosen = [column for name, column in columns.items() if name != "catalogue"]
    try:
        missing = [column for column in chosen if column not in pq.read_schema(paths[0]).names]
        if missing:
            names = ", ".join(pq.read_schema(paths[0]).names)
            raise ValueError(f"{where} has no column {', '.join(missing)}; it has {names}")
        if sum(path.stat().st_size for path in paths) < _MEMORY:
            return Dataset(pa.concat_tables([pq.read_table(path, columns=chosen) for path in paths])), where
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{where} cannot be read as parquet: {error}") from error
    return Dataset.from_parquet([str(path) for path in paths], columns=chosen), where


def plain_rows(rows: Any, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Everything but the images of a data set, under the names that the forms use."""
    kept = {name: column for name, column in columns.items() if name not in {"image", "catalogue"}}
    table = rows.select_columns(list(dict.fromkeys(kept.values()))).with_format("arrow")[:]
    values = {name: table.column(column).to_pylist() for name, column in kept.items()}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def read_json(path: Path, kind: type) -> Any:
    """A JSON file.

    Raises:
        ValueError: It is damaged, or holds something else than `kind`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a {kind.__name__}, not a {type(content).__name__}")
    return content


def needed(content: Any, name: str, where: Any) -> Any:
    """A field of a JSON object.

    Raises:
        ValueError: It is missing.
    """
    if not isinstance(content, dict) or content.get(name) is None:
        raise ValueError(f"{where} lacks the field {name!r}")
    return content[name]
