"""Losses of self-distillation, as modules called by keyword with tensors `(B, D)`; one idea in each `loss_*.py`."""

from __future__ import annotations

from .base import EmbeddingLoss
from .citations import XVLM2VEC_CITATION
from .composition import LossSum, MatryoshkaLoss
from .contrastive import (
    CrossModalAlignmentLoss,
    MultilingualContrastiveLoss,
    OneToManyContrastiveLoss,
)
from .distillation import ImageDistillationLoss, SelfDistillationLoss
from .language_disentanglement import LanguageDisentanglementLoss

__all__ = [
    "XVLM2VEC_CITATION",
    "CrossModalAlignmentLoss",
    "EmbeddingLoss",
    "ImageDistillationLoss",
    "LanguageDisentanglementLoss",
    "LossSum",
    "MatryoshkaLoss",
    "MultilingualContrastiveLoss",
    "OneToManyContrastiveLoss",
    "SelfDistillationLoss",
]
