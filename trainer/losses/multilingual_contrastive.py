"""A translation finds its English vector among those of the batch."""

from __future__ import annotations

from typing import Any

import torch

from .base import check_vectors
from .info_nce import INFONCE_CITATION, ContrastiveLoss, info_nce


class MultilingualContrastiveLoss(ContrastiveLoss):
    """A translation finds its own English vector among those of the batch.

    InfoNCE (arXiv 1807.03748) of the student's translations against the teacher's English vectors:
    `-mean_p log(exp(cos(s_p, t_p) / T) / sum_q exp(cos(s_p, t_q) / T))`, where `q` runs over `p` itself and the pairs
    of other rows in all processes. Other pairs of the same English row hold the same target, so they are no negatives.

    | input | shape | meaning |
    |---|---|---|
    | `student_lang` | `(P, D)` | the student's vector of each translation |
    | `teacher_en` | `(P, D)` | the teacher's English vector of each |
    | `row_of_pair` | `(P,)` int64 | the English row of each pair, counted in this process; by default all differ |

    Args:
        temperature: `T`.

    Example:
        `MultilingualContrastiveLoss(0.05)(student_lang=translated, teacher_en=targets, row_of_pair=rows)`
    """

    citation = INFONCE_CITATION

    def forward(
        self, *, student_lang: torch.Tensor, teacher_en: torch.Tensor, row_of_pair: torch.Tensor | None = None, **_: Any
    ) -> torch.Tensor:
        """Scalar loss over pairs.

        Raises:
            ValueError: The tensors do not fit each other.
        """
        check_vectors(self, student_lang=student_lang, teacher_en=teacher_en)
        rows = self.row_ids(row_of_pair, student_lang)
        return info_nce(student_lang, teacher_en.detach(), rows, self.temperature)
