"""`xvlm2vec distill`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xvlm2vec import console
from xvlm2vec.corpus.readers import load_parallel
from xvlm2vec.run_state import RunState
from xvlm2vec.sources import load_embedder
from xvlm2vec.trainer.adapters import AdapterConfig, add_adapter, load_adapter
from xvlm2vec.trainer.distillation import distill
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.precision import training_precision
from xvlm2vec.trainer.progress import StageBar
from xvlm2vec.training_flags import Parsed, TrainingForm, parse

logger = logging.getLogger(__name__)


@dataclass
class DistillFlags:
    """Flags of `xvlm2vec distill` beside the settings of the trainer."""

    model: str = field(metadata={"help": "folder or Hub id of the English embedder: an XVLM2VecModel, or an adapter"})
    data: str = field(
        metadata={"help": "parallel corpus with the columns id, image, text_en, translations, source: a folder of "
                  "save_to_disk, a folder of parquet files, or a Hub id"}
    )  # fmt: skip
    output: str = field(
        metadata={"help": "the trained model goes here; with --lora, into adapter/ and, merged, into merged/"}
    )
    eval_data: str | None = field(default=None, metadata={"help": "held-out parallel corpus; its loss is logged"})
    lora: bool = field(default=False, metadata={"help": "train an adapter, not all weights"})
    lora_rank: int = field(default=16, metadata={"help": "rank of the adapter's matrices"})
    lora_alpha: int | None = field(default=None, metadata={"help": "scale times rank; twice the rank if not given"})
    lora_dora: bool = field(default=False, metadata={"help": "weight-decomposed adapter (DoRA)"})
    lora_train_embeddings: bool = field(
        default=False, metadata={"help": "also train the token embeddings, for scripts that the model never saw"}
    )


FORM = TrainingForm(
    command="distill",
    description=(
        "Makes an embedder multilingual by self-knowledge distillation: it learns to give each translation the vector "
        "that it gives to the English text, and to keep that one.\n\n"
        "Interrupt it as you like: the same command goes on from the newest checkpoint."
    ),
    example=(
        "xvlm2vec distill --model runs/teacher --data data/parallel --output runs/student \\\n"
        "    --per-device-train-batch-size 32 --num-train-epochs 1 --learning-rate 1e-5"
    ),
    own=DistillFlags,
    settings=SelfDistillationConfig,
    left_out=("output_dir",),
    shown=(
        "teacher", "freeze_vision", "translations_per_row", "muon_learning_rate", "max_tokens_per_forward",
        "language_weight", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs",
        "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm",
        "gradient_checkpointing", "bf16", "use_cpu", "save_steps", "save_total_limit", "logging_steps", "report_to",
        "seed",
    ),
    see="every field of transformers.TrainingArguments is a flag, see its documentation.",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and trains what is left to train."""
    parsed = parse(FORM, arguments)
    console.set_up()
    flags, output = parsed.own, Path(parsed.own.output)
    strays = [name for name in parsed.given if name.startswith("lora_") and not flags.lora]
    if strays:
        raise ValueError(f"--{strays[0].replace('_', '-')} has no effect without --lora; pass both, or neither.")
    rows = load_parallel(flags.data)
    held_out = load_parallel(flags.eval_data) if flags.eval_data else None
    run = RunState(output, {"command": "distill", **parsed.identity("output")})
    args = training_arguments(parsed, str(output / "adapter" if flags.lora else output))
    logger.info("Training on %d rows", len(rows))
    run.run("training", lambda: _train(flags, args, rows, held_out))
    if flags.lora:
        run.run("merging", lambda: _merge(flags.model, output))
    console.show(f"The trained model is in {output / 'merged' if flags.lora else output}")
    return 0


def training_arguments(parsed: Parsed, output_dir: str) -> SelfDistillationConfig:
    """The trainer's settings; what was not given follows the machine and the kind of training."""
    chosen: dict[str, Any] = dict(parsed.settings)
    if not {"bf16", "fp16", "use_cpu"} & parsed.given.keys():
        chosen |= training_precision()
    if parsed.own.lora and "teacher" not in parsed.given:
        chosen["teacher"] = "adapter-off"
    if parsed.own.eval_data and "eval_strategy" not in parsed.given:
        chosen |= {"eval_strategy": "steps", "eval_steps": chosen["eval_steps"] or chosen["save_steps"]}
    return SelfDistillationConfig(output_dir=output_dir, **chosen)


def _train(flags: DistillFlags, args: SelfDistillationConfig, rows: Any, held_out: Any) -> None:
    model: Any
    model, processor = load_embedder(flags.model)
    if flags.lora:
        model = add_adapter(
            model, AdapterConfig(flags.lora_rank, flags.lora_alpha, flags.lora_dora, flags.lora_train_embeddings)
        )
    trainer = distill(model, processor, args, rows, held_out, callbacks=[StageBar("Distillation")])
    if held_out is not None:
        logger.info("Loss on %s: %.5f", flags.eval_data, trainer.evaluate()["eval_loss"])


def _merge(base: str, output: Path) -> None:
    """Writes the base with the adapter merged, an ordinary model."""
    model, processor = load_embedder(base)
    load_adapter(model, output / "adapter").merge_and_unload().save_pretrained(output / "merged")
    processor.save_pretrained(output / "merged")
