"""Parallel corpora without the rows that would stop a training in its middle."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from .readers import row_faults, write_dataset

if TYPE_CHECKING:
    from datasets import Dataset

BAD_ROWS = "bad-rows.json"


@dataclass(frozen=True)
class UnusableRow:
    """A row that is left out.

    Attributes:
        row: Its number, counted from 0.
        id: Its id.
        kind: The column that is at fault, for counting.
        problem: What is wrong with it.
    """

    row: int
    id: str
    kind: str
    problem: str


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
    good, bad = _sort_out(encoded, progress)
    report = {
        "kept": len(good),
        "bad": len(bad),
        "faults": dict(Counter(row.kind for row in bad).most_common()),
        "bad_rows": [asdict(row) for row in bad],
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{BAD_ROWS}.tmp"
    draft.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, folder / BAD_ROWS)
    write_dataset(lambda: (encoded[number] for number in good), corpus.features, folder / "parallel")
    return report


def _sort_out(encoded: Dataset, progress: bool) -> tuple[list[int], list[UnusableRow]]:
    good: list[int] = []
    bad: list[UnusableRow] = []
    ids: dict[str, int] = {}
    for number, row in enumerate(tqdm(encoded, desc="Checking", unit="row", disable=not progress)):
        faults = row_faults(row, number, ids)
        if not faults and not row["translations"]:
            faults = [f"Parallel corpus, row {number}, column 'translations': there is none"]
        if faults:
            found = re.search(r"column '(\w+)", faults[0])
            bad.append(UnusableRow(number, str(row["id"]), found[1] if found else "row", "; ".join(faults)))
        else:
            good.append(number)
    return good, bad
