"""Self-knowledge distillation: the student keeps the teacher's English vector and gives it to the translation, too."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.nn.functional import cosine_similarity, mse_loss, smooth_l1_loss

from .base import EmbeddingLoss, check_vectors, full_precision
from .citations import XVLM2VEC_CITATION

Distance = Literal["mse", "cosine", "smooth_l1"]
DISTANCES = ("mse", "cosine", "smooth_l1")


class SelfDistillationLoss(EmbeddingLoss):
    """The paper's loss, with a choice of distance.

    `(1 - w) * d(student(en), teacher(en)) + w * d(student(lang), teacher(en))` on un-normalised pooled vectors. In
    arXiv 2503.09313 `w` is 1/2 and `d` the mean squared error over rows and dimensions.

    Args:
        language_weight: `w`, between 0 (only keep English) and 1 (only learn the language).
        distance: `"mse"`; `"cosine"`, the mean of one minus the cosine, which leaves lengths free; or `"smooth_l1"`,
            squared up to a difference of 1 and linear beyond, for backbones with a few very large dimensions.
    """

    citation = XVLM2VEC_CITATION
    mean_over_pairs = True

    def __init__(self, language_weight: float = 0.5, distance: Distance = "mse") -> None:
        super().__init__()
        if not 0 <= language_weight <= 1:
            raise ValueError(f"language_weight={language_weight} is not between 0 and 1.")
        if distance not in DISTANCES:
            raise ValueError(f"distance={distance!r} is unknown; choose one of {', '.join(DISTANCES)}.")
        self.language_weight = language_weight
        self.distance = distance

    def forward(
        self, *, student_en: torch.Tensor, student_lang: torch.Tensor, teacher_en: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        """Scalar loss over rows `(B, D)`: one for each pair of an English text and its translation.

        Raises:
            ValueError: The vectors differ in shape.
        """
        check_vectors(self, student_en=student_en, student_lang=student_lang, teacher_en=teacher_en)
        keep = vector_distance(student_en, teacher_en.detach(), self.distance)
        learn = vector_distance(student_lang, teacher_en.detach(), self.distance)
        return (1 - self.language_weight) * keep + self.language_weight * learn

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {"language_weight": self.language_weight, "distance": self.distance}


class ImageDistillationLoss(EmbeddingLoss):
    """The paper's ablation: the text loss, and the same on the mean hidden state of the image's positions.

    Four mean squared errors, divided by 4 (arXiv 2503.09313).
    """

    citation = XVLM2VEC_CITATION
    mean_over_pairs = True

    def forward(
        self,
        *,
        student_en: torch.Tensor,
        student_lang: torch.Tensor,
        teacher_en: torch.Tensor,
        student_en_image: torch.Tensor,
        student_lang_image: torch.Tensor,
        teacher_en_image: torch.Tensor,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over rows `(B, D)`.

        Raises:
            ValueError: The vectors differ in shape.
        """
        check_vectors(self, student_en=student_en, student_lang=student_lang, teacher_en=teacher_en)
        check_vectors(
            self,
            student_en_image=student_en_image,
            student_lang_image=student_lang_image,
            teacher_en_image=teacher_en_image,
        )
        text, image = teacher_en.detach(), teacher_en_image.detach()
        compared = (
            (student_en, text),
            (student_lang, text),
            (student_en_image, image),
            (student_lang_image, image),
        )
        return torch.stack([vector_distance(student, teacher, "mse") for student, teacher in compared]).mean()


def vector_distance(vectors: torch.Tensor, targets: torch.Tensor, distance: Distance) -> torch.Tensor:
    """Mean distance between the rows of two tensors `(B, D)`, a scalar in at least float32."""
    vectors, targets = full_precision(vectors), full_precision(targets)
    if distance == "cosine":
        return (1 - cosine_similarity(vectors, targets)).mean()
    return (mse_loss if distance == "mse" else smooth_l1_loss)(vectors, targets)
