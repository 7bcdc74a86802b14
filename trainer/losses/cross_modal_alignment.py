"""A translation finds its image among those of the batch."""

from __future__ import annotations

from typing import Any

import torch

from xvlm2vec.common.renamed import renamed_keywords

from .base import check_row_labels, check_vectors
from .info_nce import INFONCE_CITATION, ContrastiveLoss, info_nce


class CrossModalAlignmentLoss(ContrastiveLoss):
    """A translation finds its image, seen without any text, among the images of the batch.

    InfoNCE (arXiv 1807.03748) of translations against images, with the formula of `MultilingualContrastiveLoss`.
    The translations should be embedded without the image, or there is nothing to learn.

    | input | shape | meaning |
    |---|---|---|
    | `teacher_image` | `(P, D)` | the teacher's vector of each pair's image without text; any value without an image |
    | `student_lang` | `(P, D)` | the student's vector of each translation |
    | `student_lang_alone` | `(P, D)` | the same without the image; where it is given, it is taken instead |
    | `row_of_pair` | `(P,)` int64 | the row, and so the image, of each pair; by default all differ |
    | `image_of_pair` | `(P,)` int64 | a number of each pair's image that is the same in all rows and processes, |
    | | | where several rows may show one image; takes the place of `row_of_pair` |
    | `has_image` | `(P,)` bool | whether the pair has an image; by default all have one |

    Args:
        temperature: Cosines are divided by it.

    Example:
        `CrossModalAlignmentLoss(0.05)(teacher_image=images, student_lang_alone=translated, has_image=has_image)`
    """

    citation = INFONCE_CITATION
    needs_images = True

    @renamed_keywords(teacher_picture="teacher_image", picture_of_pair="image_of_pair", has_picture="has_image")
    def forward(
        self,
        *,
        teacher_image: torch.Tensor,
        student_lang: torch.Tensor | None = None,
        student_lang_alone: torch.Tensor | None = None,
        row_of_pair: torch.Tensor | None = None,
        image_of_pair: torch.Tensor | None = None,
        has_image: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over the pairs with an image; 0 if there is none.

        Raises:
            TypeError: Neither kind of `student_lang` is given.
            ValueError: The tensors do not fit each other.
        """
        texts = student_lang if student_lang_alone is None else student_lang_alone
        if texts is None:
            raise TypeError(
                f"{type(self).__name__}.forward() missing 1 required keyword-only argument: 'student_lang' (or "
                "'student_lang_alone')"
            )
        check_vectors(self, student_lang=texts, teacher_image=teacher_image)
        if image_of_pair is None:
            rows = self.row_ids(row_of_pair, texts)
        else:
            check_row_labels(self, "image_of_pair", len(image_of_pair), len(texts))
            rows = image_of_pair.to(texts.device)
        if has_image is not None:
            check_row_labels(self, "has_image", len(has_image), len(texts))
            chosen = has_image.to(texts.device)
            texts, teacher_image, rows = texts[chosen], teacher_image[chosen], rows[chosen]
        return info_nce(texts, teacher_image.detach(), rows, self.temperature)
