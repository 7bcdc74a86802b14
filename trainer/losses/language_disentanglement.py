"""Language disentanglement: no linear probe should read the language of a text from its vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import one_hot

from .base import EmbeddingLoss, check_row_labels, check_vectors, full_precision

ENGLISH = "en"


class LanguageDisentanglementLoss(EmbeddingLoss):
    """Penalises the cross-covariance between vectors and the language of their texts.

    `||Cov(Z, Y)||^2 / (tr Cov(Z) tr Cov(Y))`, between 0 and 1, where `Z` `(2P, D)` holds the English and the
    translated vectors and `Y` the one-hot language labels: the penalty XCov of arXiv 1412.6583, made free of scale.
    A least-squares probe for the language has the weights `Cov(Z)^-1 Cov(Z, Y)`, so at 0 it reads nothing.

    What a text means must not count as its language: before the covariance is taken, each pair of an English text and
    its translation loses its mean. With the language of the instructions given, a label is the pair of both languages,
    so that the text's language becomes unreadable whatever language the instruction is in, and the instruction's, too.

    The covariance is that of this process's batch: with few pairs of a language it is noisy.

    | input | shape | meaning |
    |---|---|---|
    | `student_en` | `(P, D)` | the student's vector of each pair's English text |
    | `student_lang` | `(P, D)` | the student's vector of each pair's translation |
    | `languages` | `P` strings | language codes of the translations |
    | `instruction_languages` | `P` strings | language codes of the instructions before the translations, where an |
    | | | English text always has an English one; by default they do not matter |

    Example:
        `LossSum({"paper": SelfDistillationLoss(), "language": LanguageDisentanglementLoss()}, {"language": 0.1})`
    """

    citation = """\
@misc{cheung2014discovering,
    title={Discovering Hidden Factors of Variation in Deep Networks},
    author={Brian Cheung and Jesse A. Livezey and Arjun K. Bansal and Bruno A. Olshausen},
    year={2014},
    eprint={1412.6583},
    archivePrefix={arXiv}
}"""

    def forward(
        self,
        *,
        student_en: torch.Tensor,
        student_lang: torch.Tensor,
        languages: Sequence[str],
        instruction_languages: Sequence[str] | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar penalty over pairs.

        Raises:
            ValueError: The vectors differ in shape, or the labels in number.
        """
        check_vectors(self, student_en=student_en, student_lang=student_lang)
        check_row_labels(self, "languages", len(languages), len(student_lang))
        instructions = [ENGLISH] * len(languages) if instruction_languages is None else instruction_languages
        check_row_labels(self, "instruction_languages", len(instructions), len(student_lang))
        labels = [(ENGLISH, ENGLISH)] * len(languages) + list(zip(languages, instructions, strict=True))
        english, translated = full_precision(student_en), full_precision(student_lang)
        half = (translated - english) / 2
        return cross_covariance(
            torch.cat([english, translated]), torch.cat([-half, half]), label_matrix(labels).to(half)
        )


def label_matrix(labels: Sequence[Any]) -> torch.Tensor:
    """One-hot rows `(N, L)` int64 for the `L` labels that occur."""
    place = {label: index for index, label in enumerate(sorted(set(labels)))}
    return one_hot(torch.tensor([place[label] for label in labels]), len(place))


def cross_covariance(vectors: torch.Tensor, deviations: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Squared cross-covariance of deviations and labels, as a share of the most that it could be.

    Args:
        vectors: `(N, D)`, whose total variance sets the scale.
        deviations: `(N, D)`, the part of the vectors that could tell the label.
        labels: `(N, L)`, one-hot.

    Returns:
        A scalar between 0 and 1 (Cauchy-Schwarz); 0 where all vectors or all labels are the same.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        centred = labels - labels.mean(dim=0)
        covariance = deviations.T @ centred / len(labels)
        variance = vectors.var(dim=0, correction=0).sum() * labels.var(dim=0, correction=0).sum()
        return covariance.square().sum() / variance.clamp_min(torch.finfo(variance.dtype).tiny)
