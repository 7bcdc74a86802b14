"""A whole release in a folder: model, adapter and its base, benchmark; verified before it takes its place."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from peft import PeftModel

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .card import ReleaseCard
from .dataset_export import BenchmarkCard, export_benchmark
from .export import export_adapter, export_model
from .native import export_native
from .staging import ExportError, check_replaceable, move_into_place
from .verify import VerifyError, VerifyReport, verify

MODEL, ADAPTER, BASE, NATIVE, BENCHMARK = "model", "adapter", "base", "native", "benchmark"
UNVERIFIED = "model.unverified"


@dataclass(frozen=True)
class BenchmarkInputs:
    """A benchmark to release: rows per task and language, the pictures that they name, its card and instructions."""

    tasks: Mapping[str, DatasetDict]
    images: Dataset | None
    card: BenchmarkCard
    templates: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class BaseInputs:
    """The model below an adapter, where it is released as well, and its card."""

    model: XVLM2VecModel
    card: ReleaseCard


@dataclass(frozen=True)
class ReleaseInputs:
    """What a release is made of.

    Args:
        model: The `XVLM2VecModel` to release, or a `PeftModel` around one, which is merged.
        processor: Its processor.
        card: What the cards say. With an adapter, `adapter_base` (and `base_revision`) name the model below it.
        adapter: The `PeftModel` whose adapter is released apart, if any.
        benchmark: The benchmark, if any.
        base: The model below the adapter, if it is part of the release; the adapter is then verified over it.
        native: Whether the model is also released without remote code.
        max_shard_size: Largest weights file.
    """

    model: Any
    processor: XVLM2VecProcessor
    card: ReleaseCard
    adapter: PeftModel | None = None
    benchmark: BenchmarkInputs | None = None
    base: BaseInputs | None = None
    native: bool = False
    max_shard_size: int | str = "5GB"


@dataclass(frozen=True)
class Release:
    """Where the parts of a release lie, the report that proves the model, and those that prove the other parts."""

    model: Path
    adapter: Path | None
    benchmark: Path | None
    report: VerifyReport
    base: Path | None = None
    native: Path | None = None
    other_reports: tuple[VerifyReport, ...] = ()

    def folders(self) -> list[Path]:
        """The folders of all parts that there are."""
        return [path for path in (self.model, self.adapter, self.base, self.native, self.benchmark) if path is not None]


def name_for_folder(run: ReleaseInputs, folder: str | os.PathLike[str]) -> ReleaseInputs:
    """The same release with the folders that its parts will have, for its cards and its adapter's base."""
    place = Path(folder)
    card = replace(
        run.card,
        repo_id=str(place / MODEL),
        adapter_id=str(place / ADAPTER) if run.adapter is not None else None,
        native_id=str(place / NATIVE) if run.native else None,
    )
    base, benchmark = run.base, run.benchmark
    if base is not None:
        card = replace(card, adapter_base=str((place / BASE).resolve()))
        base = replace(base, card=replace(base.card, repo_id=str(place / BASE)))
    if benchmark is not None:
        benchmark = replace(benchmark, card=replace(benchmark.card, repo_id=str(place / BENCHMARK)))
    return replace(run, card=card, base=base, benchmark=benchmark)


def release_to_folder(
    run: ReleaseInputs,
    folder: str | os.PathLike[str],
    *,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    device: str | None = None,
) -> Release:
    """Writes `folder/model`, and `folder/base`, `folder/adapter`, `folder/native` and `folder/benchmark` if wanted.

    The model is verified through each door before it takes the place of an earlier one. If it fails, it stays in
    `folder/model.unverified` to be looked at, and nothing else is changed.

    Args:
        run: What to release.
        folder: Where to write.
        dtypes: In which dtypes the model is verified.
        device: Where it is verified; a GPU if there is one.

    Returns:
        The release.

    Raises:
        VerifyError: The exported model, or its adapter over its base, does not give its golden vectors.
        ExportError: A part cannot be written; see `export_model`, `export_adapter` and `export_benchmark`.
    """
    folder = Path(folder)
    if run.adapter is not None and not run.card.adapter_base:
        raise ExportError("the adapter's card names no `adapter_base`; without its base an adapter cannot be loaded.")
    for part in (MODEL, ADAPTER, BASE, NATIVE, BENCHMARK):
        check_replaceable(folder / part, MODEL if part == BASE else part)
    unverified = export_model(
        run.model, run.processor, folder / UNVERIFIED, card=run.card, max_shard_size=run.max_shard_size
    )
    report = _check(verify(unverified, dtypes=dtypes, device=device))
    move_into_place(unverified, folder / MODEL)
    report.source = str(folder / MODEL)
    base = adapter = native = benchmark = None
    others: list[VerifyReport] = []
    if run.base is not None:
        base = export_model(
            run.base.model, run.processor, folder / BASE, card=run.base.card, max_shard_size=run.max_shard_size
        )
        others.append(_check(verify(base, dtypes=dtypes, device=device)))
    if run.adapter is not None:
        adapter = export_adapter(
            run.adapter,
            folder / ADAPTER,
            base=str(run.card.adapter_base),
            base_revision=run.card.base_revision,
            card=run.card,
            processor=run.processor,
        )
        others.append(_check(verify(adapter, dtypes=dtypes, device=device, base=base)))
    if run.native:
        native = export_native(
            run.model, run.processor, folder / NATIVE, card=run.card, max_shard_size=run.max_shard_size
        )
        others.append(_check(verify(native, dtypes=dtypes, device=device)))
    if run.benchmark is not None:
        given = run.benchmark
        benchmark = export_benchmark(given.tasks, given.images, folder / BENCHMARK, given.card, given.templates)
    return Release(folder / MODEL, adapter, benchmark, report, base, native, tuple(others))


def show_proof(release: Release) -> str:
    """The model's report in full, and a line for each other part, with folders by their names."""
    others = [
        f"{Path(report.source).name}{report.summary().removeprefix(report.source)}" for report in release.other_reports
    ]
    return "\n".join([release.report.table(), *others])


def _check(report: VerifyReport) -> VerifyReport:
    if not report.ok:
        raise VerifyError(report)
    return report
