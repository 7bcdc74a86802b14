"""An English vector finds the translations of its row, all languages alike."""

from __future__ import annotations

from typing import Any

import torch

from .base import check_vectors
from .gathering import gather_rows
from .info_nce import ContrastiveLoss, cosines


class OneToManyContrastiveLoss(ContrastiveLoss):
    """An English vector finds the translations of its row in all languages, each with the same share.

    1-to-K contrastive learning (arXiv 2406.18254): the cross-entropy between a softmax over all translations of the
    batch and the target that gives each of a row's `K` translations `1 / K`,
    `-mean_r 1/K_r sum_(k in r) log(exp(cos(t_r, s_k) / T) / sum_j exp(cos(t_r, s_j) / T))`, where `t_r` is the
    teacher's English vector of row `r` and `j` runs over the student's translations in all processes. The least
    value is `log K`, when a row's translations are all equally near and all others far away: no language can gain by
    being nearer than the others.

    | input | shape | meaning |
    |---|---|---|
    | `student_lang` | `(P, D)` | the student's vector of each translation |
    | `teacher_en` | `(P, D)` | the teacher's English vector of each |
    | `row_of_pair` | `(P,)` int64 | the English row of each translation, counted in this process |

    Args:
        temperature: `T`.

    Example:
        `OneToManyContrastiveLoss(0.05)(student_lang=translated, teacher_en=targets, row_of_pair=rows)`
    """

    citation = """\
@misc{nie2024improving,
    title={Improving the Consistency in Cross-Lingual Cross-Modal Retrieval with 1-to-K Contrastive Learning},
    author={Zhijie Nie and Richong Zhang and Zhangchi Feng and Hailang Huang and Xudong Liu},
    year={2024},
    eprint={2406.18254},
    archivePrefix={arXiv}
}"""

    def forward(
        self, *, student_lang: torch.Tensor, teacher_en: torch.Tensor, row_of_pair: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        """Scalar loss over rows.

        Raises:
            ValueError: The tensors do not fit each other.
        """
        check_vectors(self, student_lang=student_lang, teacher_en=teacher_en)
        rows = self.row_ids(row_of_pair, student_lang)
        scores = cosines(teacher_en.detach(), gather_rows(student_lang)) / self.temperature
        positive = rows[:, None] == gather_rows(rows)[None, :]
        per_pair = -(scores.log_softmax(dim=1) * positive).sum(dim=1) / positive.sum(dim=1)
        # A row stands here once for each of its translations; together they count as one row.
        shares = 1 / (rows[:, None] == rows[None, :]).sum(dim=1)
        return (per_pair * shares).sum() / shares.sum()
