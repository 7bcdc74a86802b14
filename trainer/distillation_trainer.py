"""Self-knowledge distillation on `transformers.Trainer`: the model learns its own English vectors for translations."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xvlm2vec.modeling.encoding import token_batches
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.sharing import PictureFeatures, picture_features
from xvlm2vec.trainer.collators import ParallelBatch, ParallelCollator, pad_ids
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.losses import SelfDistillationLoss
from xvlm2vec.trainer.optimizers import MuonAdamW

# Names of the parts that turn pixels into features, over all families of transformers.
VISION_PARTS = (
    "vision_model", "vision_tower", "visual", "connector", "multi_modal_projector", "mlp1", "image_newline",
    "vision_embed_tokens",
)  # fmt: skip


class SelfDistillationTrainer(Trainer):
    """Teaches an embedder to give a translation the vector that it already gives to the English text.

    This is the self-knowledge distillation of arXiv 2503.09313.

    Args:
        model: An `XVLM2VecModel`, or a `peft.PeftModel` around one. It is its own teacher, as it is at the start.
        args: Settings.
        train_dataset: A parallel corpus: columns `id`, `image`, `text_en`, `translations`.
        eval_dataset: A held-out part of it.
        processing_class: The model's processor; loaded from `model.processor` if `None`.
        loss: The paper's loss by default; called with `student_en`, `student_lang` and `teacher_en`, each `(P, H)`.
        **kwargs: As in `transformers.Trainer`.

    Raises:
        ValueError: `teacher="adapter-off"` without an adapter.
    """

    args: SelfDistillationConfig

    def __init__(
        self,
        model: XVLM2VecModel | nn.Module,
        args: SelfDistillationConfig,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: XVLM2VecProcessor | None = None,
        loss: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        self.trained = model
        self.embedder = embedder_of(model)
        self.processor = processing_class or self.embedder.processor
        if args.teacher == "adapter-off" and not hasattr(model, "disable_adapter"):
            raise ValueError('teacher="adapter-off" needs a model with an adapter; use teacher="copy".')
        self.teacher = frozen_copy(self.embedder) if args.teacher == "copy" else None
        if args.freeze_vision:
            freeze_vision(self.embedder)
        self.distillation_loss = loss or SelfDistillationLoss(args.language_weight)
        self._distances: dict[str, list[torch.Tensor]] = {}
        self._frozen_features: tuple[ParallelBatch, PictureFeatures] | None = None
        collator = ParallelCollator(self.processor, args.translations_per_row, args.seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=self.processor,
            data_collator=collator,
            **kwargs,
        )
        self.model_accepts_loss_kwargs = False
        self.add_callback(_EpochOfCollator(collator))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of one batch of parallel rows: a mean over its pairs of an English text and a translation."""
        batch: ParallelBatch = inputs["batch"].to(self.embedder.device)
        with torch.no_grad(), self._as_teacher() as teacher:
            targets = self._english(teacher, batch)
        english, translated = self._both(model, batch)
        loss = self.distillation_loss(
            student_en=english[batch.row_of_pair],
            student_lang=translated,
            teacher_en=targets[batch.row_of_pair],
            row_of_pair=batch.row_of_pair,
            languages=batch.languages,
        )
        self._remember(english, translated, targets, batch)
        return (loss, {"embeddings": translated}) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon and AdamW if `muon_learning_rate` is set, else what `transformers.Trainer` makes."""
        if self.optimizer is None and self.args.muon_learning_rate is not None:
            self.optimizer = MuonAdamW(
                self.trained, self.args.muon_learning_rate, self.args.learning_rate, self.args.weight_decay
            )
        return super().create_optimizer() if model is None else super().create_optimizer(model)

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Sequence[str] | None = None
    ) -> tuple[torch.Tensor, None, None]:
        """The loss on held-out rows."""
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the English drift and each language's distance to the teacher since the last log."""
        prefix = "eval_" if "eval_loss" in logs else "" if "loss" in logs else None
        names = [name for name in self._distances if prefix is not None and name.startswith("eval_") == bool(prefix)]
        measured = {name: torch.stack(self._distances.pop(name)).mean().item() for name in names}
        super().log({**logs, **measured}, start_time)

    def _english(self, teacher: nn.Module, batch: ParallelBatch) -> torch.Tensor:
        """The teacher's vectors of the English rows, `(G, H)`."""
        if batch.translated is not None:
            return teacher(**batch.english).pooler_output
        features = self._features(self.embedder if self.args.freeze_vision else teacher, batch)
        return self._embed(teacher, batch, range(len(batch.english["input_ids"])), features)

    def _both(self, model: nn.Module, batch: ParallelBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's vectors of the English rows `(G, H)` and of the translated ones `(P, H)`."""
        if batch.translated is not None:
            return model(**batch.english).pooler_output, model(**batch.translated).pooler_output
        rows = len(batch.english["input_ids"])
        student = self._embed(model, batch, range(len(batch.token_ids)), self._features(self.embedder, batch))
        return student[:rows], student[rows:]

    def _features(self, model: nn.Module, batch: ParallelBatch) -> PictureFeatures:
        """Features of the batch's pictures; a frozen vision tower's serve teacher and student."""
        if not self.args.freeze_vision:
            return picture_features(embedder_of(model).backbone, batch.english)
        if self._frozen_features is None or self._frozen_features[0] is not batch:
            with torch.no_grad():
                self._frozen_features = (batch, picture_features(self.embedder.backbone, batch.english))
        return self._frozen_features[1]

    def _as_teacher(self) -> Any:
        """A context that gives the teacher."""
        return nullcontext(self.teacher) if self.teacher is not None else adapter_off(self.trained)

    def _embed(
        self, model: nn.Module, batch: ParallelBatch, rows: Sequence[int], features: PictureFeatures
    ) -> torch.Tensor:
        """Un-normalised vectors `(len(rows), H)` of some of a batch's token rows, in forward passes of like lengths."""
        english = len(batch.english["input_ids"])
        picture_of = [*range(english), *batch.row_of_pair.tolist()]
        lengths = [len(ids) for ids in batch.token_ids]
        order = sorted(rows, key=lambda row: (lengths[row], row))
        pooled: list[torch.Tensor] = []
        for chosen in token_batches(order, lengths.__getitem__, self.args.max_tokens_per_forward):
            text = pad_ids([batch.token_ids[row] for row in chosen], self._pad_id, self.embedder.device)
            pictures = features.select([picture_of[row] for row in chosen])
            pooled.append(model(**text, **({"mm_encoder_outputs": pictures} if pictures else {})).pooler_output)
        place = {row: position for position, row in enumerate(order)}
        return torch.cat(pooled)[[place[row] for row in rows]]

    @property
    def _pad_id(self) -> int:
        return self.processor.inner.tokenizer.pad_token_id or 0

    @torch.no_grad()
    def _remember(
        self, english: torch.Tensor, translated: torch.Tensor, targets: torch.Tensor, batch: ParallelBatch
    ) -> None:
        prefix = "" if self.trained.training else "eval_"
        drift = 1 - nn.functional.cosine_similarity(english.float(), targets.float())
        self._distances.setdefault(f"{prefix}english_drift", []).append(drift.mean())
        distance = 1 - nn.functional.cosine_similarity(translated.float(), targets[batch.row_of_pair].float())
        for language in sorted(set(batch.languages)):
            mine = [i for i, code in enumerate(batch.languages) if code == language]
            self._distances.setdefault(f"{prefix}distance/{language}", []).append(distance[mine].mean())


class _EpochOfCollator(TrainerCallback):
    """Tells the collator which epoch it is, also after a resumption."""

    def __init__(self, collator: ParallelCollator) -> None:
        self.collator = collator

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Another epoch draws other translations."""
        self.collator.epoch = int(state.epoch or 0)


@contextmanager
def adapter_off(model: Any) -> Iterator[nn.Module]:
    """The student without its adapter and without dropout: the model as it was at the start."""
    was_training = model.training
    model.eval()
    try:
        with model.disable_adapter():
            yield model
    finally:
        model.train(was_training)


def embedder_of(model: nn.Module) -> XVLM2VecModel:
    """The `XVLM2VecModel` inside a `PeftModel`, a wrapped or a bare model."""
    for module in model.modules():
        if type(module).__name__ == "XVLM2VecModel":
            return module  # type: ignore[return-value]
    raise ValueError(f"A {type(model).__name__} holds no XVLM2VecModel; wrap a backbone with from_backbone first.")


def frozen_copy(model: XVLM2VecModel) -> XVLM2VecModel:
    """A copy that is never trained."""
    teacher = copy.deepcopy(model).eval()
    return teacher.requires_grad_(False)


def freeze_vision(model: XVLM2VecModel) -> None:
    """Stops training whatever turns pixels into features."""
    for name, parameter in model.backbone.named_parameters():
        if any(part in name.split(".") for part in VISION_PARTS):
            parameter.requires_grad_(False)
