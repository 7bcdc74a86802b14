"""The stages of the real story that are commands of this package, called with what a user would write."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path

from xvlm2vec.eval.benchmarks.tuxpaint import VERSION as STAMPS_VERSION
from xvlm2vec.flags.console import set_up

from .config import CONTROLS, Sizes, Student
from .data import PAIRS, PARALLEL, TEST, VALIDATION, VALIDATION_PAIRS

logger = logging.getLogger(__name__)

MERGED = "merged"
DISTILLATION_LOSS = "self-distillation:1,multilingual-contrastive:1"
NAME = "xVLM2Vec real story"
DESCRIPTION = (
    "SmolLM2-135M-Instruct and EfficientNet-Lite0, joined by a small connector, taught English captions of drawings "
    "and emoji, and made multilingual by self-knowledge distillation with translations by people. It shows the "
    "method on real weights and real images; its scores are low in absolute terms."
)


def run_command(command: str, arguments: Sequence[str]) -> None:
    """Runs a command of this package in this process.

    Raises:
        RuntimeError: It failed.
    """
    logger.info("$ xvlm2vec %s %s", command, " ".join(arguments))
    code = importlib.import_module(f"xvlm2vec.commands.{command}").main(arguments)
    set_up()
    if code:
        raise RuntimeError(f"xvlm2vec {command} ended with exit code {code}; what it said stands above")


def teach_english(checkpoint: Path, data: Path, sizes: Sizes, output: Path) -> None:
    """The connector and an adapter of the language model, by English captions and images."""
    run_command(
        "contrast",
        [
            "--model", str(checkpoint), "--data", str(data / PAIRS), "--eval-data", str(data / VALIDATION_PAIRS),
            "--output", str(output), "--lora", "--lora-rank", "32", "--lora-train-connector",
            "--per-device-train-batch-size", str(sizes.pair_batch),
            "--num-train-epochs", str(sizes.pair_epochs), "--learning-rate", "5e-4", "--eval-strategy", "no",
            "--save-steps", "50",
        ],
    )  # fmt: skip


def distil(teacher: Path, data: Path, sizes: Sizes, student: Student, output: Path) -> None:
    """An adapter that gives translations the vectors of their English captions."""
    run_command(
        "distill",
        [
            "--model", str(teacher), "--data", str(data / PARALLEL), "--eval-data", str(data / VALIDATION),
            "--output", str(output), "--adapter", student.adapter, "--lora-rank", "32",
            "--per-device-train-batch-size", str(sizes.distill_batch),
            "--translations-per-row", str(sizes.translations_per_row), "--num-train-epochs", str(sizes.distill_epochs),
            "--learning-rate", "5e-4", "--lr-scheduler-type", "cosine", "--warmup-steps", "0.05",
            "--loss", DISTILLATION_LOSS, "--logging-steps", "10",
            "--eval-strategy", "no", "--save-strategy", "epoch", "--save-total-limit", "1",
            "--seed", str(student.seed),
        ],
    )  # fmt: skip


def model_of(run: Path, student: Student) -> Path:
    """Where a run keeps what a distillation has made."""
    return run / student.name / ("adapter" if student.adapter == "activated" else MERGED)


def languages_of(sizes: Sizes) -> list[str]:
    """Codes of what is measured; none for all."""
    return ["en", *sizes.languages, *CONTROLS] if sizes.languages else []


def benchmarks_of(data: Path, gcompris: Path, sizes: Sizes) -> dict[str, list[str]]:
    """What was held out, as flags of `evaluate`, in every language that the run is about."""
    return {
        "stamps": ["--benchmark", "tuxpaint", "--data", str(data / TEST / "tuxpaint"), *_asked(languages_of(sizes))],
        "sentences": [
            *("--benchmark", "gcompris", "--data", str(gcompris), "--datasets", "sentences"),
            *_asked(sizes.sentence_languages),
        ],
        "emoji": [
            *("--benchmark", "emoji-languages", "--datasets", "twitter", "--tasks", "c"),
            *_asked(sizes.emoji_languages),
        ],
    }


def _asked(languages: Sequence[str]) -> list[str]:
    return ["--languages", ",".join(languages)] if languages else []


def measure(model: Path, benchmark: Sequence[str], store: Path, output: Path) -> None:
    """Scores a model on a benchmark, which is given as flags of `evaluate`."""
    place = ["--store", str(store), "--output", str(output)]
    run_command("evaluate", [str(model), *benchmark, "--templates", "none", *place])


def release(teacher: Path, adapter: Path, languages: Sequence[str], scores: Path, before: Path, output: Path) -> None:
    """Writes the release, which fresh processes load without this package, and verifies it once more."""
    run_command(
        "release",
        [
            str(teacher), "--adapter", str(adapter), "--to", str(output), "--name", NAME, "--description", DESCRIPTION,
            "--license", "apache-2.0", "--languages", ",".join(("en", *languages)),
            "--datasets", f"Tux Paint stamps {STAMPS_VERSION},GCompris words,emoji names of Unicode CLDR",
            "--results", str(scores / "stamps"), "--before", str(before / "stamps"),
            "--limit", f"Not taught, as controls: {', '.join(CONTROLS)}.",
            "--dtypes", "float32",  # bfloat16 rounds the tower's batch normalisation too far
        ],
    )  # fmt: skip
    run_command("verify", [str(output / "model")])
