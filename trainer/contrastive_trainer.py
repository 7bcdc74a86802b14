"""The teacher stage: contrastive training of an embedder on pairs, on sentence-transformers' own trainer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch import nn
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, SequentialSampler
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed
from transformers.trainer_utils import TrainOutput

from xvlm2vec.common.columns import IMAGE_COLUMNS
from xvlm2vec.common.pair_checks import check_pairs
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

from .adapters import AdapterConfig, add_adapter
from .checkpoints import train_or_resume
from .contrastive_config import ContrastiveConfig
from .dataset_sampling import DividedBatchSampler, InterleavedBatchSampler, TemperatureBatchSampler
from .epochs import TellEpoch
from .false_negatives import Guide
from .losses import PAIR_LOSSES, LossSum, with_whole_size
from .losses import make_loss as make_losses
from .optimizers import MuonAdamW
from .pair_collator import PACKED, PairCollator
from .pair_loss import PairLoss
from .pair_processes import tell_epochs, use_all_weights
from .pair_sharing import pair_packer
from .pair_views import CROP, wanted_by
from .precision import training_attention
from .sharding import fsdp_is_asked_for
from .threads import ChooseThreads, restored_threads

logger = logging.getLogger(__name__)

ARGUMENTS_FILE = "training_args.bin"


def train_contrastive(
    args: ContrastiveConfig,
    rows: Dataset | Mapping[str, Dataset],
    callbacks: Sequence[TrainerCallback] = (),
    *,
    model: SentenceTransformer | str | None = None,
    eval_rows: Dataset | Mapping[str, Dataset] | None = None,
    adapter: AdapterConfig | None = None,
    guide: Guide | None = None,
) -> SentenceTransformer:
    """Trains an embedder on pairs and hard negatives, and resumes from the newest complete checkpoint.

    Checkpoints lie in `checkpoints/` below the output folder.

    Args:
        args: Settings; `output_dir` is where the trained model goes, or with `adapter` the adapter alone.
        rows: Pairs with the columns of `xvlm2vec.common.pairs.read_pair`, or several data sets of them by name.
        callbacks: More callbacks of the trainer; given any, they replace its own progress bar.
        model: The model to train, or its folder or id: an `XVLM2VecModel` or any model of sentence-transformers.
        eval_rows: Held-out rows; their loss is logged.
        adapter: The adapter to train instead of all weights.
        guide: Vectors of another embedder for all texts and images of the rows: what it finds too similar to a query
            is no negative.

    Returns:
        The trained model.

    Raises:
        ValueError: Rows are faulty or too few, or an adapter is to be put on another model than an `XVLM2VecModel`.
    """
    model = model or args.old_model
    if model is None:
        raise ValueError("train_contrastive needs a model.")
    embedder = model if isinstance(model, SentenceTransformer) else SentenceTransformer(model)
    output = Path(str(args.output_dir))
    instructions = prompts_of(embedder)
    for part in (rows, eval_rows):
        for name, one in as_named(part).items():
            check_pairs(one, instructions, name)
    _check_sizes(rows, args)
    _check_processes(args)
    args = copy.copy(args)
    args.output_dir = str(output / "checkpoints")
    set_seed(args.seed)  # an adapter's first weights are drawn, in every process alike
    adapted, loss = _adapted(embedder, adapter), make_loss(embedder, args)
    wanted = wanted_by(loss.loss)
    _check_crops(wanted, rows, args)
    collator = PairCollator(
        preprocess_fn=embedder.preprocess,
        instructions=instructions,
        mask_duplicates=args.mask_duplicates,
        guide=guide,
        wanted=wanted,
        seed=args.seed,
    )
    trainer = ContrastiveTrainer(
        embedder,
        args,
        rows,
        eval_rows,
        adapted=adapted,
        loss=loss,
        data_collator=collator,
        callbacks=[*callbacks, TellEpoch(collator), ChooseThreads()],
    )
    data = [part for given in (rows, eval_rows) for part in as_named(given).values()]
    collator.packer = pair_packer(args, embedder, data, instructions)
    if collator.packer is None and embedder.transformers_model is not None and args.bf16:
        training_attention(embedder.transformers_model)
    if callbacks:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
    if args.matryoshka_dims and isinstance(embedder.transformers_model, XVLM2VecModel):
        embedder.transformers_model.config.matryoshka_dims = sorted(args.matryoshka_dims, reverse=True)
    train_or_resume(trainer, args.output_dir)
    if eval_rows is not None:
        _tell_losses(trainer.evaluate())
    if trainer.is_world_process_zero():
        trainer.save_embedder(output)
    return embedder


def _tell_losses(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if name.endswith("loss"):
            logger.info("On held-out pairs: %s %.5f", name.removeprefix("eval_").replace("_loss", " loss"), value)


def prompts_of(embedder: SentenceTransformer) -> dict[str, str]:
    """The instructions of a model by name, which rows may name as their task."""
    model = embedder.transformers_model
    if isinstance(model, XVLM2VecModel):
        return dict(model.config.prompts)
    return {name: prompt or "" for name, prompt in embedder.prompts.items()}


def as_named(rows: Dataset | Mapping[str, Dataset] | None) -> dict[str, Dataset]:
    """Data sets by name; one alone has none."""
    if rows is None:
        return {}
    return dict(rows) if isinstance(rows, Mapping) else {"": rows}


def _check_sizes(rows: Dataset | Mapping[str, Dataset], args: ContrastiveConfig) -> None:
    """Every data set must fill the part of a batch that comes from it."""
    if not isinstance(rows, Mapping):
        if args.sub_batch_size is not None:
            raise ValueError("sub_batch_size is for several data sets.")
        return
    least = args.sub_batch_size or args.per_device_train_batch_size * args.world_size
    for name, part in rows.items():
        if len(part) < least:
            raise ValueError(f"{name} has {len(part)} rows, fewer than the {least} of a batch that come from it.")


def _check_processes(args: ContrastiveConfig) -> None:
    """Raises where several processes cannot train together.

    A process without hard negatives in a step takes a pass less than the others, who would wait for it where weights
    are divided; and sentence-transformers has one process save the model, which then holds a part and fails.
    """
    if args.fsdp or fsdp_is_asked_for():
        raise ValueError(
            "contrast does not divide weights among processes (FSDP): each trains a whole copy. Launch it with "
            "configs/accelerate/ddp.yaml; an adapter (--lora) and mini_batch_size save memory."
        )
    if args.world_size > 1 and not args.dataloader_drop_last:
        raise ValueError(
            "dataloader_drop_last=False leaves some of several processes without a last batch, and the others would "
            "wait for them; leave it out."
        )


def _check_crops(wanted: frozenset[str], rows: Dataset | Mapping[str, Dataset], args: ContrastiveConfig) -> None:
    """Raises where a loss on crops finds no images, or would see the same crops in every epoch."""
    if CROP not in wanted:
        return
    parts = as_named(rows).values()  # rows that are made when they are read do not say what they hold
    if not any(part.format["type"] is not None or set(IMAGE_COLUMNS) & set(part.column_names) for part in parts):
        raise ValueError(f"loss={args.loss!r} learns from crops of images, and no pair has an image.")
    if args.dataloader_persistent_workers:
        raise ValueError(
            "dataloader_persistent_workers keeps workers that never hear of the next epoch and would cut the same "
            "crops in each; leave it out."
        )


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
        several_passes = self.args.world_size > 1 and self.args.mini_batch_size is None
        hook: AbstractContextManager[Any] = use_all_weights(self.model) if several_passes else nullcontext()
        with hook, restored_threads():
            return super().train(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """As in sentence-transformers; each epoch is shuffled anew, also on several processes."""
        return tell_epochs(super().get_train_dataloader())

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds nothing."""

    def collect_features(self, inputs: dict[str, Any]) -> tuple[list[Any], Any]:
        """As in sentence-transformers, or the packed sides of a batch."""
        return (inputs[PACKED], inputs["label"]) if PACKED in inputs else super().collect_features(inputs)

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
        held_out = any(dataset is part for part in as_named(self.eval_dataset).values())
        if not held_out:
            batch_size = self.args.sub_batch_size or batch_size * self._parts
        if held_out or self.args.train_sampling_strategy == "sequential":
            return DefaultBatchSampler(SequentialSampler(dataset), batch_size, drop_last and not held_out, *rest)
        return super().get_batch_sampler(dataset, batch_size, drop_last, *rest)

    def get_multi_dataset_batch_sampler(
        self,
        dataset: ConcatDataset[Any],
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int | None = 0,
    ) -> BatchSampler:
        """As in sentence-transformers, and by temperature, and in sub-batches; all of a step are of one data set."""
        options: dict[str, Any] = {"batch_samplers": batch_samplers, "generator": generator, "seed": seed}
        temperature, part = self.args.dataset_temperature, self.args.sub_batch_size
        if temperature is not None:
            sampler: Any = TemperatureBatchSampler(dataset, temperature=temperature, **options)
        else:
            sampler = super().get_multi_dataset_batch_sampler(dataset, **options)
        if part:
            return InterleavedBatchSampler(sampler, self.args.per_device_train_batch_size // part)
        return DividedBatchSampler(sampler, self._parts) if self._parts > 1 else sampler

    @property
    def _parts(self) -> int:
        """Into how many a batch of one of several data sets is divided: one for each process, as pairs are gathered."""
        several = isinstance(self.train_dataset, Mapping) and self.args.sub_batch_size is None
        return self.args.world_size if several else 1

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        """As in sentence-transformers; where several losses are summed, each is logged by its name."""
        result = super().compute_loss(*arguments, **options)
        loss: nn.Module = self.loss  # type: ignore[assignment]
        for part in loss.modules():
            if isinstance(part, LossSum):
                self.track_loss_components({f"loss/{name}": term for name, term in part.last_terms.items()})
        return result

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
        """As in sentence-transformers, by one process only; of a model with an adapter, the adapter.

        transformers calls this in every process, and sentence-transformers takes each for the one that saves.
        """
        if not self.args.should_save:
            return
        if self.adapted is None:
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or str(self.args.output_dir))
        self.save_embedder(folder)
        torch.save(self.args, folder / ARGUMENTS_FILE)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override]
        """As in sentence-transformers; of a model with an adapter, the adapter.

        Raises:
            ValueError: The checkpoint is of another model.
        """
        try:
            if self.adapted is None:
                super()._load_from_checkpoint(checkpoint_path)
            else:
                self.adapted.load_adapter(checkpoint_path, "default", is_trainable=True)
        except RuntimeError as error:  # torch lists every tensor that does not fit
            first = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error))
            raise ValueError(
                f"{checkpoint_path} is of another model than the one that is trained: {first} Use another output "
                "folder; nothing was changed."
            ) from error


def make_loss(model: SentenceTransformer, args: ContrastiveConfig) -> PairLoss:
    """The losses of the settings, in pieces if a mini-batch size is set (GradCache).

    With `matryoshka_dims` they are summed over vectors cut to these sizes, and the whole ones (arXiv 2205.13147).
    """
    sizes = args.matryoshka_dims
    if sizes is not None:
        sizes = with_whole_size(sizes, model.get_embedding_dimension() or max(sizes))
    loss = make_losses(args.loss, sizes, PAIR_LOSSES, temperature=args.temperature)
    return PairLoss(model, loss, args.mini_batch_size, args.mask_duplicates, args.guide_margin)


def _adapted(embedder: SentenceTransformer, adapter: AdapterConfig | None) -> PeftModel | None:
    """Puts an adapter on the model inside, in place."""
    if adapter is None:
        return None
    model = embedder.transformers_model
    if not isinstance(model, XVLM2VecModel):
        raise ValueError(f"An adapter is put on an XVLM2VecModel, and this is a {type(model).__name__}.")
    return add_adapter(model, adapter)
