"""Self-knowledge distillation: the student keeps the teacher's English vector and gives it to the translation, too."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.nn.functional import cosine_similarity, mse_loss, smooth_l1_loss

from .base import EmbeddingLoss, check_vectors, full_precision

XVLM2VEC_CITATION = """\
@misc{musacchio2025xvlm2vec,
    title={xVLM2Vec: Adapting LVLM-based embedding models to multilinguality using Self-Knowledge Distillation},
    author={Elio Musacchio and Lucia Siciliani and Pierpaolo Basile and Giovanni Semeraro},
    year={2025},
    eprint={2503.09313},
    archivePrefix={arXiv}
}"""

Distance = Literal["mse", "cosine", "smooth_l1"]
DISTANCES = ("mse", "cosine", "smooth_l1")


class SelfDistillationLoss(EmbeddingLoss):
    """The paper's loss, with a choice of distance.

    `(1 - w) * d(student(en), teacher(en)) + w * d(student(lang), teacher(en))` on un-normalised pooled vectors. In
    arXiv 2503.09313 `w` is 1/2 and `d` the mean squared error over rows and dimensions.

    | input | shape | meaning |
    |---|---|---|
    | `student_en` | `(P, D)` | the student's vector of each pair's English text |
    | `student_lang` | `(P, D)` | the student's vector of each pair's translation |
    | `teacher_en` | `(P, D)` | the teacher's vector of each pair's English text |

    Args:
        language_weight: `w`, between 0 (only keep English) and 1 (only learn the language).
        distance: `"mse"`; `"cosine"`, the mean of one minus the cosine, which leaves lengths free; or `"smooth_l1"`,
            squared up to a difference of 1 and linear beyond, for backbones with a few very large dimensions.

    Example:
        `SelfDistillationLoss(0.5)(student_en=english, student_lang=translated, teacher_en=targets)`
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
        """Scalar loss over pairs.

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


def vector_distance(vectors: torch.Tensor, targets: torch.Tensor, distance: Distance) -> torch.Tensor:
    """Mean distance between the rows of two tensors `(B, D)`, a scalar in at least float32."""
    vectors, targets = full_precision(vectors), full_precision(targets)
    if distance == "cosine":
        return (1 - cosine_similarity(vectors, targets)).mean()
    return (mse_loss if distance == "mse" else smooth_l1_loss)(vectors, targets)
