"""Losses of self-distillation and of pairs, as modules called by keyword with tensors; one in each file."""

from __future__ import annotations

from .base import EmbeddingLoss
from .cross_modal_alignment import CrossModalAlignmentLoss
from .image_distillation import ImageDistillationLoss
from .language_disentanglement import LanguageDisentanglementLoss
from .local_global import LocalGlobalLoss
from .loss_sum import LossSum
from .matryoshka import MatryoshkaLoss, with_whole_size
from .multilingual_contrastive import MultilingualContrastiveLoss
from .one_to_many import OneToManyContrastiveLoss
from .pair_info_nce import PairInfoNCELoss
from .reconstruction import ReconstructionLoss
from .registry import LOSSES, PAIR_LOSSES, loss_names, make_loss
from .self_distillation import XVLM2VEC_CITATION, SelfDistillationLoss
from .sigmoid import SigmoidLoss
from .spreading import SpreadingLoss
from .symile import SymileLoss

__all__ = [
    "LOSSES",
    "PAIR_LOSSES",
    "XVLM2VEC_CITATION",
    "CrossModalAlignmentLoss",
    "EmbeddingLoss",
    "ImageDistillationLoss",
    "LanguageDisentanglementLoss",
    "LocalGlobalLoss",
    "LossSum",
    "MatryoshkaLoss",
    "MultilingualContrastiveLoss",
    "OneToManyContrastiveLoss",
    "PairInfoNCELoss",
    "ReconstructionLoss",
    "SelfDistillationLoss",
    "SigmoidLoss",
    "SpreadingLoss",
    "SymileLoss",
    "loss_names",
    "make_loss",
    "with_whole_size",
]
