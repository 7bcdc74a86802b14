"""The release of the quickstart's student: model, adapter, card, benchmark, proven in fresh processes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.run_state import write_json
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.sizes import size_summary
from xvlm2vec.flags.training_notes import loss_notes, training_notes
from xvlm2vec.hub.card import ReleaseCard
from xvlm2vec.hub.dataset_export import BenchmarkCard, DataSource
from xvlm2vec.hub.release import BaseInputs, BenchmarkInputs, ReleaseInputs, name_for_folder, release_to_folder

from .run import TASKS, Quickstart

if TYPE_CHECKING:
    from xvlm2vec.corpus.emoji.benchmark import EmojiBenchmark
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

logger = logging.getLogger(__name__)

NAME = "xVLM2Vec emoji quickstart"
SOURCES = (
    DataSource("Noto Color Emoji", "Apache-2.0 (images), OFL-1.1 (font)", "https://github.com/googlefonts/noto-emoji"),
    DataSource("Unicode CLDR short names", "Unicode-3.0", "https://cldr.unicode.org"),
    DataSource("emoji (Python package)", "BSD-3-Clause", "https://pypi.org/project/emoji/"),
)


def release_student(
    run: Quickstart,
    student: tuple[XVLM2VecModel, XVLM2VecProcessor],
    adapter: Any,
    benchmark: EmojiBenchmark,
    scores: dict[str, Results],
) -> None:
    """Writes `release/`, and `verification.json`: what each loader gave in a process without this package.

    Raises:
        VerifyError: A loader gives other vectors than the student.
    """
    model, processor = student
    inputs = ReleaseInputs(
        model=model,
        processor=processor,
        card=model_card(run, scores),
        adapter=adapter,
        benchmark=BenchmarkInputs(benchmark.tasks, benchmark.images, benchmark_card(), benchmark.templates),
    )
    folder = run.path("release")
    released = release_to_folder(name_for_folder(inputs, folder), folder)
    write_json(
        run.path("verification.json"),
        {
            "ok": released.report.ok,
            "checks": [vars(check) for check in released.report.checks],
            "notes": released.report.notes,
        },
    )


def student_inputs(run: Quickstart) -> ReleaseInputs:
    """What a finished run has to release; with LoRA the teacher, too, which is the adapter's base."""
    from . import stages

    model, processor = stages.load_student(run)
    card = model_card(run, stages.scores(run))
    found = stages.benchmark(run)
    teacher = stages.load(run, "teacher")[0] if run.config.lora else None
    return ReleaseInputs(
        model=model,
        processor=processor,
        card=card,
        adapter=stages.load_adapter(stages.load(run, "teacher")[0], run.path("adapter")) if run.config.lora else None,
        benchmark=BenchmarkInputs(found.tasks, found.images, benchmark_card(), found.templates),
        base=BaseInputs(teacher, teacher_card(card)) if teacher is not None else None,
    )


def teacher_card(card: ReleaseCard) -> ReleaseCard:
    """What the card of the English teacher says, the base of the student's adapter."""
    return ReleaseCard(
        name=f"{card.name}: the English teacher",
        repo_id=card.adapter_base,
        description=f"The image and text embedder for English that {card.name} was distilled from.",
        languages=("en",),
        method="contrastive training",
        license=card.license,
        versions=card.versions,
        scores={"student": card.scores["teacher"]},
        limits=card.limits[:1],
    )


def model_card(run: Quickstart, scores: dict[str, Results]) -> ReleaseCard:
    """What the student's card says; every number comes from the run's own files."""
    trained = training_notes(run.path("adapter" if run.config.lora else "student"))
    table = {name: score_table(results) for name, results in scores.items()}
    drift = {
        task: round(100 * (table["student"][task]["en"]["p_at_1"] - table["teacher"][task]["en"]["p_at_1"]), 1)
        for task in TASKS
    }
    return ReleaseCard(
        name=NAME,
        repo_id="./release/model",
        description=(
            "A tiny image and text embedder, taught on emoji scenes in English and made "
            "multilingual by self-knowledge distillation. It shows the method end to end; it knows emoji and "
            "nothing else. Its scores are on the benchmark that was released beside it."
        ),
        languages=("en", *run.trained_languages),
        method="self-knowledge distillation (LoRA)" if run.config.lora else "self-knowledge distillation",
        license="apache-2.0",
        datasets=("scenes drawn from Noto Color Emoji", "names of emoji from Unicode CLDR in each language"),
        losses=loss_notes(trained),
        hyperparameters=trained.get("settings", {}),
        versions=trained.get("versions") or scores["student"].versions,
        scores=table,
        sizes=size_summary(scores["student"].sizes),
        english_change_points=drift,
        limits=(
            f"It was taught {len(run.world)} emoji concepts, on made scenes of {run.config.sizes.image_size} pixels.",
            f"Not taught, as its scores there show: {', '.join(run.control_languages)}.",
        ),
        adapter_id="./release/adapter" if run.config.lora else None,
        adapter_base=str(run.path("teacher").resolve()) if run.config.lora else None,
    )


def benchmark_card() -> BenchmarkCard:
    """What the benchmark's card says."""
    return BenchmarkCard(
        name="Emoji world benchmark",
        description=(
            "Five tasks on rendered emoji scenes in the row form of MMMEB, parallel in all languages; held-out pairs "
            "and unseen renderings. The configuration `withheld` has the concepts whose names were kept from "
            "distillation in some languages."
        ),
        license="apache-2.0",
        sources=SOURCES,
        task_titles={**TASKS, "withheld": "Classification of withheld concepts"},
    )


def score_table(results: Results, dataset: str = "emoji") -> dict[str, dict[str, dict[str, Any]]]:
    """`{task: {language: {"p_at_1", "n", "ci95"}}}` of one data set."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for row in results.select(dataset=dataset):
        cell = {name: row[name] for name in ("p_at_1", "n", "ci95")}
        table.setdefault(row["task"], {})[row["language"]] = cell
    return table
