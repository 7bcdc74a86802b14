"""A teacher that is another embedder than the student: of any width, tokenizer and way to write rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from xvlm2vec.modeling.model_parts import embedder_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .collators import ParallelBatch, ParallelCollator
from .forward_passes import Needs, Passes, RowVectors
from .image_sharing import share_images
from .teachers import EnglishSource, TeacherError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """Another embedder than the student, whose vectors are the targets.

    Args:
        model: The embedder. Its gradients are turned off, and it is moved to the training's device.
        processor: Its processor.
    """

    model: XVLM2VecModel
    processor: XVLM2VecProcessor


class OtherTeacher:
    """Another embedder that embeds the English rows of each batch anew, written in its own way.

    Args:
        source: The embedder; its collator makes one batch of all rows.
    """

    def __init__(self, source: EnglishSource) -> None:
        self.source = source

    @torch.no_grad()
    def vectors(self, batch: ParallelBatch) -> RowVectors:
        """Embeds the English rows of a batch, which came along with it."""
        (english,) = self.source.collator.english_batches(batch.english_rows or ())
        return self.source.passes.embed_english(self.source.model, english.to(self.source.passes.embedder.device))


def other_source(
    teacher: Teacher,
    collator: ParallelCollator,
    needs: Needs,
    sharing: str,
    row: dict[str, Any] | None,
    device: torch.device,
) -> EnglishSource:
    """What embeds English rows by another embedder.

    Args:
        teacher: The embedder.
        collator: Of the student.
        needs: What the loss wants.
        sharing: The setting of this name.
        row: A row on which sharing is tried.
        device: Where the training runs.
    """
    model: Any = teacher.model
    model.to(device).eval().requires_grad_(False)
    model.config.use_cache = False  # as the trainer sets it in students: one name in the store for either role
    passes = Passes(model, needs, frozen_vision=True)
    collator = replace(collator, processor=teacher.processor, max_tokens=None, images_alone=True, keeps_english=False)
    collator.sharing = share_images(sharing, model, passes, teacher.processor, row, collator.with_images)
    collator.keeps_rows = False
    return EnglishSource(model, passes, collator)


def check_other(kind: str, model: nn.Module, teacher: Teacher) -> None:
    """Raises where another embedder cannot teach a student, and warns where its vectors may not fit the student's.

    Args:
        kind: One of `TEACHERS`.
        model: The student.
        teacher: The other embedder.

    Raises:
        TeacherError: It cannot; the message says what would help.
    """
    student = embedder_of(model)
    if kind == "adapter-off":
        raise TeacherError(
            'teacher="adapter-off" is the student without its adapter, but the teacher is another model; use '
            'teacher="cached", or teacher="copy" to run it in every step.'
        )
    if teacher.model is student:
        raise TeacherError("The teacher given is the student itself; a model is its own teacher where none is given.")
    if student.config.two_towers:
        _check_towers([student.config.hidden_size, teacher.model.config.hidden_size])


def _check_towers(widths: Sequence[int]) -> None:
    """Raises where the text vectors of two towers would leave the space of their image vectors for certain."""
    if widths[0] != widths[1]:
        raise TeacherError(
            f"The student has two towers of {widths[0]} values and the teacher has {widths[1]}: its texts would leave "
            "the space of its images. Teach it by its own vectors, or take a text encoder as the student of the two "
            "towers (xvlm2vec distill --model TWO_TOWERS --student ENCODER)."
        )
    logger.warning(
        "The student's text vectors move to those of another model: they fit its untouched image vectors only as far "
        "as the teacher's do."
    )
