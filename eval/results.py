"""Scores of one model: rows per benchmark, data set, task, language and style, saved as JSON and read back checked."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.files import replaced_file
from xvlm2vec.common.result_keys import METRICS, TASK_KEYS

from .bootstrap import paired_test
from .metrics import mean_rank_variance, parity_gap
from .old_results import FORMAT, OLD_IMAGES, current_results
from .sizes import size_summary

logger = logging.getLogger(__name__)

FILE = "results.json"
PER_ROW = "per_row"
_UNNAMED = f"{PER_ROW}.npz"  # where results have them that name no file
IMAGES = "images"
_SAVED = (
    "model", "fingerprint", "rows", "left_out", "examples", "templates_hash", "versions", "settings", "seconds"
)  # fmt: skip
_NUMBERS = ("n", "p_at_1")
_OPTIONAL_NUMBERS = ("skipped", "ties", *(set(METRICS) - set(_NUMBERS)))  # results of others may lack them

Key = tuple[str, ...]


class ResultsError(ValueError):
    """A results file is missing, damaged or incomplete."""


@dataclass(frozen=True, eq=False)
class PerRow:
    """Values of the single rows of a task, for paired tests and for metrics across languages.

    Attributes:
        row_ids: `(n,)`, which items they are.
        hits: `(n,)`, expected hit@1.
        ranks: `(n,)`, expected 0-based rank.
    """

    row_ids: npt.NDArray[np.integer]
    hits: npt.NDArray[np.floating]
    ranks: npt.NDArray[np.floating]


@dataclass
class Results:
    """The scores of an evaluation, and what was measured and kept beside them.

    Attributes:
        model: Name of the model.
        fingerprint: Names its weights and settings, if its vectors were stored; all weights are read for it.
        rows: One dictionary per task, language and style: `TASK_KEYS`, the scores as fractions, `ci95` of `p_at_1`, `n`
            rows in the denominator, `skipped` rows left out of it, `ties` rows whose gold candidate shares its score;
            `alignment` has measures of the vectors (see `alignment.alignment_scores` and `drift_scores`).
        examples: Per task, a few queries with their gold candidate and the best five.
        templates_hash: The set of instructions used; several sets are joined by a comma.
        versions: Versions of the libraries.
        settings: Seed, number of bootstrap samples and the like.
        seconds: Time by stage.
        left_out: Tasks that the model cannot embed: `TASK_KEYS` and the `reason`.
        sizes: Scores on smaller vectors (see `sizes.size_row`); `results.json` adds a summary of each size.
        per_row: Values of the single rows by the task's key.
        images: Copies of the examples' images by file name.
    """

    model: str
    fingerprint: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    templates_hash: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)
    sizes: list[dict[str, Any]] = field(default_factory=list)
    per_row: dict[Key, PerRow] = field(default_factory=dict, repr=False, compare=False)
    images: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def scores(self, metric: str = "p_at_1", **only: str) -> dict[str, dict[str, float]]:
        """`{task: {language: score}}`, the mean over the data sets and styles that `only` leaves and that have it.

        Args:
            metric: Which score.
            **only: Values that `benchmark`, `dataset`, `task`, `language` or `style` must have.
        """
        groups: dict[str, dict[str, list[float]]] = {}
        for row in self.select(**only):
            if metric not in row:
                continue
            groups.setdefault(row["task"], {}).setdefault(row["language"], []).append(row[metric])
        return {
            task: {language: float(np.mean(values)) for language, values in languages.items()}
            for task, languages in groups.items()
        }

    def select(self, **only: str) -> list[dict[str, Any]]:
        """The rows with these values of `benchmark`, `dataset`, `task`, `language` or `style`.

        Raises:
            ValueError: Another name is passed.
        """
        unknown = set(only) - set(TASK_KEYS)
        if unknown:
            raise ValueError(f"rows are selected by {', '.join(TASK_KEYS)}, not by {', '.join(sorted(unknown))}")
        return [row for row in self.rows if all(row[name] == value for name, value in only.items())]

    def summaries(self, reference: str = "en") -> list[dict[str, Any]]:
        """What only shows across languages: parity gaps to the reference language, and rank variance.

        Returns:
            Per benchmark, data set, task and style with two languages or more: `parity_gap` by language if the
            reference was scored, and, where the values of single rows are there and the rows are parallel, `mrv_std`
            and `mrv_var` over `mrv_n` items that every language has.
        """
        groups: dict[tuple[str, str, str, str], dict[str, dict[str, Any]]] = {}
        for row in self.rows:
            group = (row["benchmark"], row["dataset"], row["task"], row["style"])
            groups.setdefault(group, {})[row["language"]] = row
        summaries = []
        for group, languages in groups.items():
            if len(languages) < 2:
                continue
            summary: dict[str, Any] = dict(zip(("benchmark", "dataset", "task", "style"), group, strict=True))
            summary["languages"] = list(languages)
            if reference in languages:
                p_at_1 = {language: row["p_at_1"] for language, row in languages.items()}
                summary["parity_gap"] = parity_gap(p_at_1, reference)
            summaries.append(summary | self._rank_variance(languages.values()))
        return summaries

    def compare(self, other: Results, *, samples: int = 2000, seed: int = 0) -> list[dict[str, Any]]:
        """Paired test of another model against this one on every task that both have.

        Args:
            other: The later model; a positive `difference` means that it is better.
            samples: Resamplings.
            seed: Their seed.

        Raises:
            ValueError: The values of single rows are missing, or the two did not score the same rows.
        """
        shared = [key for key in self.per_row if key in other.per_row]
        if not shared:
            raise ValueError(f"no task has values of single rows of both {self.model} and {other.model}")
        return [self._compare_one(other, key, samples, seed) for key in shared]

    def save(self, folder: str | Path) -> Path:
        """Write `results.json`, and the values of single rows beside it, in a file whose name is in the former.

        Until `results.json` is replaced, which comes last, the folder holds the earlier results, whole.

        Returns:
            The path of `results.json`.
        """
        folder = Path(folder)
        values = self._packed_rows()
        name = f"{PER_ROW}-{hashlib.sha256(values).hexdigest()[:16]}.npz" if values else None
        content = self.to_dict() | {PER_ROW: name}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)  # before any file changes
        folder.mkdir(parents=True, exist_ok=True)
        files = ({name: values} if name else {}) | {f"{IMAGES}/{image}": copy for image, copy in self.images.items()}
        for file, contents in (files | {FILE: text.encode()}).items():
            (folder / file).parent.mkdir(exist_ok=True)
            with replaced_file(folder / file) as draft:
                draft.write_bytes(contents)
        for earlier in folder.glob(f"{PER_ROW}-*.npz"):
            if earlier.name != name:  # belongs to results that were replaced
                earlier.unlink(missing_ok=True)
        return folder / FILE

    def _packed_rows(self) -> bytes:
        """The values of single rows as the bytes of an `.npz` file; nothing if there are none."""
        if not self.per_row:
            return b""
        packed = io.BytesIO()
        arrays = {
            f"{number}/{name}": getattr(self.per_row[row_key(row)], name)
            for number, row in enumerate(self.rows)
            if row_key(row) in self.per_row
            for name in ("row_ids", "hits", "ranks")
        }
        np.savez_compressed(packed, **arrays)
        return packed.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """What `results.json` holds."""
        content = {"format": FORMAT} | {name: getattr(self, name) for name in _SAVED} | {"summaries": self.summaries()}
        if self.sizes:
            content["sizes"] = {"summary": size_summary(self.sizes), "rows": self.sizes}
        return content

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read a results file, or the one in a folder.

        Raises:
            ResultsError: It is missing, is no JSON, or lacks something; says what and in which row.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ResultsError(f"there is no results file {path}") from None
        except ValueError as error:
            raise ResultsError(f"{path} is no valid JSON: {error}") from error
        _check(content, path)
        content = current_results(content, path)
        results = cls(**{name: content[name] for name in _SAVED if name in content})
        results.sizes = content.get("sizes", {}).get("rows", [])
        name = content.get(PER_ROW, _UNNAMED if path.with_name(_UNNAMED).exists() else None)
        if name is not None:
            results.per_row = _read_per_row(path, name, results.rows)
        shown = _shown_images(results.examples)
        for folder in (OLD_IMAGES, IMAGES):
            copies = sorted(path.with_name(folder).glob("*.webp"))  # others may be left from an earlier evaluation
            results.images |= {copy.name: copy.read_bytes() for copy in copies if copy.name in shown}
        return results

    def _rank_variance(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        rows = list(rows)
        if not all(row_key(row) in self.per_row and row.get("parallel", True) for row in rows):
            return {}
        values = [self.per_row[row_key(row)] for row in rows]
        shared = functools.reduce(np.intersect1d, [value.row_ids for value in values])
        if not len(shared):
            return {}
        ranks = [value.ranks[np.intersect1d(shared, value.row_ids, return_indices=True)[2]] for value in values]
        return {**mean_rank_variance(np.stack(ranks)), "mrv_n": len(shared)}

    def _compare_one(self, other: Results, key: Key, samples: int, seed: int) -> dict[str, Any]:
        ours, theirs = self.per_row[key], other.per_row[key]
        if not np.array_equal(ours.row_ids, theirs.row_ids):
            raise ValueError(f"{'/'.join(key)}: {self.model} and {other.model} were not scored on the same rows")
        test = paired_test(ours.hits, theirs.hits, samples=samples, seed=seed)
        scores = {"difference": test.difference, "ci95": [test.low, test.high], "p_value": test.p_value, "n": test.n}
        return dict(zip(TASK_KEYS, key, strict=True)) | scores


def row_key(row: Mapping[str, Any]) -> Key:
    """The values of `TASK_KEYS`, which name a row of results."""
    return tuple(row[key] for key in TASK_KEYS)


def _check(content: Any, path: Path) -> None:
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list) or "model" not in content:
        raise ResultsError(f'{path} is no results file: it needs an object with "model" and a list "rows"')
    for number, row in enumerate(content["rows"]):
        missing = [name for name in (*TASK_KEYS, *_NUMBERS, "ci95") if not isinstance(row, dict) or name not in row]
        if missing:
            raise ResultsError(f"{path}: row {number} lacks {', '.join(missing)}")
        for name in (*_NUMBERS, *(name for name in _OPTIONAL_NUMBERS if name in row)):
            if isinstance(row[name], bool) or not isinstance(row[name], int | float):
                raise ResultsError(f"{path}: row {number}: {name} must be a number, not {row[name]!r}")
        if not 0 <= row["p_at_1"] <= 1:
            raise ResultsError(f"{path}: row {number}: p_at_1 is a fraction of 1, not {row['p_at_1']!r}")
        if not _is_interval(row["ci95"]):
            raise ResultsError(f"{path}: row {number}: ci95 must be [low, high], not {row['ci95']!r}")
    keys: Sequence[Key] = [row_key(row) for row in content["rows"]]
    doubled = sorted({key for key in keys if keys.count(key) > 1})
    if doubled:
        raise ResultsError(f"{path}: {'/'.join(doubled[0])} occurs more than once")


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(end, int | float) for end in value)


def _shown_images(examples: Sequence[Mapping[str, Any]]) -> set[str]:
    """File names of the copies that examples refer to."""
    parts = [part for item in examples for part in (item["query"], item["gold"], *item["top"])]
    return {name for part in parts for name in part.get("images", ())}


def _read_per_row(results: Path, name: Any, rows: Sequence[Mapping[str, Any]]) -> dict[Key, PerRow]:
    """The values of single rows from the file of this name beside `results`."""
    if not isinstance(name, str) or Path(name).name != name:
        raise ResultsError(f"{results}: {PER_ROW} must name a file beside it, not {name!r}")
    path = results.with_name(name)
    if not path.exists():
        logger.warning("%s is missing: no paired tests and no rank variance of these results", path)
        return {}
    try:
        packed = path.read_bytes()
        if name not in (_UNNAMED, f"{PER_ROW}-{hashlib.sha256(packed).hexdigest()[:16]}.npz"):
            raise ValueError("its contents are others than were written")
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            numbers = {int(name.split("/")[0]) for name in arrays.files}
            values = {
                i: PerRow(*(arrays[f"{i}/{name}"] for name in ("row_ids", "hits", "ranks"))) for i in sorted(numbers)
            }
        if any(len(value.hits) != rows[i]["n"] for i, value in values.items()):
            raise ValueError(f"it is not of the {FILE} beside it")
        return {row_key(rows[i]): value for i, value in values.items()}
    except (ValueError, LookupError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ResultsError(f"{path} is damaged ({error}); remove it to do without paired tests") from error
