"""A whole release in a folder: model, adapter, benchmark; verified before it takes its place."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from peft import PeftModel

from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .card import ReleaseCard
from .dataset_export import BenchmarkCard, export_benchmark
from .export import export_adapter, export_model
from .staging import ExportError, check_replaceable, move_into_place
from .verify import VerifyError, VerifyReport, verify

MODEL, ADAPTER, BENCHMARK = "model", "adapter", "benchmark"
UNVERIFIED = "model.unverified"


@dataclass(frozen=True)
class BenchmarkInputs:
    """A benchmark to release: rows per task and language, the pictures that they name, its card and instructions."""

    tasks: Mapping[str, DatasetDict]
    images: Dataset | None
    card: BenchmarkCard
    templates: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ReleaseInputs:
    """What a release is made of.

    Args:
        model: The `XVLM2VecModel` to release, or a `PeftModel` around one, which is merged.
        processor: Its processor.
        card: What the cards say. With an adapter, `adapter_base` (and `base_revision`) name the model below it.
        adapter: The `PeftModel` whose adapter is released apart, if any.
        benchmark: The benchmark, if any.
        max_shard_size: Largest weights file.
    """

    model: Any
    processor: XVLM2VecProcessor
    card: ReleaseCard
    adapter: PeftModel | None = None
    benchmark: BenchmarkInputs | None = None
    max_shard_size: int | str = "5GB"


@dataclass(frozen=True)
class Release:
    """Where the parts of a release lie, and the report that proves the model."""

    model: Path
    adapter: Path | None
    benchmark: Path | None
    report: VerifyReport


def release_to_folder(
    run: ReleaseInputs,
    folder: str | os.PathLike[str],
    *,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    device: str | None = None,
) -> Release:
    """Writes `folder/model`, `folder/adapter` and `folder/benchmark`.

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
    for part in (MODEL, ADAPTER, BENCHMARK):
        check_replaceable(folder / part, part)
    unverified = export_model(
        run.model, run.processor, folder / UNVERIFIED, card=run.card, max_shard_size=run.max_shard_size
    )
    report = _check(verify(unverified, dtypes=dtypes, device=device))
    move_into_place(unverified, folder / MODEL)
    report.source = str(folder / MODEL)
    adapter = benchmark = None
    if run.adapter is not None:
        adapter = export_adapter(
            run.adapter,
            folder / ADAPTER,
            base=str(run.card.adapter_base),
            base_revision=run.card.base_revision,
            card=run.card,
            processor=run.processor,
        )
        _check(verify(adapter, dtypes=dtypes, device=device))
    if run.benchmark is not None:
        given = run.benchmark
        benchmark = export_benchmark(given.tasks, given.images, folder / BENCHMARK, given.card, given.templates)
    return Release(folder / MODEL, adapter, benchmark, report)


def _check(report: VerifyReport) -> VerifyReport:
    if not report.ok:
        raise VerifyError(report)
    return report
