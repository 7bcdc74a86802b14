"""Runs self-distillation from start to saved model, and goes on where an interrupted run stopped."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.checkpoints import train_or_resume
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.distillation_trainer import SelfDistillationTrainer, embedder_of
from xvlm2vec.trainer.precision import training_attention

SUMMARY_FILE = "distillation.json"


def distill(
    model: nn.Module,
    processor: XVLM2VecProcessor,
    args: SelfDistillationConfig,
    rows: Dataset,
    eval_rows: Dataset | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> SelfDistillationTrainer:
    """Trains, saves the model (or adapter) and its processor in `args.output_dir`, and says what was done.

    Checkpoints lie in `checkpoints/` below it; the newest complete one is resumed from.

    Args:
        model: An `XVLM2VecModel` or a `PeftModel` around one.
        processor: Its processor.
        args: Settings; `output_dir` is where the result goes.
        rows: A parallel corpus.
        eval_rows: A held-out part of it.
        callbacks: Of the trainer; given any, they replace its own progress bar.

    Returns:
        The trainer, with its state and log.
    """
    output = Path(str(args.output_dir))
    args = copy.copy(args)
    args.output_dir = str(output / "checkpoints")
    training_attention(embedder_of(model))
    trainer = SelfDistillationTrainer(
        model, args, train_dataset=rows, eval_dataset=eval_rows, processing_class=processor, callbacks=list(callbacks)
    )
    if callbacks:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
    train_or_resume(trainer, args.output_dir)
    trainer.save_model(str(output))
    _write_summary(output / SUMMARY_FILE, trainer)
    return trainer


def _write_summary(path: Path, trainer: SelfDistillationTrainer) -> None:
    """What a model card tells of the training."""
    args, loss = trainer.args, trainer.distillation_loss
    names = (
        "learning_rate", "muon_learning_rate", "max_grad_norm", "weight_decay", "lr_scheduler_type", "max_steps",
        "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "translations_per_row",
        "teacher", "freeze_vision", "bf16", "seed",
    )  # fmt: skip
    settings: dict[str, Any] = {name: getattr(args, name) for name in names}
    content = {
        "loss": {
            "name": type(loss).__name__,
            "settings": loss.get_config_dict(),  # type: ignore[operator]
            "citation": loss.citation,
        },
        "settings": {name: str(value) if name == "lr_scheduler_type" else value for name, value in settings.items()},
        "log": trainer.state.log_history[-1:],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
