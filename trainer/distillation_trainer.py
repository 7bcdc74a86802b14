"""Distillation on `transformers.Trainer`: a model learns its own English vectors, or another's, for translations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from xvlm2vec.modeling.model_parts import embedder_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .activated_passes import ActivatedPasses, BaseTeacher, count_pairs, passes_for, share_rows
from .base_trainer import EmbedderTrainer
from .collators import ParallelBatch, ParallelCollator
from .disk_space import DiskSpaceCheck
from .distillation_config import SelfDistillationConfig
from .epochs import TellEpoch
from .forward_passes import align_batches, loss_inputs, needs_of
from .held_out import held_out_loader
from .image_sharing import sample_row
from .language_sampling import language_sampler
from .languages_seen import LanguagesSeen
from .losses.base import is_mean_over_pairs
from .measures import Pace, RunningMeans, add_distances, add_terms, worst_distance
from .non_finite_loss import stop_at
from .optimizers import MuonAdamW
from .other_teacher import OtherTeacher, Teacher, check_other, other_source
from .prefix_cache import keepers
from .projection import loss_projection
from .row_images import check_needs, embeds_both_at_once, tell_images_left_out
from .teachers import (
    CachedTeacher,
    EnglishSource,
    ForwardTeacher,
    as_teacher,
    check_teacher,
    default_store,
    frozen_copy,
    teacher_name,
)
from .threads import ChooseThreads
from .usable_rows import corpora_in, drop_unusable_rows, keep_encoded
from .vision_parameters import set_up_vision


class SelfDistillationTrainer(EmbedderTrainer):
    """Teaches an embedder to give a translation the vector that it already gives to the English text.

    This is the self-knowledge distillation of arXiv 2503.09313, with the gradient of its rows and less work: all texts
    of a row go over one pass of their image, where the backbone allows it, and English targets are embedded once.

    A step's loss is the mean over all pairs of an English text and a translation, of all its batches and processes,
    whatever the number of translations of each row. Losses that compare pairs with each other see the pairs of one
    device's batch, and their values are averaged with the number of pairs as the weight.

    Of two towers (CLIP, SigLIP) the tower for texts is trained and nothing else. Texts are then embedded alone, as they
    are by embedders of texts, and images are looked at only for losses that want their vectors. With another teacher,
    both get the same rows: an image stands beside a text where both embed that. Where it has another width, a
    projection is trained that is dropped at the end, see `LossProjection`.

    Args:
        model: An `XVLM2VecModel`, or a `peft.PeftModel` around one. It is its own teacher, as it is at the start.
        args: Settings; the defaults if `None`.
        train_dataset: A parallel corpus: columns `id`, `image`, `text_en`, `translations`.
        eval_dataset: A held-out part of it.
        processing_class: The model's processor; loaded from `model.processor` if `None`.
        loss: That of `args.loss`, by default the paper's; another one has weights of its own. It is
            called with `student_en`, `student_lang` and `teacher_en`, each `(P, H)`, `row_of_pair` and `languages`, and
            what else its keywords name: see `loss_inputs`.
        teacher: Another embedder to learn from, by `args.teacher="cached"`, or `"copy"` to run it in every step.
        **kwargs: As in `transformers.Trainer`.

    Raises:
        ValueError: The vision tower is to be frozen, but has an adapter to train; the held-out rows are a stream; or
            the loss wants of the images what these embedders do not have.
        TeacherError: The teacher cannot be had for this model or corpus.
        DiskSpaceError: The disk is too full for the teacher's vectors.
    """

    args: SelfDistillationConfig
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: XVLM2VecModel | nn.Module,
        args: SelfDistillationConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: XVLM2VecProcessor | None = None,
        loss: nn.Module | None = None,
        teacher: Teacher | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or SelfDistillationConfig()
        self.trained, self.other = model, teacher
        self.embedder = embedder_of(model)
        self.processor = processing_class or self.embedder.processor
        processors = [self.processor] if teacher is None else [self.processor, teacher.processor]
        with_images = all(map(embeds_both_at_once, processors))
        train_dataset, eval_dataset = (drop_unusable_rows(rows, with_images) for rows in (train_dataset, eval_dataset))
        if teacher is not None:
            check_other(args.teacher, model, teacher)
        activated = bool(self.embedder.language_adapters)
        if not activated:
            check_teacher(args.teacher, model, train_dataset, is_other=teacher is not None)
        if any(isinstance(part, IterableDataset) for part in corpora_in(eval_dataset)):
            raise ValueError("Held-out rows must be a stored corpus, which every evaluation reads whole, not a stream.")
        frozen = set_up_vision(self.embedder, args.freeze_vision)
        if loss is not None and (args.matryoshka_dims or args.loss != type(args).loss):
            raise ValueError("The settings name a loss or Matryoshka sizes and a loss is passed, too; leave one out.")
        width = (self.embedder if teacher is None else teacher.model).config.hidden_size
        self.projection = loss_projection(model, width, args.matryoshka_dims, args.seed)
        self.distillation_loss = loss or args.make_loss(width)
        needs = needs_of(self.distillation_loss)
        check_needs(self.distillation_loss, needs, with_images, processors[-1], is_other=teacher is not None)
        self.passes = passes_for(self.embedder, needs, frozen, teacher)
        self.collator = ParallelCollator(
            self.processor,
            args.translations_per_row,
            args.seed,
            max_tokens=args.max_tokens_per_forward if is_mean_over_pairs(self.distillation_loss) else None,
            unimodal=needs.unimodal,
            sampler=language_sampler(train_dataset, args.language_temperature),
            with_images=with_images,
            images_alone=teacher is None and args.teacher != "cached",
            keeps_english=teacher is not None and args.teacher != "cached",
            starts=activated,
        )
        self._means, self._eval_means, self._pace = RunningMeans(), RunningMeans(), Pace()
        self._step: list[ParallelBatch] = []
        super().__init__(
            model=model,
            args=args,
            train_dataset=keep_encoded(train_dataset),
            eval_dataset=keep_encoded(eval_dataset),
            processing_class=self.processor,
            data_collator=self.collator,
            **kwargs,
        )
        self.model_accepts_loss_kwargs = False
        self.languages_seen = LanguagesSeen()
        told = (TellEpoch(self.collator), self._pace, self.languages_seen, DiskSpaceCheck(model), ChooseThreads())
        for callback in (*told, *keepers(self.passes, self.processor, args, frozen and with_images)):
            self.add_callback(callback)
        with self._on_device():
            self._start_sharing()
            self.teacher = self._make_teacher()
        self.other = None  # it is in the teacher, or no longer needed
        if args.matryoshka_dims:  # after the teacher's vectors were named by the settings that the model had
            self.embedder.config.matryoshka_dims = sorted(args.matryoshka_dims, reverse=True)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in `EmbedderTrainer`, with the projection of the loss, if there is one."""
        with self._projecting():
            return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in transformers, with the projection of the loss, if there is one."""
        with self._projecting():
            return super().evaluate(*args, **kwargs)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self._projecting():
            super()._load_from_checkpoint(*args, **kwargs)

    def _projecting(self) -> AbstractContextManager[None]:
        return nullcontext() if self.projection is None else self.projection.attached()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of the batches of one device: its share of the mean over the pairs of a whole step.

        Without `num_items_in_batch`, the number of pairs of the step, it is the mean over these batches' pairs.
        """
        batches: list[ParallelBatch] = inputs["batches"]
        # Data-parallel training takes the mean of the processes' gradients; the step wants their sum.
        copies = 1 if num_items_in_batch is None else self.accelerator.num_processes
        pairs = num_items_in_batch
        if pairs is None:
            pairs = sum(batch.pairs for batch in batches if batch.weight) or 1
        means = self._means if model.training else self._eval_means
        losses = [self._loss(model, batch, means) * (copies * batch.pairs * batch.weight / pairs) for batch in batches]
        loss = torch.stack(losses).sum()
        return (loss, {}) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward passes batch by batch, so that memory holds no more than one.

        Raises:
            NonFiniteLossError: The loss is a NaN or infinite; the batches are saved.
        """
        batches = inputs["batches"]
        losses = []
        for place, batch in enumerate(batches):
            last = place + 1 == len(batches)
            with nullcontext() if last else self.gradients_wait(model):
                losses.append(super().training_step(model, {"batches": [batch]}, num_items_in_batch))
        bad = [batch for batch, loss in zip(batches, losses, strict=True) if not loss.isfinite()]
        if bad:
            raise stop_at(str(self.args.output_dir), self.state.global_step + 1, "The loss is no finite number", bad)
        return torch.stack(losses).sum()

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """The batches of a step and the number of their pairs, over all processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        samples = self._checked(samples)
        self._step = [batch for sample in samples for batch in sample["batches"]]
        pairs = count_pairs(self._step, self.embedder)
        return [{"batches": align_batches(sample["batches"], self.passes)} for sample in samples], max(pairs, 1)

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Sequence[str] | None = None
    ) -> tuple[torch.Tensor, None, None]:
        """The loss on held-out rows."""
        (inputs,) = self._checked([inputs], training=False)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, {"batches": align_batches(inputs["batches"], self.passes)})
        return loss.detach(), None, None

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Held-out rows, each with all its translations and each once, whatever the number of processes."""
        held_out: Any = self.eval_dataset
        rows: Any = held_out if eval_dataset is None else eval_dataset
        if isinstance(rows, str):
            rows = held_out[rows]
        if rows is None:
            raise ValueError("There are no held-out rows: pass an eval_dataset.")
        return self.accelerator.prepare(held_out_loader(rows, self._eval_collator(), self.args))

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Adds to the loss the English drift, each language's distance to the teacher, and the worst of them.

        `metric_for_best_model="worst_distance"` then keeps the checkpoint whose worst language is best.
        """
        self._eval_means = RunningMeans()
        started = time.perf_counter()
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix=metric_key_prefix
        )
        self._pace.leave_out(time.perf_counter() - started)
        measured = self._eval_means.read()
        measured |= worst_distance(measured)
        named = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        return output._replace(metrics={**(output.metrics or {}), **named})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds what was measured since the last log: distances, terms of the loss, rows and tokens a second."""
        if "loss" in logs:
            measured = self._means.read()
            measured.pop("loss", None)
            logs = {**logs, **measured, **self._pace.read()}
        super().log(logs, start_time)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon and AdamW if `muon_learning_rate` is set, else what `transformers.Trainer` makes."""
        if self.optimizer is None and self.args.muon_learning_rate is not None:
            self.optimizer = MuonAdamW(
                self.trained, self.args.muon_learning_rate, self.args.learning_rate, self.args.weight_decay
            )
        return super().create_optimizer() if model is None else super().create_optimizer(model)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As in transformers, and stops where a gradient is no number, before the weights take it."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        scaled = self.accelerator.scaler is not None  # in float16 such steps are left out on purpose
        value = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not scaled and value is not None and not torch.as_tensor(value).isfinite():
            what = "The gradient is no finite number"
            raise stop_at(str(self.args.output_dir), self.state.global_step + 1, what, self._step)
        return norm

    def _loss(self, model: nn.Module, batch: ParallelBatch, means: RunningMeans) -> torch.Tensor:
        """The loss of one batch, measured by the way."""
        batch = batch.to(self.embedder.device)
        teacher = self.teacher.vectors(batch)
        student = self.passes.embed_texts(model, batch)
        loss = self.distillation_loss(**loss_inputs(batch, student, teacher))
        if batch.weight:
            means.add("loss", loss * batch.pairs, batch.pairs)
            add_terms(means, self.distillation_loss, batch.pairs)
            add_distances(means, batch, student, teacher)
            if model.training:
                self._pace.add(batch)
                self.languages_seen.add(batch)
        return loss

    def _start_sharing(self) -> None:
        """Finds out on one row of the corpus how the texts of a row go over one pass of their image."""
        corpora = corpora_in(self.train_dataset, self.eval_dataset)
        if not self.collator.with_images and not self.passes.needs.unimodal:
            tell_images_left_out(corpora)
        row = self._sample()
        self._share(row)
        no_image_yet = bool(corpora) and (row is None or row.get("image") is None)
        self.collator.keeps_rows = self.collator.sharing and self.collator.with_images and no_image_yet

    def _sample(self) -> dict[str, Any] | None:
        """A row, with an image if one is found, on which sharing can be tried."""
        if self.args.sharing == "off" and not self.collator.starts:
            return None
        return sample_row(corpora_in(self.train_dataset, self.eval_dataset), self.args.teacher == "cached")

    def _share(self, row: dict[str, Any] | None) -> None:
        """Takes the first way that is right for a row, else has each text passed whole."""
        self.collator.sharing = share_rows(
            self.args.sharing, self.trained, self.passes, self.processor, row, self.collator.with_images
        )

    def _eval_collator(self) -> ParallelCollator:
        """As for training, with all translations of each row."""
        return replace(self.collator, translations_per_row=None, sampler=None)

    def _checked(self, samples: list[dict[str, Any]], training: bool = True) -> list[dict[str, Any]]:
        """Batches that are made anew where the first image that comes shows that it cannot be shared.

        No row that was read at the start had one, so that only texts were compared then.
        """
        if self.collator.keeps_rows:
            with_image = (row for sample in samples for row in sample.get("rows", ()) if row["image"] is not None)
            first = next((row for row in gather_object([next(with_image, None)]) if row is not None), None)
            if first is not None:
                self._share(first)
                self.collator.keeps_rows = False
        if self.collator.sharing:
            return samples
        collator = self.collator if training else self._eval_collator()
        return [collator(sample["rows"]) if "rows" in sample else sample for sample in samples]

    def _make_teacher(self) -> CachedTeacher | ForwardTeacher | OtherTeacher | BaseTeacher:
        if isinstance(self.passes, ActivatedPasses):
            return BaseTeacher(self.trained, self.passes)
        if self.args.teacher != "cached":
            if self.other is not None:
                return OtherTeacher(self._source(self.other))
            copied = self.args.teacher == "copy"
            return ForwardTeacher(frozen_copy(self.trained) if copied else self.trained, self.passes)
        source = self._source(self.other)
        embedder, precision = source.passes.embedder, "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "full"
        name = teacher_name(embedder, source.collator.processor, precision)
        folder = self.args.teacher_store or default_store()
        teacher = CachedTeacher(folder, name, self.passes.needs, embedder.config)
        source = replace(source, collator=replace(source.collator, max_tokens=self.args.max_tokens_per_forward))
        shows = self.is_world_process_zero() and not self.args.disable_tqdm
        for rows in corpora_in(self.train_dataset, self.eval_dataset):
            share = rows.shard(self.args.world_size, self.args.process_index, contiguous=True)
            with torch.no_grad(), as_teacher(source.model), self.compute_loss_context_manager():
                teacher.fill(share, source, shows)
        if self.other is not None:
            embedder.to("cpu")  # type: ignore[arg-type]  # transformers wraps `to`
        self.accelerator.wait_for_everyone()
        teacher.reopen()
        return teacher

    def _source(self, other: Teacher | None) -> EnglishSource:
        """What embeds English rows: the student as it is now, or another embedder, written in its own way."""
        if other is None:
            return EnglishSource(self.trained, self.passes, replace(self.collator, images_alone=True))
        sample, device = self._sample(), self.args.device
        return other_source(other, self.collator, self.passes.needs, self.args.sharing, sample, device)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """The model on this process's device, also where wrappers will move it there only later."""
        model: nn.Module = self.embedder
        before = self.embedder.device
        if before == self.args.device:
            yield
            return
        model.to(self.args.device)
        yield
        model.to(before)
