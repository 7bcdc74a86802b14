"""`xvlm2vec contrast`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xvlm2vec.modeling  # noqa: F401  (registers the Auto classes)
from xvlm2vec.common.run_state import RunState
from xvlm2vec.corpus.stored import load_pairs
from xvlm2vec.flags import console
from xvlm2vec.flags.models import load_embedder, model_kind
from xvlm2vec.flags.training import TrainingForm, parse
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.trainer.contrastive_trainer import ContrastiveConfig, train_contrastive
from xvlm2vec.trainer.progress import StageBar

logger = logging.getLogger(__name__)


@dataclass
class ContrastFlags:
    """Flags of `xvlm2vec contrast` beside the settings of the training."""

    model: str = field(
        metadata={"help": "folder or Hub id to start from: any vision-language model of transformers, or an embedder"}
    )
    data: str = field(
        metadata={"help": "pairs with the columns qry, qry_image, pos_text, pos_image: a folder of save_to_disk, a "
                  "folder of parquet files, or a Hub id"}
    )  # fmt: skip
    output: str = field(metadata={"help": "folder of the trained model and its checkpoints"})


FORM = TrainingForm(
    command="contrast",
    description=(
        "Trains an embedder on English pairs: each row of a batch must find its own partner among those of the "
        "others. A vision-language model that does not embed yet is wrapped first and kept in OUTPUT/start.\n\n"
        "Interrupt it as you like: the same command goes on from the newest checkpoint."
    ),
    example=(
        "xvlm2vec contrast --model HuggingFaceTB/SmolVLM-256M-Instruct --data data/pairs --output runs/teacher \\\n"
        "    --batch-size 256 --mini-batch-size 16 --learning-rate 2e-5"
    ),
    own=ContrastFlags,
    settings=ContrastiveConfig,
    left_out=("model", "output_dir"),
)


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and trains what is left to train."""
    parsed = parse(FORM, arguments)
    console.set_up()
    flags, output = parsed.own, Path(parsed.own.output)
    kind = model_kind(flags.model)
    rows = load_pairs(flags.data)
    run = RunState(output, {"command": "contrast", **parsed.identity("output")})
    start = flags.model
    if kind == "backbone":
        start = str(output / "start")
        run.run("wrapped the backbone", lambda: wrap(flags.model, start))
    elif kind == "adapter":
        start = str(output / "start")
        run.run("merged the adapter", lambda: _save(*load_embedder(flags.model), start))
    config = ContrastiveConfig(model=start, output_dir=str(output), **parsed.settings)
    if len(rows) < config.batch_size:
        raise ValueError(f"{flags.data} has {len(rows)} rows, fewer than one batch; set --batch-size {len(rows)}.")

    def train() -> None:
        train_contrastive(config, rows, [StageBar("Contrast")])

    logger.info("Training on %d pairs", len(rows))
    run.run("training", train)
    console.show(f"The trained model is in {output}")
    return 0


def wrap(source: str, folder: str) -> None:
    """Wraps a vision-language model into an embedder and saves it."""
    logger.info("Wrapping %s", source)
    _save(XVLM2VecModel.from_backbone(source), XVLM2VecProcessor.from_pretrained(source), folder)


def _save(model: XVLM2VecModel, processor: XVLM2VecProcessor, folder: str) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
