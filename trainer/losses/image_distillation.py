"""The paper's ablation, which also distils what the model makes of the image."""

from __future__ import annotations

from typing import Any

import torch

from .base import EmbeddingLoss, check_vectors
from .self_distillation import XVLM2VEC_CITATION, vector_distance


class ImageDistillationLoss(EmbeddingLoss):
    """The text loss, and the same on the mean hidden state of the image's positions.

    Four mean squared errors, divided by 4 (arXiv 2503.09313).

    | input | shape | meaning |
    |---|---|---|
    | `student_en` | `(P, D)` | the student's vector of each pair's English text |
    | `student_lang` | `(P, D)` | the student's vector of each pair's translation |
    | `teacher_en` | `(P, D)` | the teacher's vector of each pair's English text |
    | `student_en_image` | `(P, D)` | the student's mean state of the image before the English text |
    | `student_lang_image` | `(P, D)` | the student's mean state of the image before the translation |
    | `teacher_en_image` | `(P, D)` | the teacher's mean state of the image before the English text |

    Example:
        `SelfDistillationTrainer(model, args, train_dataset=rows, loss=ImageDistillationLoss())`
    """

    citation = XVLM2VEC_CITATION
    mean_over_pairs = True
    needs_images = True

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
        """Scalar loss over pairs.

        Raises:
            ValueError: The vectors differ in shape.
        """
        check_vectors(self, student_en=student_en, student_lang=student_lang, teacher_en=teacher_en)
        images = {"student_en_image": student_en_image, "student_lang_image": student_lang_image}
        check_vectors(self, **images, teacher_en_image=teacher_en_image)
        errors = [vector_distance(student, teacher_en.detach(), "mse") for student in (student_en, student_lang)]
        errors += [vector_distance(student, teacher_en_image.detach(), "mse") for student in images.values()]
        return torch.stack(errors).mean()
