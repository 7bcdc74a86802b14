"""Losses of self-knowledge distillation, as modules called by keyword with tensors `(B, D)`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import mse_loss

XVLM2VEC_CITATION = """\
@misc{musacchio2025xvlm2vec,
    title={xVLM2Vec: Adapting LVLM-based embedding models to multilinguality using Self-Knowledge Distillation},
    author={Elio Musacchio and Lucia Siciliani and Pierpaolo Basile and Giovanni Semeraro},
    year={2025},
    eprint={2503.09313},
    archivePrefix={arXiv}
}"""


class SelfDistillationLoss(nn.Module):
    """The paper's loss: the student keeps the teacher's English vector and gives it to the translation, too.

    `(1 - w) * MSE(student(en), teacher(en)) + w * MSE(student(lang), teacher(en))` on un-normalised pooled vectors,
    mean over rows and dimensions (arXiv 2503.09313, with `w = 1/2`).

    Args:
        language_weight: `w`, between 0 (only keep English) and 1 (only learn the language).
    """

    def __init__(self, language_weight: float = 0.5) -> None:
        super().__init__()
        if not 0 <= language_weight <= 1:
            raise ValueError(f"language_weight={language_weight} is not between 0 and 1.")
        self.language_weight = language_weight

    def forward(
        self, *, student_en: torch.Tensor, student_lang: torch.Tensor, teacher_en: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        """Scalar loss over rows `(B, D)`: one for each pair of an English text and its translation."""
        target = teacher_en.detach()
        keep = mse_loss(student_en.float(), target.float())
        learn = mse_loss(student_lang.float(), target.float())
        return (1 - self.language_weight) * keep + self.language_weight * learn

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {"language_weight": self.language_weight}

    @property
    def citation(self) -> str:
        """BibTeX of the source."""
        return XVLM2VEC_CITATION


class ImageDistillationLoss(nn.Module):
    """The paper's ablation: the text loss, and the same on the mean hidden state of the picture's positions.

    Four mean squared errors, divided by 4 (arXiv 2503.09313).
    """

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
        """Scalar loss over rows `(B, D)`."""
        text, image = teacher_en.detach().float(), teacher_en_image.detach().float()
        return (
            mse_loss(student_en.float(), text)
            + mse_loss(student_lang.float(), text)
            + mse_loss(student_en_image.float(), image)
            + mse_loss(student_lang_image.float(), image)
        ) / 4

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {}

    @property
    def citation(self) -> str:
        """BibTeX of the source."""
        return XVLM2VEC_CITATION
