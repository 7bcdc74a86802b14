"""Where the rows of a benchmark are read from, and what of them is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .entries import Benchmark, Layout
from .files import find_files, plain_rows, read_parquet
from .images import FileImages
from .selection import Selection
from .task_rows import TaskRows


@dataclass
class Source:
    """Where a layout's files are read from, and what is wanted of them."""

    folder: Path
    benchmark: Benchmark
    layout: Layout
    selection: Selection

    def files(self, **names: str) -> list[Path]:
        """The files of the first pattern that has any.

        Raises:
            FileNotFoundError: None has; names what was looked for.
        """
        patterns = [pattern.format(**names) for pattern in self.layout.files]
        return find_files(self.folder, patterns, self.benchmark.name)

    def table(self, **names: str) -> tuple[Any, str, list[dict[str, Any]]]:
        """The files of some names as a `datasets.Dataset`, their name, and their rows without images."""
        rows, where = read_parquet(self.files(**names), self.layout.columns)
        return rows, where, plain_rows(rows, self.layout.columns)

    def file_images(self) -> FileImages:
        """Images that rows name by their files."""
        return FileImages(self.folder, self.layout.images)

    def code(self, spelling: str) -> str:
        """The code of a language that the files spell in some way; a second name after a comma is a region."""
        parts = [part.strip("'\" ") for part in spelling.strip("()").split(",")]
        codes = self.benchmark.codes
        code = codes.get(parts[0]) or codes.get(parts[0].title()) or codes.get(parts[0].lower()) or parts[0].lower()
        return "-".join([code, *(part.replace(" ", "") for part in parts[1:])])

    def rows(
        self,
        dataset: str,
        language: str,
        where: str,
        images: Mapping[str, Any],
        *,
        task: str | None = None,
        whole_pool: bool = False,
    ) -> TaskRows:
        """Rows to be filled; the task is that of the layout unless another is named."""
        return TaskRows(
            self.benchmark.name,
            dataset,
            task or self.layout.task,
            language,
            where,
            images,
            whole_pool=whole_pool,
            parallel=self.benchmark.parallel,
            drop_copies=self.layout.drop_copies,
        )
