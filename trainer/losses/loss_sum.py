"""A weighted sum of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .base import EmbeddingLoss, describe, full_precision, is_mean_over_pairs, join_citations


class LossSum(EmbeddingLoss):
    """A weighted sum of named losses that are called with the same keywords.

    After each call `last_terms` holds every term, before its weight, by name and detached: that is what to log.

    | input | shape | meaning |
    |---|---|---|
    | what the losses take | any | each takes the keywords that it needs and ignores the rest |

    Args:
        losses: The losses by name.
        weights: The weight of some of them; 1 by default.

    Example:
        `LossSum({"keep": SelfDistillationLoss(), "contrast": MultilingualContrastiveLoss()}, {"contrast": 0.1})`
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        given = dict(weights or {})
        unknown = sorted(given.keys() - losses.keys())
        if unknown:
            raise ValueError(f"There is no loss called {unknown[0]!r} to weigh; there are {', '.join(losses)}.")
        if not losses:
            raise ValueError("A LossSum needs at least one loss.")
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: float(given.get(name, 1.0)) for name in losses}
        self.last_terms: dict[str, torch.Tensor] = {}

    def forward(self, **inputs: Any) -> torch.Tensor:
        """Scalar loss; takes what the losses take together."""
        terms = {name: loss(**inputs) for name, loss in self.losses.items()}
        self.last_terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack([self.weights[name] * full_precision(term) for name, term in terms.items()]).sum()

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {name: {**describe(loss), "weight": self.weights[name]} for name, loss in self.losses.items()}

    @property
    def mean_over_pairs(self) -> bool:  # type: ignore[override]
        """Whether all losses are means over pairs."""
        return all(map(is_mean_over_pairs, self.losses.values()))

    @property
    def citation(self) -> str:  # type: ignore[override]
        """BibTeX of all losses, each source once."""
        return join_citations([getattr(loss, "citation", "") for loss in self.losses.values()])
