"""Runs self-distillation from start to saved model, and goes on where an interrupted run stopped."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from xvlm2vec.common.files import write_json
from xvlm2vec.modeling.hub_ids import is_path
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .checkpoints import train_or_resume
from .distillation_config import SelfDistillationConfig
from .distillation_trainer import SelfDistillationTrainer
from .image_cache import FOLDER as IMAGES
from .other_teacher import Teacher
from .precision import training_attention
from .prefix_cache import FOLDER as PREFIXES

logger = logging.getLogger(__name__)

SUMMARY_FILE = "distillation.json"
TAUGHT = "taught"
"""Beside the checkpoints, for the time in which a result is given back in its own form."""
LIBRARIES = ("torch", "transformers", "peft", "datasets")


def distill(
    model: nn.Module,
    processor: XVLM2VecProcessor,
    args: SelfDistillationConfig,
    rows: Dataset,
    eval_rows: Dataset | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    teacher: Teacher | None = None,
    give_back: Callable[[Path, Path], object] | None = None,
) -> SelfDistillationTrainer:
    """Trains, saves the model (or adapter) and its processor in `args.output_dir`, and says what was done.

    Checkpoints lie in `checkpoints/` below it; the newest complete one is resumed from.

    Args:
        model: An `XVLM2VecModel` or a `PeftModel` around one.
        processor: Its processor.
        args: Settings; `output_dir` is where the result goes.
        rows: A parallel corpus.
        eval_rows: A held-out part of it.
        callbacks: More callbacks of the trainer; given any, they replace its own progress bar.
        teacher: Another embedder to learn from. Where its vectors are wider or narrower, a projection to them is
            trained and not saved; `projection.add_projection` gives the model one to keep.
        give_back: Writes the result of an embedder that runs by its own code, which only it knows the form of: called
            with the folder of the taught weights and that of the result.

    Returns:
        The trainer, with its state and log.
    """
    output = Path(str(args.output_dir))
    args = copy.copy(args)
    args.output_dir = str(output / "checkpoints")
    args.hub_model_id = args.hub_model_id or output.name  # rather than the name of the folder of checkpoints
    taught_by = None if teacher is None else str(teacher.model.config.name_or_path)
    trainer = SelfDistillationTrainer(
        model,
        args,
        train_dataset=rows,
        eval_dataset=eval_rows,
        processing_class=processor,
        callbacks=list(callbacks),
        teacher=teacher,
    )
    del teacher  # its targets are in the store, or the trainer has it
    if not trainer.collator.sharing and not trainer.embedder.is_black_box:  # which has an attention of its own
        training_attention(trainer.embedder)
    if callbacks:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
    train_or_resume(trainer, args.output_dir)
    if give_back is None:
        trainer.save_model(str(output))
    else:
        taught = Path(args.output_dir) / TAUGHT
        trainer.save_model(str(taught))
        if trainer.is_world_process_zero():
            give_back(taught, output)
            shutil.rmtree(taught)
    languages = trainer.languages_seen.read()
    if trainer.is_world_process_zero():
        for folder in (IMAGES, PREFIXES):  # of a run that was killed at its end
            shutil.rmtree(Path(args.output_dir) / folder, ignore_errors=True)
        _write_summary(output / SUMMARY_FILE, trainer, taught_by, languages)
    return trainer


def measure_held_out(trainer: SelfDistillationTrainer, folder: Path, name: str) -> None:
    """Measures a taught model on its held-out rows, says what came out, and adds it to the summary of the training.

    `english_drift` is one minus the cosine between a row's English vector before and after the training, or to that of
    the other embedder that taught.

    Args:
        trainer: What `distill` gave.
        folder: The result.
        name: Of the held-out rows, for the log.
    """
    measured = trainer.evaluate()
    found = {key.removeprefix("eval_"): value for key, value in measured.items() if _is_told(key)}
    logger.info(
        "On %s: loss %.5f, English drift %.4f, worst language %.4f from its teacher",
        name,
        *(found[key] for key in ("loss", "english_drift", "worst_distance")),
    )
    if trainer.is_world_process_zero():
        path = folder / SUMMARY_FILE
        write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "held_out": found})


def _is_told(name: str) -> bool:
    return name.startswith("eval_distance/") or name in ("eval_loss", "eval_english_drift", "eval_worst_distance")


def _write_summary(
    path: Path, trainer: SelfDistillationTrainer, taught_by: str | None, languages: dict[str, Any] | None
) -> None:
    """What a model card tells of the training, and what it saw of each language."""
    if languages:
        seen = ", ".join(f"{name} {_counted(count)}" for name, count in languages.items())
        logger.info("Translations seen: %s", seen)
    args, loss = trainer.args, trainer.distillation_loss
    names = (
        "learning_rate", "muon_learning_rate", "max_grad_norm", "weight_decay", "lr_scheduler_type", "max_steps",
        "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size",
        "translations_per_row", "teacher", "sharing", "freeze_vision", "bf16", "seed",
    )  # fmt: skip
    unused = "num_train_epochs" if args.max_steps > 0 else "max_steps"  # one of them says how long it went on
    settings: dict[str, Any] = {name: getattr(args, name) for name in names if name != unused}
    start = str(getattr(trainer.embedder.config, "name_or_path", ""))
    content = {
        # Paths would tell where this machine keeps its models.
        **({} if is_path(start) else {"start": start}),
        **({} if taught_by is None else {"teacher": _teacher(trainer, taught_by)}),
        "versions": {name: version(name) for name in LIBRARIES},
        "loss": {
            "name": type(loss).__name__,
            "settings": loss.get_config_dict(),  # type: ignore[operator]
            "citation": loss.citation,
        },
        "settings": {name: getattr(value, "value", value) for name, value in settings.items()},  # of enums, their value
        "log": trainer.state.log_history[-1:],
        **({} if languages is None else {"languages": languages}),
    }
    write_json(path, content)


def _counted(count: dict[str, int]) -> str:
    tokens = f" of {count['tokens']} tokens" if "tokens" in count else ""
    return f"{count['rows']}{tokens}"


def _teacher(trainer: SelfDistillationTrainer, name: str) -> dict[str, Any]:
    """The other embedder that taught, and the projection to its vectors that was dropped."""
    projection = trainer.projection
    widths = ("in_features", "out_features")
    return {
        **({} if is_path(name) else {"model": name}),
        **({} if projection is None else {"dropped_projection": {key: projection.settings[key] for key in widths}}),
    }
