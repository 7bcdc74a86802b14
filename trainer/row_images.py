"""What becomes of the images of a parallel corpus: beside their texts, by themselves, or left out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from xvlm2vec.common.adoption.black_box import BlackBoxProcessor
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .forward_passes import Needs
from .image_sharing import sample_row

logger = logging.getLogger(__name__)


def embeds_both_at_once(processor: XVLM2VecProcessor) -> bool:
    """Whether a model embeds a text with its image as one row; two towers and embedders of texts do not."""
    recipe = processor.own_recipe
    if recipe is None:
        return processor.inner.image_processor is not None
    return not recipe.two_towers and any(name.startswith("image+text") for name in recipe.forms)


def embeds_images(processor: XVLM2VecProcessor) -> bool:
    """Whether a model embeds an image without a text."""
    recipe = processor.own_recipe
    if recipe is None:
        return processor.inner.image_processor is not None
    return any(name.partition("+")[0] == "image" for name in recipe.forms)


def check_needs(loss: nn.Module, needs: Needs, with_images: bool, teacher: XVLM2VecProcessor, is_other: bool) -> None:
    """Raises where a loss wants of the images what teacher or student do not have.

    Args:
        loss: The loss.
        needs: What it wants.
        with_images: Whether texts are embedded with their images.
        teacher: The processor of the teacher.
        is_other: Whether the teacher is another embedder than the student.

    Raises:
        ValueError: It is a loss on states of image tokens, but there are none, or they are of two models; or it wants
            the vectors of images from an embedder of texts.
    """
    name = type(loss).__name__
    if needs.image_means and not with_images:
        raise ValueError(
            f"{name} compares the states of an image's tokens before a text, and these embedders have no such row: "
            "texts and images are embedded apart, or only texts are. Use self-distillation, or cross-modal-alignment "
            "for the vectors of the images themselves."
        )
    if needs.image_means and isinstance(teacher, BlackBoxProcessor):
        raise ValueError(
            f"{name} compares the states of an image's tokens, and this embedder runs by its own code, which shows "
            "none. Use self-distillation, or another loss on vectors."
        )
    if needs.image_means and is_other:
        raise ValueError(
            f"{name} compares the states of an image's tokens in student and teacher, which are not comparable in two "
            "different embedders. Use self-distillation, or leave the other teacher out."
        )
    if needs.unimodal and not embeds_images(teacher):
        raise ValueError(
            f"{name} wants the teacher's vectors of images, and this teacher embeds texts only. Use self-distillation, "
            "or a teacher that embeds images."
        )


def tell_images_left_out(corpora: Sequence[Any]) -> None:
    """Says once that the images of a corpus are left out, if it has any."""
    row = sample_row(corpora, thorough=False)
    if row is not None and row.get("image") is not None:
        logger.info("The images of the corpus are left out: texts are embedded alone, and the loss wants no images.")
