"""The teacher stage: contrastive training of an embedder on English pairs, on sentence-transformers' own trainer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from xvlm2vec.trainer.checkpoints import train_or_resume
from xvlm2vec.trainer.optimizers import MuonAdamW
from xvlm2vec.trainer.precision import training_attention, training_precision
from xvlm2vec.trainer.threads import ChooseThreads

logger = logging.getLogger(__name__)

PAIR_COLUMNS = ("qry", "qry_image", "pos_text", "pos_image")


@dataclass
class ContrastiveConfig:
    """Settings of one contrastive run.

    Args:
        model: Folder or id of the model to train: an `XVLM2VecModel` or any model of sentence-transformers.
        output_dir: Where the trained model and its checkpoints go.
        batch_size: Rows of a step; each is the others' negative.
        mini_batch_size: With a value, embeddings are computed in pieces of this size and the gradient is the same
            (GradCache): memory no longer grows with the batch, at the price of a second forward pass.
        learning_rate: Peak rate of AdamW.
        muon_learning_rate: With a value, hidden matrices are trained by Muon at this peak rate.
        temperature: Of InfoNCE over cosines.
        warmup_ratio: Share of the steps during which the rate rises; it then falls along a cosine.
        epochs: Passes over the rows.
        max_grad_norm: Gradients are clipped to this norm.
        shuffle: Whether rows are shuffled; `False` keeps blocks of hard negatives together.
        save_steps: Steps between checkpoints.
        seed: Of everything random.
        report_to: Where `transformers.Trainer` reports: `"tensorboard"`, `"wandb"`, `"trackio"`, `"none"`.
    """

    model: str
    output_dir: str
    batch_size: int = 64
    mini_batch_size: int | None = None
    learning_rate: float = 2e-5
    muon_learning_rate: float | None = None
    temperature: float = 0.05
    warmup_ratio: float = 0.05
    epochs: float = 1.0
    max_grad_norm: float = 1.0
    shuffle: bool = True
    save_steps: int = 500
    seed: int = 0
    report_to: list[str] = field(default_factory=lambda: ["none"])


def train_contrastive(
    config: ContrastiveConfig, rows: Dataset, callbacks: Sequence[TrainerCallback] = ()
) -> SentenceTransformer:
    """Trains with symmetric InfoNCE over the batch, and resumes from the newest complete checkpoint.

    Args:
        config: Settings.
        rows: With the columns of MMEB-train: `qry`, `qry_image`, `pos_text`, `pos_image`; an empty string or `None`
            stands for what a side lacks.
        callbacks: Of the trainer; given any, they replace its own progress bar.

    Returns:
        The trained model, also saved in `config.output_dir`.

    Raises:
        ValueError: A row lacks a column, or has a side with neither text nor picture.
    """
    model = SentenceTransformer(config.model)
    precision = training_precision()
    if model.transformers_model is not None:
        training_attention(model.transformers_model)
    trainer = ContrastiveTrainer(
        model=model,
        args=_training_arguments(config, precision),
        train_dataset=rows,
        loss=make_loss(model, config),
        data_collator=PairCollator(preprocess_fn=model.preprocess),
        callbacks=[*callbacks, ChooseThreads()],
        optimizers=(_optimizer(model, config), None),  # type: ignore[arg-type]  # the trainer makes what is None
    )
    if callbacks:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
    train_or_resume(trainer, Path(config.output_dir) / "checkpoints")
    model.save_pretrained(config.output_dir, create_model_card=False)
    return model


class ContrastiveTrainer(SentenceTransformerTrainer):
    """The stock trainer without its card, which would read stored columns as texts; releases write their own."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds nothing."""


class PairCollator(SentenceTransformerDataCollator):
    """Reads rows of MMEB-train: a query and its positive, each text, a picture, or both."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Makes the columns `anchor` and `positive` that the loss compares."""
        pairs = [
            {
                "anchor": _side(row, "qry", "qry_image", index),
                "positive": _side(row, "pos_text", "pos_image", index),
            }
            for index, row in enumerate(features)
        ]
        return super().__call__(pairs)


class InOrderBatchSampler(DefaultBatchSampler):
    """Batches in the order of the rows, for corpora whose blocks were composed on purpose."""

    def __init__(self, dataset: Dataset, **kwargs: Any) -> None:
        super().__init__(SequentialSampler(dataset), **kwargs)

    def __iter__(self) -> Iterator[list[int]]:
        """The indices of each batch."""
        return super().__iter__()


def _side(row: dict[str, Any], text: str, image: str, index: int) -> Any:
    missing = [column for column in (text, image) if column not in row]
    if missing:
        raise ValueError(f"A row lacks the column {missing[0]!r}; contrastive rows have {', '.join(PAIR_COLUMNS)}.")
    if row[image] is None:
        if not row[text]:
            raise ValueError(f"Row {index} of a batch has neither {text!r} nor {image!r}.")
        return row[text]
    return {"text": row[text], "image": row[image]} if row[text] else row[image]


def make_loss(model: SentenceTransformer, config: ContrastiveConfig) -> nn.Module:
    """Symmetric InfoNCE over the batch, cached (Gao et al. 2021) if a mini-batch size is set."""
    shared: dict[str, Any] = {
        "scale": 1 / config.temperature,
        "directions": ("query_to_doc", "doc_to_query"),
        "partition_mode": "per_direction",
    }
    if config.mini_batch_size is None:
        return MultipleNegativesRankingLoss(model, **shared)
    return CachedMultipleNegativesRankingLoss(model, mini_batch_size=config.mini_batch_size, **shared)


def _optimizer(model: nn.Module, config: ContrastiveConfig) -> torch.optim.Optimizer | None:
    if config.muon_learning_rate is None:
        return None
    return MuonAdamW(model, muon_lr=config.muon_learning_rate, adamw_lr=config.learning_rate)


def _training_arguments(config: ContrastiveConfig, precision: dict[str, Any]) -> SentenceTransformerTrainingArguments:
    return SentenceTransformerTrainingArguments(
        output_dir=str(Path(config.output_dir) / "checkpoints"),
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_ratio,
        num_train_epochs=config.epochs,
        max_grad_norm=config.max_grad_norm,
        batch_sampler="batch_sampler" if config.shuffle else InOrderBatchSampler,
        save_steps=config.save_steps,
        save_total_limit=2,
        logging_steps=50,
        seed=config.seed,
        report_to=config.report_to,
        dataloader_drop_last=True,
        **precision,
    )
