"""Image, English and translation of a row are told from mixed triples by one product of all three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import normalize

from .base import check_row_labels, check_vectors, full_precision
from .info_nce import ContrastiveLoss


class SymileLoss(ContrastiveLoss):
    """Three views of a row are compared at once, not two by two.

    Symile (arXiv 2411.01053) scores a triple by the sum over dimensions of the product of its three unit vectors. Each
    view in turn is the anchor of an InfoNCE: its own two partners against the pairs of partners of other rows, which
    are drawn apart from each other, so that the one is of another row than the other. Unlike losses of pairs it sees
    what only all three tell together.

    | input | shape | meaning |
    |---|---|---|
    | `teacher_image` | `(P, D)` | the teacher's vector of each pair's image without text; any value without an image |
    | `student_en` | `(P, D)` | the student's vector of each pair's English text |
    | `student_lang` | `(P, D)` | the student's vector of each pair's translation |
    | `student_lang_alone` | `(P, D)` | the same without the image; where it is given, it is taken instead |
    | `row_of_pair` | `(P,)` int64 | the row of each pair: what is of one row is not mixed; by default all differ |
    | `has_image` | `(P,)` bool | whether the pair has an image; by default all have one |

    Candidates are those of one process.

    Args:
        temperature: Products are divided by it.

    Example:
        `SymileLoss(0.05)(teacher_image=images, student_en=english, student_lang=translated)`
    """

    needs_images = True
    citation = """\
@misc{saporta2024contrasting,
    title={Contrasting with Symile: Simple Model-Agnostic Representation Learning for Unlimited Modalities},
    author={Adriel Saporta and Aahlad Puli and Mark Goldstein and Rajesh Ranganath},
    year={2024},
    eprint={2411.01053},
    archivePrefix={arXiv}
}"""

    def forward(
        self,
        *,
        teacher_image: torch.Tensor,
        student_en: torch.Tensor,
        student_lang: torch.Tensor,
        student_lang_alone: torch.Tensor | None = None,
        row_of_pair: torch.Tensor | None = None,
        has_image: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over the pairs with an image; 0 if there is none.

        Raises:
            ValueError: The tensors do not fit each other.
        """
        texts = student_lang if student_lang_alone is None else student_lang_alone
        check_vectors(self, teacher_image=teacher_image, student_en=student_en, student_lang=texts)
        rows = torch.arange(len(texts), device=texts.device) if row_of_pair is None else row_of_pair.to(texts.device)
        check_row_labels(self, "row_of_pair", len(rows), len(texts))
        views = [normalize(full_precision(part), dim=1) for part in (teacher_image.detach(), student_en, texts)]
        if has_image is not None:
            check_row_labels(self, "has_image", len(has_image), len(texts))
            chosen = has_image.to(texts.device)
            views, rows = [view[chosen] for view in views], rows[chosen]
        if not len(rows):
            return full_precision(texts).sum() * 0
        turns = [views[place:] + views[:place] for place in range(3)]
        return torch.stack([self._of_anchor(turn, rows) for turn in turns]).mean()

    def _of_anchor(self, views: Sequence[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        """InfoNCE of the first view against the partners of its row and mixed ones."""
        anchor, first, second = views
        mixed = [torch.randperm(len(rows), device=rows.device) for _ in range(2)]
        scores = anchor @ (first[mixed[0]] * second[mixed[1]]).T
        # Partners that are both of the anchor's row, or of one that shares it, are no negative.
        same = (rows[:, None] == rows[mixed[0]][None, :]) & (rows[:, None] == rows[mixed[1]][None, :])
        own = (anchor * first * second).sum(dim=1, keepdim=True)
        logits = torch.cat([own, scores.masked_fill(same, -torch.inf)], dim=1) / self.temperature
        return -logits.log_softmax(dim=1)[:, 0].mean()
