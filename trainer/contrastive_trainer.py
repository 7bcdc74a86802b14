"""The teacher stage: contrastive training of an embedder on English pairs, on sentence-transformers' own trainer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed
from transformers.trainer_utils import TrainOutput

from xvlm2vec.common.columns import PAIR_COLUMNS
from xvlm2vec.common.image_marks import without_marks
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

from .adapters import AdapterConfig, add_adapter
from .checkpoints import train_or_resume
from .contrastive_config import ContrastiveConfig
from .losses import with_whole_size
from .optimizers import MuonAdamW
from .precision import training_attention
from .threads import ChooseThreads, restored_threads

logger = logging.getLogger(__name__)

ARGUMENTS_FILE = "training_args.bin"
CHUNK = 10_000


def train_contrastive(
    args: ContrastiveConfig,
    rows: Dataset,
    callbacks: Sequence[TrainerCallback] = (),
    *,
    model: SentenceTransformer | str | None = None,
    eval_rows: Dataset | None = None,
    adapter: AdapterConfig | None = None,
) -> SentenceTransformer:
    """Trains with symmetric InfoNCE over the batch, and resumes from the newest complete checkpoint.

    Checkpoints lie in `checkpoints/` below the output folder.

    Args:
        args: Settings; `output_dir` is where the trained model goes, or with `adapter` the adapter alone.
        rows: Pairs with the columns of MMEB-train: `qry`, `qry_image`, `pos_text`, `pos_image`; an empty string or
            `None` stands for what a side lacks.
        callbacks: More callbacks of the trainer; given any, they replace its own progress bar.
        model: The model to train, or its folder or id: an `XVLM2VecModel` or any model of sentence-transformers.
        eval_rows: Held-out rows; their loss is logged.
        adapter: The adapter to train instead of all weights.

    Returns:
        The trained model.

    Raises:
        ValueError: A row lacks a column, or has a side with neither text nor image; or an adapter is to be put on
            another model than an `XVLM2VecModel`.
    """
    model = model or args.old_model
    if model is None:
        raise ValueError("train_contrastive needs a model.")
    embedder = model if isinstance(model, SentenceTransformer) else SentenceTransformer(model)
    output = Path(str(args.output_dir))
    for part in (rows, eval_rows):
        if part is not None:
            check_marks(part)
    args = copy.copy(args)
    args.output_dir = str(output / "checkpoints")
    set_seed(args.seed)  # an adapter's first weights are drawn, in every process alike
    if embedder.transformers_model is not None and args.bf16:
        training_attention(embedder.transformers_model)
    trainer = ContrastiveTrainer(
        embedder,
        args,
        rows,
        eval_rows,
        adapted=_adapted(embedder, adapter),
        loss=make_loss(embedder, args),
        data_collator=PairCollator(preprocess_fn=embedder.preprocess),
        callbacks=[*callbacks, ChooseThreads()],
    )
    if callbacks:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
    if args.matryoshka_dims and isinstance(embedder.transformers_model, XVLM2VecModel):
        embedder.transformers_model.config.matryoshka_dims = sorted(args.matryoshka_dims, reverse=True)
    train_or_resume(trainer, args.output_dir)
    if eval_rows is not None:
        logger.info("On held-out pairs: loss %.5f", trainer.evaluate()["eval_loss"])
    if trainer.is_world_process_zero():
        trainer.save_embedder(output)
    return embedder


class ContrastiveTrainer(SentenceTransformerTrainer):
    """The stock trainer without its card, which would read stored columns as texts; releases write their own.

    Args:
        *arguments: What `SentenceTransformerTrainer` takes.
        adapted: The `PeftModel` around the model's backbone if an adapter is trained: it alone is saved and loaded.
        **options: What `SentenceTransformerTrainer` takes.
    """

    args: ContrastiveConfig

    def __init__(self, *arguments: Any, adapted: PeftModel | None = None, **options: Any) -> None:
        self.adapted = adapted
        super().__init__(*arguments, **options)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in transformers; torch has its threads back when it ends."""
        with restored_threads():
            return super().train(*args, **kwargs)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds nothing."""

    def get_batch_sampler(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> BatchSampler | None:
        """As in sentence-transformers; held-out rows are read in their order, and all of them."""
        rest = (valid_label_columns, generator, seed)
        held_out = dataset is self.eval_dataset
        if held_out or self.args.train_sampling_strategy == "sequential":
            return DefaultBatchSampler(SequentialSampler(dataset), batch_size, drop_last and not held_out, *rest)
        return super().get_batch_sampler(dataset, batch_size, drop_last, *rest)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon and AdamW if `muon_learning_rate` is set, else what sentence-transformers makes."""
        if self.optimizer is None and self.args.muon_learning_rate is not None:
            self.optimizer = MuonAdamW(
                self.model, self.args.muon_learning_rate, self.args.learning_rate, self.args.weight_decay
            )
        return super().create_optimizer() if model is None else super().create_optimizer(model)

    def save_embedder(self, folder: Path) -> None:
        """Saves what was trained: the adapter if there is one, else the model, without a card."""
        if self.adapted is not None:
            self.adapted.save_pretrained(str(folder))
        else:
            self.model.save_pretrained(str(folder), create_model_card=False)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """As in sentence-transformers; of a model with an adapter, the adapter."""
        if self.adapted is None:
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or str(self.args.output_dir))
        self.save_embedder(folder)
        torch.save(self.args, folder / ARGUMENTS_FILE)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override]
        """As in sentence-transformers; of a model with an adapter, the adapter."""
        if self.adapted is None:
            super()._load_from_checkpoint(checkpoint_path)
        else:
            self.adapted.load_adapter(checkpoint_path, "default", is_trainable=True)


class PairCollator(SentenceTransformerDataCollator):
    """Reads rows of MMEB-train: a query and its positive, each text, an image, or both."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Makes the columns `anchor` and `positive` that the loss compares."""
        sides = {"anchor": PAIR_COLUMNS[:2], "positive": PAIR_COLUMNS[2:]}
        return super().__call__(
            [
                {name: _side(row, *columns, index) for name, columns in sides.items()}
                for index, row in enumerate(features)
            ]
        )


def _side(row: dict[str, Any], text_column: str, image_column: str, index: int) -> Any:
    missing = [column for column in (text_column, image_column) if column not in row]
    if missing:
        raise ValueError(f"A row lacks the column {missing[0]!r}; contrastive rows have {', '.join(PAIR_COLUMNS)}.")
    image = row[image_column]
    where = f"Row {index} of a batch, {text_column!r}"
    text = without_marks(row[text_column] or "", int(image is not None), where)
    if image is None:
        if not text:
            raise ValueError(f"Row {index} of a batch has neither {text_column!r} nor {image_column!r}.")
        return text
    return {"text": text, "image": image} if text else image


def check_marks(rows: Dataset) -> None:
    """Goes through the texts of stored pairs before any is trained on; no image is decoded.

    Raises:
        ValueError: A text holds more marks of an image than its side has images; names the row.
    """
    if rows.format["type"] is not None or not set(PAIR_COLUMNS) <= set(rows.column_names):
        return  # rows that are made when they are read; the collator checks them
    table = rows.select_columns(list(PAIR_COLUMNS)).with_format("arrow")
    for start in range(0, len(rows), CHUNK):
        part = table[start : start + CHUNK]
        for text_column, image_column in (PAIR_COLUMNS[:2], PAIR_COLUMNS[2:]):
            there = part[image_column].is_valid().to_pylist()
            for place, (text, image) in enumerate(zip(part[text_column].to_pylist(), there, strict=True), start):
                without_marks(text or "", int(image), f"Row {place}, {text_column!r}")


def make_loss(model: SentenceTransformer, args: ContrastiveConfig) -> nn.Module:
    """Symmetric InfoNCE over the batch, cached (Gao et al. 2021) if a mini-batch size is set.

    With `matryoshka_dims` it is summed over vectors cut to these sizes, and the whole ones (arXiv 2205.13147).
    """
    shared: dict[str, Any] = {
        "scale": 1 / args.temperature,
        "directions": ("query_to_doc", "doc_to_query"),
        "partition_mode": "per_direction",
    }
    if args.mini_batch_size is None:
        loss: nn.Module = MultipleNegativesRankingLoss(model, **shared)
    else:
        loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=args.mini_batch_size, **shared)
    if args.matryoshka_dims is None:
        return loss
    width = model.get_embedding_dimension()
    sizes = with_whole_size(args.matryoshka_dims, width or max(args.matryoshka_dims))
    return MatryoshkaLoss(model, loss, sizes)


def _adapted(embedder: SentenceTransformer, adapter: AdapterConfig | None) -> PeftModel | None:
    """Puts an adapter on the model inside, in place."""
    if adapter is None:
        return None
    model = embedder.transformers_model
    if not isinstance(model, XVLM2VecModel):
        raise ValueError(f"An adapter is put on an XVLM2VecModel, and this is a {type(model).__name__}.")
    return add_adapter(model, adapter)
