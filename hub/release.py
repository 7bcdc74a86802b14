"""A whole release in a folder: model, adapter and its base, benchmark, Space; verified before it takes its place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from datasets import Dataset, DatasetDict
from peft import PeftModel

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .activated_release import Below, export_activated
from .card import ReleaseCard
from .dataset_export import BenchmarkCard, export_benchmark
from .export import export_adapter, export_model, merge_adapter
from .golden import limit_dtypes
from .metadata import metadata_problems
from .native import check_native, export_native
from .original import OriginalDiff
from .original_release import export_original, is_adopted
from .space import Place, write_space
from .staging import ExportError, check_replaceable, move_into_place
from .verify import VerifyError, VerifyReport, verify

MODEL, ADAPTER, BASE, NATIVE, BENCHMARK, SPACE = "model", "adapter", "base", "native", "benchmark", "space"
REMOTE_CODE = "xvlm2vec"
"""An embedder that was taken over, in our form, beside its own."""
PARTS = (MODEL, REMOTE_CODE, ADAPTER, BASE, NATIVE, BENCHMARK, SPACE)
UNVERIFIED = ".unverified"
NO_BENCHMARK = "a Space searches the images of a benchmark, and this release has none; drop --space."


@dataclass(frozen=True)
class BenchmarkInputs:
    """A benchmark to release: rows per task and language, the images that they name, its card and instructions."""

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
        with_remote_code: Whether an embedder that was taken over is also released in our form.
        max_shard_size: Largest weights file.
        space: Whether a Space that searches the benchmark is written, too, which reads the other folders.
        below: The base of a model with activated adapters beside it, loaded by itself.
        dtypes: The only dtypes in which its vectors are proven, now and by `verify`, which its card says; by default
            float32 and bfloat16.
    """

    model: Any
    processor: XVLM2VecProcessor
    card: ReleaseCard
    adapter: PeftModel | None = None
    benchmark: BenchmarkInputs | None = None
    base: BaseInputs | None = None
    native: bool = False
    with_remote_code: bool = False
    max_shard_size: int | str = "5GB"
    space: bool = False
    below: Below | None = None
    dtypes: Sequence[str] | None = None


@dataclass(frozen=True)
class Release:
    """Where the parts of a release lie, by name, and the reports that prove them, the model's first.

    Of an embedder that was taken over, `diff` says how its folder differs from the original.
    """

    folders: dict[str, Path]
    reports: tuple[VerifyReport, ...]
    diff: OriginalDiff | None = None

    @property
    def report(self) -> VerifyReport:
        """What proves the model."""
        return self.reports[0]


def name_for_folder(run: ReleaseInputs, folder: str | os.PathLike[str]) -> ReleaseInputs:
    """The same release with the folders that its parts will have, for its cards and its adapter's base."""
    place = snippet_path(folder)

    def named(part: str) -> str:
        return f"{place}/{part}"

    card = replace(
        run.card,
        repo_id=named(MODEL),
        adapter_id=named(ADAPTER) if run.adapter is not None else None,
        native_id=named(NATIVE) if run.native else None,
    )
    base, benchmark = run.base, run.benchmark
    if base is not None:
        card = replace(card, adapter_base=Path(place, BASE).resolve().as_posix())
        base = replace(base, card=replace(base.card, repo_id=named(BASE)))
    if benchmark is not None:
        benchmark = replace(benchmark, card=replace(benchmark.card, repo_id=named(BENCHMARK)))
    return replace(run, card=card, base=base, benchmark=benchmark)


def hub_problems(run: ReleaseInputs) -> list[str]:
    """What the Hub would refuse in the cards of a release, each with what to write instead."""
    problems = metadata_problems(run.card.languages, run.card.license)
    if run.base is not None:
        problems += metadata_problems(run.base.card.languages, run.base.card.license)
    if run.benchmark is not None:
        languages = [language for splits in run.benchmark.tasks.values() for language in splits]
        problems += metadata_problems(languages, run.benchmark.card.license)
    return list(dict.fromkeys(problems))


def snippet_path(folder: str | PurePath | os.PathLike[str]) -> str:
    """A folder as the snippets of a card name it: with slashes on every system, as a backslash begins an escape.

    A relative folder is named with a dot before it: `out/model` would be looked up on the Hub from another folder.
    """
    path = folder if isinstance(folder, PurePath) else Path(folder)
    text = path.as_posix()
    return text if path.is_absolute() or text.startswith(".") else f"./{text}"


def release_to_folder(
    run: ReleaseInputs,
    folder: str | os.PathLike[str],
    *,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    device: str | None = None,
) -> Release:
    """Writes `folder/model`, and `base`, `adapter`, `native`, `benchmark` and `space` beside it if wanted.

    All parts are written and verified before the first takes the place of an earlier one. A part that fails stays in
    `folder/<part>.unverified` to be looked at, and nothing else is changed.

    Args:
        run: What to release.
        folder: Where to write.
        dtypes: In which dtypes the parts are verified.
        device: Where they are verified; a GPU if there is one.

    Returns:
        The release.

    Raises:
        VerifyError: An exported part does not give its golden vectors.
        ExportError: A part cannot be written; see `export_model`, `export_adapter` and `export_benchmark`.
    """
    folder = Path(folder)
    if run.dtypes:
        dtypes = run.dtypes
        limit = f"Its vectors are proven in {' and '.join(dtypes)} alone: load it in no other number format."
        run = replace(run, card=replace(run.card, limits=(*run.card.limits, limit)))
    _check_before(run, folder)
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".release.", dir=folder))
    try:
        writer = _Writer(run, staging, folder, dtypes, device)
        writer.write_all()
        move_into_place([(staging / part, folder / part) for part in writer.written])
    except VerifyError as error:
        failed = Path(error.report.source).name
        move_into_place([(staging / failed, folder / f"{failed}{UNVERIFIED}")])
        raise
    finally:
        shutil.rmtree(staging)
        if not any(folder.iterdir()):
            folder.rmdir()
    for part in PARTS:
        shutil.rmtree(folder / f"{part}{UNVERIFIED}", ignore_errors=True)
    return Release({part: folder / part for part in writer.written}, tuple(writer.reports), writer.diff)


def _check_before(run: ReleaseInputs, folder: Path) -> None:
    """Raises for a part that cannot be written, before the work of an export begins."""
    if run.adapter is not None and not run.card.adapter_base:
        raise ExportError("the adapter's card names no `adapter_base`; without its base an adapter cannot be loaded.")
    if run.space and run.benchmark is None:
        raise ExportError(NO_BENCHMARK)
    if run.native or run.with_remote_code or run.space:
        check_not_black_box(run.model)
    if run.native:
        check_native(run.model)
    if run.with_remote_code and (run.below is not None or not is_adopted(run.model)):
        raise ExportError(
            "--with-remote-code is for embedders that were taken over; others are released in our form anyway."
        )
    for part in PARTS:
        check_replaceable(folder / part, MODEL if part in (BASE, REMOTE_CODE) else part)


def check_not_black_box(model: Any) -> None:
    """Raises an `ExportError` for an embedder that runs by its own code."""
    if getattr(model, "is_black_box", False):
        raise ExportError(
            "it runs by its own code and has no form but that in which it came, in which it is released anyway, and "
            "which no Space loads; leave --native, --with-remote-code and --space out."
        )


@dataclass
class _Writer:
    """Writes the parts of a release into a folder beside their place, and verifies them there."""

    run: ReleaseInputs
    staging: Path
    folder: Path
    dtypes: Sequence[str]
    device: str | None
    written: list[str] = field(default_factory=list)
    reports: list[VerifyReport] = field(default_factory=list)
    diff: OriginalDiff | None = None

    def write_all(self) -> None:
        """All parts that the release has; the adapter after its base, the Space after what it reads."""
        run, card, shards = self.run, self.run.card, self.run.max_shard_size
        model: Any = merge_adapter(run.model, run.processor) if isinstance(run.model, PeftModel) else run.model
        if run.below is not None:
            export_activated(
                model, run.processor, self._begin(MODEL), below=run.below, card=card, max_shard_size=shards
            )
        elif is_adopted(model):
            self.diff = export_original(model, run.processor, self._begin(MODEL), card=card)
        else:
            export_model(model, run.processor, self._begin(MODEL), card=card, max_shard_size=shards)
        self._verify(MODEL)
        if run.with_remote_code:
            export_model(model, run.processor, self._begin(REMOTE_CODE), card=card, max_shard_size=shards)
            self._verify(REMOTE_CODE)
        if run.base is not None:
            base = run.base
            export_model(base.model, run.processor, self._begin(BASE), card=base.card, max_shard_size=shards)
            self._verify(BASE)
        if run.adapter is not None:
            self._write_adapter(run.adapter)
        if run.native:
            export_native(run.model, run.processor, self._begin(NATIVE), card=card, max_shard_size=shards)
            self._verify(NATIVE)
        if run.benchmark is not None:
            benchmark = run.benchmark
            export_benchmark(
                benchmark.tasks, benchmark.images, self._begin(BENCHMARK), benchmark.card, benchmark.templates
            )
        if run.space:
            places = [Place(self.staging / part, home=self.folder / part) for part in (MODEL, BENCHMARK)]
            write_space(self._begin(SPACE), *places, title=card.name, license=card.license)

    def _write_adapter(self, adapter: PeftModel) -> None:
        card = self.run.card
        base = str(card.adapter_base)
        export_adapter(
            adapter,
            self._begin(ADAPTER),
            base=base,
            base_revision=card.base_revision,
            card=card,
            processor=self.run.processor,
        )
        here = self.staging / BASE if self.run.base is not None else self.folder / ADAPTER / base
        beside = Path(os.path.normpath(here))  # a base may be named relative to the place of the adapter
        self._verify(ADAPTER, beside if beside.is_dir() else None)

    def _begin(self, part: str) -> Path:
        self.written.append(part)
        return self.staging / part

    def _verify(self, part: str, base: Path | None = None) -> None:
        if self.run.dtypes:
            limit_dtypes(self.staging / part, self.run.dtypes)
        report = verify(self.staging / part, dtypes=self.dtypes, device=self.device, base=base)
        report.source = str(self.folder / part)
        if not report.ok:
            raise VerifyError(report)
        self.reports.append(report)


def show_proof(release: Release) -> str:
    """The model's report in full, and a line for each other part, with folders by their names."""
    others = [
        f"{Path(report.source).name}{report.summary().removeprefix(report.source)}" for report in release.reports[1:]
    ]
    lines = [] if release.diff is None else ["Beside the original:", *(f"  {line}" for line in release.diff.summary())]
    return "\n".join([release.report.table(), *others, *lines])
