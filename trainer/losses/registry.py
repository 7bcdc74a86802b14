"""Losses by the names that the command line has for them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from .base import EmbeddingLoss
from .cross_modal_alignment import CrossModalAlignmentLoss
from .image_distillation import ImageDistillationLoss
from .language_disentanglement import LanguageDisentanglementLoss
from .local_global import LocalGlobalLoss
from .loss_sum import LossSum
from .matryoshka import MatryoshkaLoss
from .multilingual_contrastive import MultilingualContrastiveLoss
from .one_to_many import OneToManyContrastiveLoss
from .pair_info_nce import PairInfoNCELoss
from .reconstruction import ReconstructionLoss
from .self_distillation import SelfDistillationLoss
from .sigmoid import SigmoidLoss
from .spreading import SpreadingLoss
from .symile import SymileLoss

LOSSES: dict[str, type[EmbeddingLoss]] = {
    "self-distillation": SelfDistillationLoss,
    "image-distillation": ImageDistillationLoss,
    "multilingual-contrastive": MultilingualContrastiveLoss,
    "cross-modal-alignment": CrossModalAlignmentLoss,
    "one-to-many": OneToManyContrastiveLoss,
    "language-disentanglement": LanguageDisentanglementLoss,
    "symile": SymileLoss,
}
"""Losses of distillation."""
PAIR_LOSSES: dict[str, type[EmbeddingLoss]] = {
    "info-nce": PairInfoNCELoss,
    "sigmoid": SigmoidLoss,
    "spreading": SpreadingLoss,
    "reconstruction": ReconstructionLoss,
    "local-global": LocalGlobalLoss,
}
"""Losses of contrastive training."""


def make_loss(
    names: str,
    matryoshka_dims: Sequence[int] | None = None,
    losses: Mapping[str, type[EmbeddingLoss]] = LOSSES,
    **options: Any,
) -> EmbeddingLoss:
    """Makes a loss from its name, or a weighted sum from several.

    Args:
        names: Names of `losses`, each with a weight if it is not 1: `"self-distillation:1,one-to-many:0.1"`.
        losses: `LOSSES` or `PAIR_LOSSES`.
        matryoshka_dims: The loss is taken on truncations of the vectors to each of these sizes; `None` truncates none.
        **options: Settings such as `temperature`, `language_weight` or `distance`, for the losses that take them.

    Raises:
        ValueError: A name is unknown or stands twice, a weight is no number above 0, no loss has an option, or none
            of the losses stands alone.
    """
    weights: dict[str, float] = {}
    for entry in names.split(","):
        name, _, weight = (part.strip() for part in entry.partition(":"))
        if name not in losses:
            raise ValueError(f"There is no loss called {name!r}; there are {loss_names(losses)}.")
        if name in weights:
            raise ValueError(f"The loss {name!r} is named twice.")
        weights[name] = _weight(name, weight)
    if not any(losses[name].stands_alone for name in weights):
        first = next(name for name, loss in losses.items() if loss.stands_alone)
        raise ValueError(f"{names} teaches nothing alone; name a loss beside it: {first}:1,{names}.")
    accepted = {name: inspect.signature(losses[name]).parameters for name in weights}
    unused = [option for option in options if not any(option in taken for taken in accepted.values())]
    if unused:
        raise ValueError(f"{unused[0]} is no setting of {', '.join(weights)}.")
    made = {
        name: losses[name](**{option: value for option, value in options.items() if option in accepted[name]})
        for name in weights
    }
    only = next(iter(made.values()))
    loss = only if len(made) == 1 and list(weights.values()) == [1] else LossSum(made, weights)
    return MatryoshkaLoss(loss, matryoshka_dims) if matryoshka_dims else loss


def loss_names(losses: Mapping[str, type[EmbeddingLoss]] = LOSSES) -> str:
    """The names of all losses, those that need a corpus with images marked."""
    return ", ".join(f"{name} (needs images)" if loss.needs_images else name for name, loss in losses.items())


def _weight(name: str, text: str) -> float:
    """The weight that stands behind a name; 1 where there is none."""
    try:
        weight = float(text or 1)
    except ValueError:
        weight = -1.0
    if not 0 < weight < float("inf"):
        raise ValueError(f"The weight of {name} must be a number above 0, not {text!r}.")
    return weight
