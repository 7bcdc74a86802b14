"""Projections of a student's vectors to the width of its teacher: one that stays, and one that belongs to the loss."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from torch import nn

from xvlm2vec.modeling.heads import Dense
from xvlm2vec.modeling.model_parts import embedder_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

logger = logging.getLogger(__name__)

BEFORE_HEADS = 2
"""Modules of a saved chain before the heads: transformer and pooling."""


def take_place_of_text_tower(student: XVLM2VecModel, towers: XVLM2VecModel) -> None:
    """Gives a text encoder the projection with which it will take the place of the text tower of two.

    Args:
        student: The encoder, changed in place.
        towers: CLIP, SigLIP or their like.

    Raises:
        ValueError: The one has two towers itself, or the other has not.
    """
    if not towers.config.two_towers:
        raise ValueError(
            "--student takes the place of the text tower of two towers (CLIP, SigLIP), and --model has none. For "
            "another embedder as the teacher use --model STUDENT --teacher-model MODEL."
        )
    if student.config.two_towers:
        raise ValueError(
            "--student has two towers of its own, and a projection behind both would move its images, too. Give a text "
            "encoder, or teach its text tower by --model STUDENT --teacher-model MODEL."
        )
    width = towers.config.hidden_size
    add_projection(student, width)
    logger.info("The student takes the place of the text tower, with a projection to its %d values that stays.", width)


def add_projection(student: XVLM2VecModel, width: int) -> None:
    """Gives an embedder a last head of its own, to be trained and kept, that brings its vectors to a width.

    It stands before the final normalisation. An embedder that ends in a linear layer of this width already, as one that
    was taught before, keeps that. The first weights are drawn by torch.

    Args:
        student: The embedder, changed in place.
        width: Values of the teacher's vectors.
    """
    last = student.config.heads[-1] if student.config.heads else {}
    if last.get("type") == "dense" and last["out_features"] == width:
        return
    settings = _settings(student, width)
    student.heads.append(Dense(settings["in_features"], width).to(student.device, student.dtype))
    student.config.heads.append(settings)


def loss_projection(
    model: nn.Module, width: int, matryoshka_dims: Sequence[int] | None, seed: int
) -> LossProjection | None:
    """What brings a student's vectors to the width of its teacher, where that is another; to be dropped at the end.

    Args:
        model: The student.
        width: Values of the teacher's vectors.
        matryoshka_dims: Sizes to which vectors are to be cut.
        seed: Of the projection's first weights.

    Raises:
        ValueError: Vectors are to be cut, but it is the projected ones that would be.
    """
    size = embedder_of(model).config.hidden_size
    if size == width:
        return None
    if matryoshka_dims:
        raise ValueError(
            f"matryoshka_dims cut the student's vectors of {size} values, but the loss sees them through a projection "
            f"to the teacher's {width}, which is dropped. Leave them out."
        )
    logger.info("The student has %d values and its teacher %d: a projection is trained, and dropped.", size, width)
    return LossProjection(model, width, seed)


class LossProjection:
    """A linear layer from a student's width to its teacher's, trained with the student and then dropped.

    That of `EmbedDistillLoss` of sentence-transformers (arXiv 2301.12005): with a bias, drawn as torch draws linear
    layers. While it is attached it is the student's last head, so that it is trained, checkpointed and resumed like the
    student's own weights, also beside an adapter; what is saved while it is not, is the student alone.

    Args:
        model: The student, an `XVLM2VecModel` or a model around one.
        width: Values of the teacher's vectors.
        seed: The first weights depend on it.
    """

    def __init__(self, model: nn.Module, width: int, seed: int) -> None:
        self.embedder: XVLM2VecModel = embedder_of(model)
        self.settings = _settings(self.embedder, width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer: nn.Module = Float32Dense(self.settings["in_features"], width)
        adapter = getattr(model, "active_adapter", None) if hasattr(model, "peft_config") else None
        self.layer = layer if adapter is None else ModulesToSaveWrapper(layer, adapter)

    @property
    def is_attached(self) -> bool:
        """Whether it is the student's last head now."""
        return any(head is self.layer for head in self.embedder.heads)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Makes it the student's last head for a while; inside such a while, nothing changes."""
        if self.is_attached:
            yield
            return
        self.embedder.heads.append(self.layer.to(self.embedder.device))
        self.embedder.config.heads.append(self.settings)
        try:
            yield
        finally:
            del self.embedder.heads[-1]
            self.embedder.config.heads.pop()


class Float32Dense(Dense):
    """A dense head in float32 behind a model of any number format."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`(B, in_features)` to `(B, out_features)`, float32 unless autocast says otherwise."""
        return super().forward(vectors.float())


def _settings(student: XVLM2VecModel, width: int) -> dict[str, Any]:
    """The entry of a projection in `XVLM2VecConfig.heads`."""
    return {
        "type": "dense",
        "folder": f"{BEFORE_HEADS + len(student.config.heads)}_Dense",
        "in_features": student.config.hidden_size,
        "out_features": width,
        "bias": True,
        "activation": "torch.nn.modules.linear.Identity",
    }
