"""Self-knowledge distillation on `transformers.Trainer`: the model learns its own English vectors for translations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer

from xvlm2vec.modeling.encoding import token_batches
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.sharing import PictureFeatures, picture_features
from xvlm2vec.trainer.collators import ParallelBatch, ParallelCollator, pad_ids
from xvlm2vec.trainer.distillation_config import SelfDistillationConfig
from xvlm2vec.trainer.losses import SelfDistillationLoss
from xvlm2vec.trainer.optimizers import MuonAdamW

# Names of the parts that turn pixels into features, over all families of transformers.
VISION_PARTS = ("vision_model", "vision_tower", "visual", "connector", "multi_modal_projector", "image_newline")


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
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=self.processor,
            data_collator=ParallelCollator(self.processor, args.translations_per_row, args.seed),
            **kwargs,
        )
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of one batch of parallel rows: a mean over its pairs of an English text and a translation."""
        batch: ParallelBatch = inputs["batch"].to(self.embedder.device)
        rows = len(batch.english["input_ids"])
        features = self._features(self.embedder, batch)
        with torch.no_grad(), self._as_teacher() as teacher:
            seen = features if self.args.freeze_vision else self._features(teacher, batch)
            targets = self._embed(teacher, batch, range(rows), seen)
        student = self._embed(model, batch, range(len(batch.token_ids)), features)
        english, translated = student[:rows][batch.row_of_pair], student[rows:]
        loss = self.distillation_loss(
            student_en=english, student_lang=translated, teacher_en=targets[batch.row_of_pair]
        )
        self._remember(student[:rows], translated, targets, batch)
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
        measured = {name: torch.stack(values).mean().item() for name, values in self._distances.items() if values}
        self._distances = {}
        super().log({**logs, **measured} if "loss" in logs or "eval_loss" in logs else logs, start_time)

    def _features(self, model: nn.Module, batch: ParallelBatch) -> PictureFeatures:
        with torch.no_grad() if self.args.freeze_vision else nullcontext():
            return picture_features(embedder_of(model).backbone, batch.english)

    def _as_teacher(self) -> Any:
        """A context that gives the teacher."""
        return nullcontext(self.teacher) if self.teacher is not None else _AdapterOff(self.trained)

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
        drift = 1 - nn.functional.cosine_similarity(english.float(), targets.float())
        self._distances.setdefault("english_drift", []).append(drift.mean())
        distance = 1 - nn.functional.cosine_similarity(translated.float(), targets[batch.row_of_pair].float())
        for language in sorted(set(batch.languages)):
            mine = [i for i, code in enumerate(batch.languages) if code == language]
            self._distances.setdefault(f"distance/{language}", []).append(distance[mine].mean())


class _AdapterOff:
    """The student without its adapter: the model as it was at the start."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __enter__(self) -> nn.Module:
        self._context = self._model.disable_adapter()
        self._context.__enter__()
        return self._model

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


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
