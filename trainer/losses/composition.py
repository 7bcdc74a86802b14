"""Losses made of losses: several dimensions of one loss, or a weighted sum of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .base import EmbeddingLoss, full_precision, is_mean_over_pairs
from .citations import MATRYOSHKA_CITATION


class MatryoshkaLoss(EmbeddingLoss):
    """A loss on several truncations of the vectors, so that their first values alone are vectors, too.

    `sum_m c_m L(z[:, :m])` over the sizes `m` (arXiv 2205.13147). Every floating tensor `(B, D)` is cut, all else is
    passed on as it is. The terms of a `LossSum` inside are summed over the sizes, too.

    Args:
        loss: The loss on each truncation.
        dims: The sizes; the whole vector counts only if its size is among them.
        weights: `c_m` for each size; 1 by default.
    """

    def __init__(self, loss: nn.Module, dims: Sequence[int], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.dims = tuple(dims)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.dims)
        if not self.dims or min(self.dims) < 1 or len(set(self.dims)) != len(self.dims):
            raise ValueError(f"dims={list(dims)} must be different positive sizes, at least one.")
        if len(self.weights) != len(self.dims):
            raise ValueError(f"{len(self.weights)} weights for {len(self.dims)} dims.")
        self.loss = loss

    def forward(self, **inputs: Any) -> torch.Tensor:
        """Scalar loss; takes what the inner loss takes.

        Raises:
            ValueError: A vector is shorter than the largest size.
        """
        for name, value in inputs.items():
            if _is_vectors(value) and value.shape[1] < max(self.dims):
                raise ValueError(f"MatryoshkaLoss cannot cut {name} {tuple(value.shape)} to {max(self.dims)} values.")
        sums = [part for part in self.loss.modules() if isinstance(part, LossSum)]
        logged: list[dict[str, torch.Tensor]] = [{} for _ in sums]
        terms = []
        for size, weight in zip(self.dims, self.weights, strict=True):
            terms.append(weight * self.loss(**{name: _cut(value, size) for name, value in inputs.items()}))
            for total, part in zip(logged, sums, strict=True):
                total |= {name: total.get(name, 0) + weight * term for name, term in part.last_terms.items()}
        for total, part in zip(logged, sums, strict=True):
            part.last_terms = total
        return torch.stack(terms).sum()

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {"loss": describe(self.loss), "dims": list(self.dims), "weights": list(self.weights)}

    @property
    def mean_over_pairs(self) -> bool:  # type: ignore[override]
        """Whether the inner loss is a mean over pairs."""
        return is_mean_over_pairs(self.loss)

    @property
    def citation(self) -> str:  # type: ignore[override]
        """BibTeX of the method and of the inner loss."""
        return join_citations([MATRYOSHKA_CITATION, getattr(self.loss, "citation", "")])


class LossSum(EmbeddingLoss):
    """A weighted sum of named losses that are called with the same keywords.

    After each call `last_terms` holds every term, before its weight, by name and detached: that is what to log.

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


def describe(loss: nn.Module) -> dict[str, Any]:
    """A loss's class name and settings."""
    settings = loss.get_config_dict() if isinstance(loss, EmbeddingLoss) else {}
    return {"name": type(loss).__name__, "settings": settings}


def join_citations(citations: Sequence[str]) -> str:
    """Several sources as one text, each once."""
    entries = [entry for citation in citations for entry in citation.split("\n\n") if entry]
    return "\n\n".join(dict.fromkeys(entries))


def _is_vectors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2 and value.is_floating_point()


def _cut(value: Any, size: int) -> Any:
    return value[:, :size] if _is_vectors(value) else value
