"""`bad-rows.json` of a check: written row by row, as there may be many."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from xvlm2vec.common.files import replaced_file
from xvlm2vec.corpus.rows import RejectedRow


class RejectsFile:
    """The report on rows that are dropped (`bad_rows`) and on what may be wrong in others (`doubtful`).

    Args:
        path: The file, which appears when it is finished.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lists: dict[str, IO[str]] = {}
        self._counts = {"bad_rows": 0, "doubtful": 0}

    def __enter__(self) -> RejectsFile:
        self._lists = {name: tempfile.TemporaryFile("w+", encoding="utf-8") for name in self._counts}  # noqa: SIM115
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._lists.values():
            file.close()

    def drop(self, row: RejectedRow) -> None:
        """Takes a row that is dropped."""
        self._add("bad_rows", row.as_json())

    def tell(self, row: RejectedRow) -> None:
        """Takes what may be wrong in a row."""
        self._add("doubtful", row.as_json())

    def _add(self, name: str, row: dict[str, Any]) -> None:
        start = ",\n    " if self._counts[name] else "\n    "
        # Half of a pair of surrogates cannot be written as UTF-8.
        self._lists[name].write(start + json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode())
        self._counts[name] += 1

    def finish(self, kept: int, faults: dict[str, int], others: Mapping[str, Any] | None = None) -> None:
        """Writes the file.

        Args:
            kept: Number of rows that are kept.
            faults: Dropped rows by the kind of their fault.
            others: Further entries.
        """
        head = {"kept": kept, "bad": self._counts["bad_rows"], "faults": faults, **(others or {})}
        with replaced_file(self._path) as draft, open(draft, "w", encoding="utf-8", newline="") as file:
            entries = (
                f"\n  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()
            )
            file.write("{" + ",".join(entries))
            for name, rows in self._lists.items():
                file.write(f',\n  "{name}": [')
                rows.seek(0)
                shutil.copyfileobj(rows, file)
                file.write("\n  ]" if self._counts[name] else "]")
            file.write("\n}\n")
