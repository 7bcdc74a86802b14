"""The release of the quickstart's student: model, adapter, card, benchmark, proven in fresh processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xvlm2vec.common.files import write_json
from xvlm2vec.common.result_keys import CELL_KEYS
from xvlm2vec.corpus.emoji.text import TASKS
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.sizes import size_summary
from xvlm2vec.flags.emoji import benchmark_card
from xvlm2vec.flags.training_notes import loss_notes, training_notes
from xvlm2vec.hub.activated_release import Below
from xvlm2vec.hub.card import ReleaseCard
from xvlm2vec.hub.release import BaseInputs, BenchmarkInputs, ReleaseInputs, name_for_folder, release_to_folder

from .run_folder import RunFolder

NAME = "xVLM2Vec emoji quickstart"
METHOD_ENDS = {"": "", "lora": " (LoRA)", "activated": " (activated LoRA)"}


def release_student(run: RunFolder) -> None:
    """Writes `release/`, and `verification.json`: what each loader gave in a process without this package.

    Raises:
        VerifyError: A loader gives other vectors than the student.
    """
    folder = run.path("release")
    released = release_to_folder(name_for_folder(_inputs(run), folder), folder)
    write_json(
        run.path("verification.json"),
        {
            "ok": released.report.ok,
            "checks": [vars(check) for check in released.report.checks],
            "notes": released.report.notes,
        },
    )


def student_inputs(run: RunFolder) -> ReleaseInputs:
    """What a finished run has to release; the teacher, too, where the student is an adapter that is merged."""
    inputs = _inputs(run)
    if inputs.adapter is None:
        return inputs
    return replace(inputs, base=BaseInputs(run.load("teacher")[0], teacher_card(inputs.card)))


def _inputs(run: RunFolder) -> ReleaseInputs:
    model, processor = run.load_student()
    benchmark = run.benchmark
    return ReleaseInputs(
        model=model,
        processor=processor,
        card=model_card(run, run.scores()),
        adapter=run.load_merged(),
        below=Below(run.load("teacher")[0]) if run.is_activated else None,
        benchmark=BenchmarkInputs(benchmark.tasks, benchmark.images, benchmark_card(), benchmark.templates),
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


def model_card(run: RunFolder, scores: dict[str, Results]) -> ReleaseCard:
    """What the student's card says; every number comes from the run's own files."""
    trained = training_notes(run.path(run.student))
    adapter = "activated" if run.is_activated else "lora" if run.config.lora else ""
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
        method="self-knowledge distillation" + METHOD_ENDS[adapter],
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
        adapter_id="./release/adapter" if adapter == "lora" else None,
        adapter_base=str(run.path("teacher").resolve()) if adapter == "lora" else None,
    )


def score_table(results: Results, dataset: str = "emoji") -> dict[str, dict[str, dict[str, Any]]]:
    """`{task: {language: {"p_at_1", "n", "ci95"}}}` of one data set."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for row in results.select(dataset=dataset):
        cell = {name: row[name] for name in CELL_KEYS}
        table.setdefault(row["task"], {})[row["language"]] = cell
    return table
