"""Settings of self-distillation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import TrainingArguments

from xvlm2vec.common.renamed import warn_renamed

from .losses import loss_names, make_loss, with_whole_size
from .settings import setting

TEACHERS = ("cached", "adapter-off", "copy")
SHARING = ("auto", "tree", "dense", "off")
NEARER_IS_BETTER = ("distance", "drift", "loss")


@dataclass
class SelfDistillationConfig(TrainingArguments):
    """`transformers.TrainingArguments` and what self-distillation adds.

    `per_device_train_batch_size` counts rows of the parallel corpus: an English text, its image if it has one, and
    its translations.

    Args:
        teacher: Where the English targets come from. `"cached"` embeds the distinct English rows once, before the
            training, into a store on disk that all runs share; `"adapter-off"` runs the student without its adapter
            (LoRA: one copy of the weights); `"copy"` runs a frozen copy of the student as it was at the start. For
            rows that are made anew whenever they are read, only the last two will do. Of another teacher, `"cached"` is
            the same, and `"copy"` runs it in every step.
        teacher_store: Folder of the store; by default `xvlm2vec/teacher` in the user's cache.
        sharing: `"tree"` passes all texts of a row over one pass of their image, if a check of one row with an image
            shows that the backbone allows it; `"dense"` does so by one masked attention over all tokens, which is
            slower; `"auto"` tries the first, then the second; `"off"` passes each text whole, as the
            others do where the check fails.
        freeze_vision: Whether vision tower and connector stay as they are. An image's features are then computed once
            for the student's and the teacher's rows.
        image_cache_gb: Gigabytes on disk, beside the checkpoints, that keep what a frozen vision tower made of the
            images for the next epoch, or fewer where the disk would then lack room for the checkpoints. They are
            removed at the end. 0 keeps none.
        keep_prefix: Gigabytes on disk, as of `image_cache_gb`, that keep what the base below an activated adapter made
            of a row (keys and values of its prefix, and its English vector): later epochs run translations only.
        language_temperature: Above 1, rare languages are drawn more often than frequent ones: a language that `n` rows
            have weighs `n^(1/T - 1)`. Needs `translations_per_row`.
        max_tokens_per_forward: A batch is cut into forward and backward passes of at most so many tokens, at least one
            row each. Losses that compare pairs with each other need the batch whole.
        loss: Names of `xvlm2vec.trainer.losses.LOSSES`, each with a weight if it is not 1:
            `"self-distillation:1,one-to-many:0.1"`.
        matryoshka_dims: The loss is also taken on vectors that are cut to these sizes, and the model's configuration
            tells them.
    """

    output_dir: str | None = setting("runs/distillation", "Model and checkpoints go here.")
    teacher: str = setting("cached", "Where the targets come from: cached, adapter-off or copy.")
    teacher_store: str | None = setting(None, "Folder of cached targets; by default in the user's cache, for all runs.")
    sharing: str = setting(
        "auto", "auto: all texts of a row over one pass of their image, by tree or else dense; off: each whole."
    )
    freeze_vision: bool = setting(True, "Keep vision tower and connector as they are.")
    image_cache_gb: float = setting(2.0, "Gigabytes on disk for images' features, from epoch to epoch; 0 for none.")
    keep_prefix: float = setting(
        0.0, "Gigabytes on disk for what the base made of rows, from epoch to epoch; with --adapter activated."
    )
    translations_per_row: int | None = setting(None, "Translations drawn from each row for one step; all by default.")
    language_temperature: float = setting(1.0, "Above 1, rare languages are drawn more often than frequent ones.")
    muon_learning_rate: float | None = setting(
        None, "Peak rate of Muon, which then trains the hidden matrices; learning_rate is that of the rest."
    )
    max_tokens_per_forward: int = setting(16_384, "Tokens of one forward and backward pass; a step may take several.")
    loss: str = setting(
        "self-distillation",
        f"Losses with their weights, such as self-distillation:1,one-to-many:0.1. There are {loss_names()}.",
    )
    matryoshka_dims: list[int] | None = setting(None, "Sizes to cut vectors to: the loss is taken on each, too.")
    language_weight: float = setting(0.5, "0 only keeps English, 1 only learns the language, 0.5 is the paper's.")
    picture_cache_gb: float | None = setting(None, "Deprecated.")

    def make_loss(self, width: int | None = None) -> nn.Module:
        """The loss that the settings name.

        Args:
            width: Values of a whole vector, on which a Matryoshka loss is taken, too.

        Raises:
            ValueError: A name is unknown, `language_weight` belongs to none of the losses, or a size does not fit.
        """
        dims = self.matryoshka_dims
        sizes = with_whole_size(dims, max(dims, default=0) if width is None else width) if dims is not None else None
        options: dict[str, Any] = {} if self.language_weight == 0.5 else {"language_weight": self.language_weight}
        return make_loss(self.loss, sizes, **options)

    def __getstate__(self) -> dict[str, Any]:
        """All settings but the token: `training_args.bin`, which trainers write and push, is a pickle of them."""
        return {**self.__dict__, "hub_token": None}

    def __copy__(self) -> SelfDistillationConfig:
        """A copy in memory keeps the token."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __post_init__(self) -> None:
        if self.picture_cache_gb is not None:
            self.image_cache_gb = renamed({"picture_cache_gb": self.picture_cache_gb})["image_cache_gb"]
            self.picture_cache_gb = None
        if self.greater_is_better is None and (self.metric_for_best_model or "").rpartition("_")[2] in NEARER_IS_BETTER:
            self.greater_is_better = False
        super().__post_init__()
        self.remove_unused_columns = False
        self.make_loss()
        for name, choices in (("teacher", TEACHERS), ("sharing", SHARING)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}.")
        if self.dataloader_persistent_workers:
            raise ValueError(
                "dataloader_persistent_workers keeps workers that never hear of the next epoch and would draw the same "
                "translations in each; leave it out."
            )
        if self.torch_compile and self.sharing != "off":
            raise ValueError(
                "torch_compile needs sharing='off': a pack of texts that share their images has another layout in "
                "nearly every step and would be compiled each time. Sharing saves more; leave torch_compile out."
            )
        for name in ("max_tokens_per_forward", "translations_per_row", "language_temperature"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1.")
        if self.language_temperature > 1 and self.translations_per_row is None:
            raise ValueError("language_temperature has no effect without translations_per_row; pass both, or neither.")


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run under the names that they have now, with a `DeprecationWarning` for an old one."""
    current = dict(settings)
    if "picture_cache_gb" in current:
        warn_renamed("picture_cache_gb", "image_cache_gb", stacklevel=3)
        current.setdefault("image_cache_gb", current.pop("picture_cache_gb"))
    return current
