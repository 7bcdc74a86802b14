"""Settings of contrastive training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.base.training_args import BatchSamplers, MultiDatasetBatchSamplers
from transformers import SchedulerType

from .distillation_config import SHARING
from .losses import PAIR_LOSSES, loss_names
from .settings import setting

RENAMED = {"batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs", "warmup_ratio": "warmup_steps"}
SAMPLING = ("random", "sequential")
MULTI = ("proportional", "round_robin")


@dataclass
class ContrastiveConfig(SentenceTransformerTrainingArguments):
    """`SentenceTransformerTrainingArguments`, with defaults for this stage, and what contrastive training adds.

    The rows of a batch are each other's negatives, on all devices together: accumulated steps add no negatives, a
    `mini_batch_size` does.

    Args:
        mini_batch_size: With a value, embeddings are computed in pieces of this size and the gradient is the same
            (GradCache): memory no longer grows with the batch, at the price of a second forward pass. Where rows share
            packs, a piece has the memory of so many rows, and holds more of them.
        sharing: `"tree"` packs the rows of a side without padding and passes an image that several of them show once,
            with all their texts behind it, if a check of one row of the data finds the vectors right; `"dense"` does so
            by one attention with a mask; `"auto"` tries both, then passes each row whole, as `"off"` does.
        loss: Names of `PAIR_LOSSES`, each with a weight if it is not 1.
        temperature: InfoNCE divides cosines by it.
        mask_duplicates: Equal texts and images of a batch are no negatives of each other's queries.
        guide_margin: With a guide, a candidate is no negative that the guide finds nearer to the query than its
            positive less this margin.
        sub_batch_size: With a value, a batch is put together from parts of this size, each of one data set; without
            one, a batch is of one data set.
        multi_dataset_batch_sampler: `"proportional"` reads every row of every data set once in an epoch;
            `"round_robin"` takes turns until the first data set is through.
        dataset_temperature: With a value, data sets are drawn with the weight of their number of batches to the power
            of its inverse.
        matryoshka_dims: The loss is also taken on vectors that are cut to these sizes, and the model's configuration
            tells them.
        train_sampling_strategy: `"random"`, or `"sequential"`, which keeps blocks of hard negatives together.
        model: Deprecated: `train_contrastive` takes it.
        batch_size: Deprecated, `per_device_train_batch_size`.
        epochs: Deprecated, `num_train_epochs`.
        warmup_ratio: Deprecated, `warmup_steps` below 1.
        shuffle: Deprecated, `train_sampling_strategy`.
    """

    output_dir: str | None = setting("runs/contrastive", "Model and checkpoints go here.")
    per_device_train_batch_size: int = setting(64, "Rows of a step on each device; each is the others' negative.")
    per_device_eval_batch_size: int = setting(64, "The same for held-out rows.")
    mini_batch_size: int | None = setting(None, "Embed in pieces of this size: the same gradient in less memory.")
    sharing: str = setting(
        "auto", "auto: no padding, and images that several rows show seen once, by tree or else dense; off: each whole."
    )
    loss: str = setting("info-nce", f"Losses, such as info-nce:1,name:0.5; there are {loss_names(PAIR_LOSSES)}.")
    temperature: float = setting(0.05, "InfoNCE divides cosines by it.")
    mask_duplicates: bool = setting(
        True, "Equal texts and images of a batch, also under two names, are no negatives of each other's queries."
    )
    guide_margin: float = setting(
        0.0, "With --guide: leave out what the guide finds nearer to a query than its positive less this margin."
    )
    sub_batch_size: int | None = setting(
        None, "Put a batch together from parts of this size, each of one data set. Without it a batch is of one."
    )
    multi_dataset_batch_sampler: Any = setting(
        "proportional",
        "proportional reads all rows of all data sets; round_robin takes turns until one is through.",
        choices=MULTI,
    )
    dataset_temperature: float | None = setting(
        None, "Draw data sets by size to the power of 1/T instead: 1 is proportional, 5 nearly even."
    )
    matryoshka_dims: list[int] | None = setting(None, "Sizes to cut vectors to: the loss is taken on each, too.")
    num_train_epochs: float = setting(1.0, "Passes over the rows.")
    learning_rate: float = setting(2e-5, "Peak rate of AdamW.")
    muon_learning_rate: float | None = setting(
        None, "Peak rate of Muon, which then trains the hidden matrices; learning_rate is that of the rest."
    )
    lr_scheduler_type: SchedulerType | str = setting("cosine", "How the rate falls after the warm-up.")
    warmup_steps: float = setting(0.05, "Steps during which the rate rises; below 1, their share of all steps.")
    train_sampling_strategy: str = setting(
        "random", "sequential keeps the order of the rows, such as blocks of hard negatives.", choices=SAMPLING
    )
    dataloader_drop_last: bool = setting(True, "Leave out the last batch if it is smaller.")
    save_total_limit: int | None = setting(2, "Checkpoints that are kept.")
    logging_steps: float = setting(50, "Steps between logs.")
    seed: int = setting(0, "All that is random follows from it.")
    model: InitVar[str | None] = None
    old_model: str | None = field(default=None, init=False, repr=False)
    batch_size: int | None = setting(None, "Deprecated.")
    epochs: float | None = setting(None, "Deprecated.")
    shuffle: bool = setting(True, "Deprecated.")

    def __getstate__(self) -> dict[str, Any]:
        """All settings but the token: `training_args.bin` in a checkpoint is a pickle of them."""
        return {**self.__dict__, "hub_token": None}

    def __post_init__(self, model: str | None) -> None:
        self.old_model = model
        if model is not None:
            _warn("model", "the argument `model` of `train_contrastive`")
        old = {name: getattr(self, name) for name in RENAMED if getattr(self, name) is not None}
        for name, value in renamed(old if self.shuffle else {**old, "shuffle": False}).items():
            setattr(self, name, value)
        self.batch_size = self.epochs = self.warmup_ratio = None
        self.shuffle = True
        super().__post_init__()
        if self.train_sampling_strategy not in SAMPLING:
            raise ValueError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} is none of {', '.join(SAMPLING)}: rows "
                "have texts and images, whose lengths are only known when they are prepared."
            )
        if self.train_sampling_strategy == "sequential" and self.batch_sampler != BatchSamplers.BATCH_SAMPLER:
            raise ValueError("A batch_sampler chooses an order of its own; leave train_sampling_strategy out.")
        if self.push_to_hub:
            raise ValueError("A trained embedder is published by `xvlm2vec release`; leave push_to_hub out.")
        if self.mini_batch_size is not None and self.mini_batch_size < 1:
            raise ValueError("mini_batch_size must be at least 1.")
        if self.sharing not in SHARING:
            raise ValueError(f"sharing={self.sharing!r} is unknown; choose one of {', '.join(SHARING)}.")
        if self.torch_compile and self.sharing != "off":
            raise ValueError(
                "torch_compile needs sharing='off': packs have another layout in nearly every step and would be "
                "compiled each time."
            )
        if not self.temperature > 0:
            raise ValueError("temperature must be above 0.")
        self._check_data_sets()

    def _check_data_sets(self) -> None:
        if self.dataset_temperature is not None:
            if not self.dataset_temperature >= 1:
                raise ValueError(f"dataset_temperature must be at least 1, not {self.dataset_temperature}.")
            if self.multi_dataset_batch_sampler == MultiDatasetBatchSamplers.ROUND_ROBIN:
                raise ValueError("round_robin takes turns and draws nothing; leave dataset_temperature out.")
        batch, part = self.per_device_train_batch_size, self.sub_batch_size
        if part is not None and (part < 1 or batch % part):
            raise ValueError(f"sub_batch_size={part} does not divide per_device_train_batch_size={batch}.")


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run under the names that they have now, with a `DeprecationWarning` for each old one."""
    current = dict(settings)
    for name in ("data", "eval_data"):  # earlier versions had one data set
        if isinstance(current.get(name), str):
            current[name] = [current[name]]
    if "shuffle" in current:
        _warn("shuffle", "train_sampling_strategy")
        if not current.pop("shuffle"):
            current.setdefault("train_sampling_strategy", "sequential")
    for old in [name for name in RENAMED if name in current]:
        _warn(old, RENAMED[old])
        current.setdefault(RENAMED[old], current.pop(old))
    return current


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is deprecated; use {new}.", DeprecationWarning, stacklevel=4)
