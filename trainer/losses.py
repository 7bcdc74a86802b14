"""Losses of self-distillation, as modules called by keyword with tensors `(B, D)`; one idea in each `loss_*.py`."""

from __future__ import annotations

from xvlm2vec.trainer.loss_base import EmbeddingLoss
from xvlm2vec.trainer.loss_citations import XVLM2VEC_CITATION
from xvlm2vec.trainer.loss_composition import LossSum, MatryoshkaLoss
from xvlm2vec.trainer.loss_contrastive import (
    CrossModalAlignmentLoss,
    MultilingualContrastiveLoss,
    OneToManyContrastiveLoss,
)
from xvlm2vec.trainer.loss_disentanglement import LanguageDisentanglementLoss
from xvlm2vec.trainer.loss_distillation import ImageDistillationLoss, SelfDistillationLoss

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
