"""Proves that a release gives its golden vectors, loaded in each way, in fresh processes without this package."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from PIL import Image

from xvlm2vec.common.renamed import renamed_keywords
from xvlm2vec.modeling.adapters import ADAPTER_CONFIG, adapter_base
from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.hub_ids import is_path

from .connection import hub_errors
from .fresh_process import LoadingFailed, loader_job, run_job
from .golden import Golden, draw_checked, read_golden
from .loader_check import BASE, LANGUAGE
from .own_code import has_own_code
from .saved_weights import adapters_beside, transformer_folder, weights_fingerprint
from .scan import check_name
from .zero_drift import LOADER as ADAPTERS
from .zero_drift import ZeroDrift, drift_of_job

LOADERS = ("automodel", "sentence-transformers", "peft", "native", ADAPTERS)
"""`AutoModel`, `SentenceTransformer`, `PeftModel` over the base, `SentenceTransformer` without remote code, and a model
with activated adapters beside its base, bit for bit."""
COSINE_BOUNDS = {"float32": 1e-5, "bfloat16": 1e-3, "float16": 1e-3}
LENGTH_BOUNDS = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}
"""Largest 1 - cos, and largest relative difference of length, from the golden vector of the same row."""
SMALL_BYTES = 1_000_000_000
"""Releases below this size are loaded in all ways at once: there the imports take most of the time."""


@dataclass(frozen=True)
class Check:
    """One comparison with the golden vectors.

    Args:
        loader: How the model was loaded, one of `LOADERS`.
        dtype: Dtype it was loaded in.
        arrangement: How the rows were batched.
        max_deviation: Largest absolute difference of a single value.
        max_distance: Largest `1 - cosine`.
        first_difference: Name of the first row out of bounds, `None` if there is none.
    """

    loader: str
    dtype: str
    arrangement: str
    max_deviation: float
    max_distance: float
    first_difference: str | None = None

    @property
    def ok(self) -> bool:
        """Whether all rows are within bounds."""
        return self.first_difference is None


@dataclass
class VerifyReport:
    """Outcome of `verify`.

    Args:
        source: What was verified.
        checks: All comparisons.
        problems: What failed beside comparisons: weights, prompts, a loader that fails (its output in full).
        notes: What may explain a small deviation.
        facts: What was found beside comparisons: that adapters move no vector of their base.
    """

    source: str
    checks: list[Check] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every loader worked and every row of every arrangement is within bounds."""
        return bool(self.checks) and not self.problems and all(check.ok for check in self.checks)

    def table(self) -> str:
        """The report as text: a line per comparison, then problems, notes and the verdict."""
        heads = ("loader", "dtype", "arrangement", "max deviation", "max 1-cos", "")
        lines = [heads, *(_cells(check) for check in self.checks)] if self.checks else []
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))] if lines else []
        padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
        text = ["  ".join(cells).rstrip() for cells in padded]
        notes = [*self.notes, *self._rounding()]
        text += [f"PROBLEM: {problem}" for problem in self.problems] + [f"note: {note}" for note in notes]
        text += self.facts
        verdict = "gives its golden vectors" if self.ok else "DOES NOT give its golden vectors"
        return "\n".join([*text, f"{self.source} {verdict}."])

    def _rounding(self) -> list[str]:
        """What to do where all is right in float32 and vectors in half precision lie further from it than the bound."""
        far = [check for check in self.checks if not check.ok]
        wrong = {check.dtype for check in far}
        if not far or "float32" in wrong or all(check.dtype != "float32" for check in self.checks):
            return []
        worst = max(check.max_distance for check in far)
        return [
            f"all is right in float32; in {' and '.join(sorted(wrong))} this model rounds further than the bound "
            f"(1-cos {worst:.1e}, {COSINE_BOUNDS[far[0].dtype]:.0e} at most). Load it in float32; "
            "`xvlm2vec release --dtypes float32` publishes it so, and its card says it."
        ]

    def summary(self) -> str:
        """The report in a line, for one that is ok."""
        loaders = ", ".join(dict.fromkeys(check.loader for check in self.checks))
        worst = {
            dtype: max(check.max_distance for check in self.checks if check.dtype == dtype)
            for dtype in dict.fromkeys(check.dtype for check in self.checks)
        }
        distances = ", ".join(f"{distance:.1e} in {dtype}" for dtype, distance in worst.items())
        return f"{self.source}: {len(self.checks)} comparisons through {loaders}, largest 1-cos {distances}"


class VerifyError(RuntimeError):
    """A release does not give its golden vectors; `report` says where."""

    def __init__(self, report: VerifyReport) -> None:
        super().__init__(report.table())
        self.report = report


@renamed_keywords(doors="loaders")
def verify(
    path_or_id: str | os.PathLike[str],
    revision: str | None = None,
    loaders: Sequence[str] | None = None,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    device: str | None = None,
    base: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> VerifyReport:
    """Loads a release in fresh processes where this package cannot be imported, and compares vectors.

    The remote code of the release is run, in processes that get no token from the environment and whose Hub client is
    offline: what a Hub id needs is downloaded before.

    Args:
        path_or_id: A folder, a Hub id, or `id@revision`.
        revision: Revision of a Hub id.
        loaders: Ways to load: `"automodel"` and `"sentence-transformers"` (both by default) for a model, `"peft"` for
            an adapter, `"native"` for a release without remote code, `"adapters"` for a model with activated adapters
            and its base, which must have the same bits; one process each.
        dtypes: Any of `"float32"`, `"bfloat16"` and `"float16"`.
        device: Where to run; a GPU if there is one.
        base: Folder of the model below an adapter, where it is not the one that the adapter names.
        cache_dir: Where a Hub id is downloaded to; the usual cache by default.

    Returns:
        The report; a failure is in there, not raised.

    Raises:
        GoldenError: The release has no golden files, or they are damaged.
        FileNotFoundError: There is no such folder or repository, or the base of an adapter is gone.
        ScanError: A file name of the repository leads out of it.
        HubError: The connection to the Hub broke, or it refused.
        ValueError: An unknown loader or dtype.
    """
    _check_names("loader", LOADERS if loaders is None else loaders, LOADERS)
    _check_names("dtype", dtypes, COSINE_BOUNDS)
    source, revision, folder = _locate(path_or_id, revision, cache_dir)
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    if is_adapter:
        base = _base_of(folder, cache_dir) if base is None else str(Path(base).resolve())
    golden = read_golden(folder)
    if loaders is None:
        loaders = ("peft",) if is_adapter else loaders_of(folder)
        loaders = (*loaders, ADAPTERS) if golden.languages else loaders
    for name in adapters_beside(folder):
        _base_of(folder / name, cache_dir)
    dtypes = [dtype for dtype in dtypes if dtype in golden.made_with.get("dtypes", dtypes)] or ["float32"]
    report = VerifyReport(source=source if revision is None else f"{source}@{revision}")
    if weights_fingerprint(folder) != golden.weights:
        report.problems.append("the weights are not those that the golden files were made from.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    images = draw_checked(golden)
    options: dict[str, Any] = {"revision": revision, "base": base, "cache_dir": cache_dir}
    jobs = [loader_job(golden, source, loader, dtypes, device, **options) for loader in loaders]
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    with ThreadPoolExecutor(max_workers=len(jobs) if size < SMALL_BYTES else 1) as pool:
        for part in pool.map(lambda job: _check_loader(job, images, golden), jobs):
            report.checks += part.checks
            report.problems += part.problems
            report.notes += part.notes
            report.facts += part.facts
    return report


def compare(
    vectors: torch.Tensor, golden: Golden, loader: str = "", dtype: str = "float32", arrangement: str = ""
) -> Check:
    """Compares vectors `(N, D)` with the golden ones, row by row in float64."""
    expected = golden.vectors.double()
    if vectors.shape != expected.shape:
        shapes = f"{tuple(vectors.shape)} instead of {tuple(expected.shape)}"
        return Check(loader, dtype, arrangement, float("inf"), float("inf"), f"{golden.rows[0].name} (shape {shapes})")
    actual = vectors.double()
    distance = 1 - torch.nn.functional.cosine_similarity(actual, expected, dim=-1)
    length = (actual.norm(dim=-1) / expected.norm(dim=-1) - 1).abs()
    within = (distance < COSINE_BOUNDS[dtype]) & (length < LENGTH_BOUNDS[dtype])  # not-a-number is out of bounds
    first = next((row.name for row, fits in zip(golden.rows, within.tolist(), strict=True) if not fits), None)
    deviation = float((actual - expected).abs().max())
    return Check(loader, dtype, arrangement, deviation, max(0.0, float(distance.max())), first)


def _check_loader(job: dict[str, Any], images: dict[str, Image.Image], golden: Golden) -> VerifyReport:
    """Loads in one way in a process of its own, and reports what it found."""
    report = VerifyReport(job["source"])
    try:
        found, facts = run_job(job, images)
    except LoadingFailed as error:
        report.problems.append(str(error))
        return report
    for dtype, ways in found.items():
        for way, vectors in sorted(ways.items()):
            if way.startswith(LANGUAGE):
                spoken = golden.spoken(way.removeprefix(LANGUAGE))
                report.checks.append(compare(vectors, spoken, job["loader"], dtype, way))
            elif len(vectors) == len(golden.rows) and not way.startswith(BASE):
                report.checks.append(compare(vectors, golden, job["loader"], dtype, way))
    if job["loader"] == ADAPTERS:
        _report_drift([drift_of_job(ways, golden) for ways in found.values()], report)
    else:
        _compare_facts(facts, job["loader"], golden, report)
    return report


def _report_drift(drifts: Sequence[ZeroDrift], report: VerifyReport) -> None:
    """Whether adapters move a vector of their base, in any dtype."""
    for drift in drifts:
        (report.facts if drift.ok else report.problems).append(drift.summary())
    report.facts = list(dict.fromkeys(report.facts))


def _compare_facts(facts: dict[str, Any], loader: str, golden: Golden, report: VerifyReport) -> None:
    for name, prompt in golden.prompts.items():
        if facts["prompts"].get(name) != prompt:
            report.problems.append(
                f"{loader}: prompt {name!r} is {facts['prompts'].get(name)!r}, was {prompt!r} in the golden files."
            )
    for name in ("image_processor", "attn_implementation"):
        if name in facts and facts[name] != golden.made_with[name]:
            report.notes.append(f"{loader}: {name} is {facts[name]}, the golden files had {golden.made_with[name]}.")


def loaders_of(folder: Path) -> Sequence[str]:
    """The ways in which a model is to be loaded: with the code of a release of ours, with another's, or without."""
    path = transformer_folder(folder) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if config.get("auto_map") and config.get("model_type") == XVLM2VecConfig.model_type:
        return LOADERS[:2]
    return LOADERS[1:2] if has_own_code(folder) else ("native",)


def _locate(
    path_or_id: str | os.PathLike[str], revision: str | None, cache_dir: str | os.PathLike[str] | None
) -> tuple[str, str | None, Path]:
    """Source, revision and local folder; files of a Hub id are downloaded at one commit."""
    name = os.fspath(path_or_id)
    if Path(name).is_dir():
        if revision is not None:
            raise ValueError(f"{name} is a folder, which has no revision {revision!r}.")
        return str(Path(name).resolve()), None, Path(name)
    name, _, after = name.partition("@")
    if is_path(name):
        raise FileNotFoundError(f"there is no folder {os.fspath(path_or_id)}.")
    folder = download(name, revision or after or None, cache_dir)
    return name, folder.name, folder


def download(repo_id: str, revision: str | None, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Downloads a model at one commit, unless the cache has it whole; the name of the folder is that commit.

    Raises:
        FileNotFoundError: There is no such repository or revision, or no right to see it.
        ScanError: A file name leads out of the repository.
        HubError: The connection broke, or the Hub refused.
    """
    cache = None if cache_dir is None else Path(cache_dir)
    try:
        with hub_errors(f"downloading {repo_id}", (RepositoryNotFoundError, RevisionNotFoundError)):
            if not constants.is_offline_mode():
                for name in HfApi().list_repo_files(repo_id, revision=revision):
                    check_name(name)
            return Path(snapshot_download(repo_id, revision=revision, cache_dir=cache))
    except GatedRepoError as error:
        raise FileNotFoundError(f"{repo_id} is gated: ask for access on its page, then `hf auth login`.") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        where = f"{repo_id}@{revision}" if revision else repo_id
        raise FileNotFoundError(
            f"{where} is neither a folder here nor on the Hub, or your token may not see it (`hf auth login`)."
        ) from error


def _base_of(folder: Path, cache_dir: str | os.PathLike[str] | None) -> str | None:
    """Folder of the model below an adapter, if it is a folder here; else it is downloaded, and its id is kept."""
    base = adapter_base(folder)
    if Path(base.source).is_dir():
        return base.source
    download(base.source, base.revision, cache_dir)
    return None


def _check_names(what: str, names: Sequence[str], choices: Any) -> None:
    unknown = sorted(set(names) - set(choices))
    if unknown or not names:
        raise ValueError(f"{what} {', '.join(unknown) or '(none)'} is unknown; choose of {', '.join(choices)}.")


def _cells(check: Check) -> tuple[str, ...]:
    outcome = "ok" if check.ok else f"DIFFERS, first in row {check.first_difference!r}"
    return (
        check.loader,
        check.dtype,
        check.arrangement,
        f"{check.max_deviation:.1e}",
        f"{check.max_distance:.1e}",
        outcome,
    )
