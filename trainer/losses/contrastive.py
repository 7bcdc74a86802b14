"""Contrastive losses across languages and modalities, over the batch of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import normalize

from .base import EmbeddingLoss, check_row_labels, check_vectors, full_precision
from .citations import INFONCE_CITATION, ONE_TO_MANY_CITATION
from .gathering import gather_rows, global_row_ids


class _ContrastiveLoss(EmbeddingLoss):
    """Holds the temperature.

    Args:
        temperature: Cosines are divided by it.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} is not positive.")
        self.temperature = temperature

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {"temperature": self.temperature}

    def _row_ids(self, row_of_pair: torch.Tensor | None, vectors: torch.Tensor) -> torch.Tensor:
        """An id of each vector's row that is its own over all processes; by default every vector has its own row."""
        if row_of_pair is None:
            return global_row_ids(torch.arange(len(vectors), device=vectors.device))
        check_row_labels(self, "row_of_pair", len(row_of_pair), len(vectors))
        return global_row_ids(row_of_pair.to(vectors.device))


class MultilingualContrastiveLoss(_ContrastiveLoss):
    """A translation finds its own English vector among those of the batch.

    InfoNCE (arXiv 1807.03748) of the student's translations against the teacher's English vectors:
    `-mean_p log(exp(cos(s_p, t_p) / T) / sum_q exp(cos(s_p, t_q) / T))`, where `q` runs over `p` itself and the pairs
    of other rows in all processes. Other pairs of the same English row hold the same target, so they are no negatives.

    Args:
        temperature: `T`.
    """

    citation = INFONCE_CITATION

    def forward(
        self,
        *,
        student_lang: torch.Tensor,
        teacher_en: torch.Tensor,
        row_of_pair: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over pairs.

        Args:
            student_lang: `(P, D)`, the student's translations.
            teacher_en: `(P, D)`, the teacher's English vector of each.
            row_of_pair: `(P,)` int64, the English row of each pair, counted in this process; by default all differ.

        Raises:
            ValueError: The tensors do not fit each other.
        """
        check_vectors(self, student_lang=student_lang, teacher_en=teacher_en)
        rows = self._row_ids(row_of_pair, student_lang)
        return info_nce(student_lang, teacher_en.detach(), rows, self.temperature)


class CrossModalAlignmentLoss(_ContrastiveLoss):
    """A translation finds its image, seen without any text, among the images of the batch.

    InfoNCE (arXiv 1807.03748) of translations against images, with the formula of `MultilingualContrastiveLoss`.
    The translations should be embedded without the image, or there is nothing to learn.

    Args:
        temperature: Cosines are divided by it.
    """

    citation = INFONCE_CITATION

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

        Args:
            teacher_image: `(P, D)`, the teacher's vector of each pair's image alone; any value where there is none.
            student_lang: `(P, D)`, the student's translations.
            student_lang_alone: The same without their images; where it is given, it is taken instead.
            row_of_pair: `(P,)` int64, the row, and so the image, of each pair; by default all differ.
            image_of_pair: `(P,)` int64, a number of each pair's image that is the same in all rows and processes,
                where several rows may show one image; takes the place of `row_of_pair`.
            has_image: `(P,)` bool; by default all have one.

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
            rows = self._row_ids(row_of_pair, texts)
        else:
            check_row_labels(self, "image_of_pair", len(image_of_pair), len(texts))
            rows = image_of_pair.to(texts.device)
        if has_image is not None:
            check_row_labels(self, "has_image", len(has_image), len(texts))
            chosen = has_image.to(texts.device)
            texts, teacher_image, rows = texts[chosen], teacher_image[chosen], rows[chosen]
        return info_nce(texts, teacher_image.detach(), rows, self.temperature)


class OneToManyContrastiveLoss(_ContrastiveLoss):
    """An English vector finds the translations of its row in all languages, each with the same share.

    1-to-K contrastive learning (arXiv 2406.18254): the cross-entropy between a softmax over all translations of the
    batch and the target that gives each of a row's `K` translations `1 / K`,
    `-mean_r 1/K_r sum_(k in r) log(exp(cos(t_r, s_k) / T) / sum_j exp(cos(t_r, s_j) / T))`, where `t_r` is the
    teacher's English vector of row `r` and `j` runs over the student's translations in all processes. The least
    value is `log K`, when a row's translations are all equally near and all others far away: no language can gain by
    being nearer than the others.

    Args:
        temperature: `T`.
    """

    citation = ONE_TO_MANY_CITATION

    def forward(
        self,
        *,
        student_lang: torch.Tensor,
        teacher_en: torch.Tensor,
        row_of_pair: torch.Tensor,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over rows.

        Args:
            student_lang: `(P, D)`, the student's translations.
            teacher_en: `(P, D)`, the teacher's English vector of each.
            row_of_pair: `(P,)` int64, the English row of each translation, counted in this process.

        Raises:
            ValueError: The tensors do not fit each other.
        """
        check_vectors(self, student_lang=student_lang, teacher_en=teacher_en)
        rows = self._row_ids(row_of_pair, student_lang)
        scores = cosines(teacher_en.detach(), gather_rows(student_lang)) / self.temperature
        positive = rows[:, None] == gather_rows(rows)[None, :]
        per_pair = -(scores.log_softmax(dim=1) * positive).sum(dim=1) / positive.sum(dim=1)
        # A row stands here once for each of its translations; together they count as one row.
        shares = 1 / (rows[:, None] == rows[None, :]).sum(dim=1)
        return (per_pair * shares).sum() / shares.sum()


def info_nce(queries: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE over cosines of queries `(B, D)` against the targets `(B, D)` of all processes.

    Args:
        queries: The vectors that search.
        targets: What each should find; may be none.
        rows: `(B,)`, global id of each vector's row: a target of the query's own row is no negative.
        temperature: Cosines are divided by it.

    Returns:
        The mean over this process's queries, a scalar in at least float32; 0 without queries.
    """
    places = global_row_ids(torch.arange(len(queries), device=queries.device))
    everyone, all_rows, all_places = gather_rows(targets), gather_rows(rows), gather_rows(places)
    if not len(queries):
        return full_precision(queries).sum()
    scores = cosines(queries, everyone) / temperature
    own = places[:, None] == all_places[None, :]
    scores = scores.masked_fill((rows[:, None] == all_rows[None, :]) & ~own, -torch.inf)
    return -scores.log_softmax(dim=1)[own].mean()


def cosines(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Cosine of each pair of rows, `(M, N)` in at least float32, also under autocast, which would round them."""
    with torch.autocast(left.device.type, enabled=False):
        return normalize(full_precision(left), dim=1) @ normalize(full_precision(right), dim=1).T
