"""One loss on several truncations of the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .base import EmbeddingLoss, describe, is_mean_over_pairs, join_citations
from .loss_sum import LossSum

MATRYOSHKA_CITATION = """\
@misc{kusupati2022matryoshka,
    title={Matryoshka Representation Learning},
    author={Aditya Kusupati and Gantavya Bhatt and Aniket Rege and Matthew Wallingford and Aditya Sinha and
        Vivek Ramanujan and William Howard-Snyder and Kaifeng Chen and Sham Kakade and Prateek Jain and Ali Farhadi},
    year={2022},
    eprint={2205.13147},
    archivePrefix={arXiv}
}"""


class MatryoshkaLoss(EmbeddingLoss):
    """A loss on several truncations of the vectors, so that their first values alone are vectors, too.

    `sum_m c_m L(z[:, :m])` over the sizes `m` (arXiv 2205.13147). Every floating tensor `(B, D)` is truncated, all else
    is passed on as it is. The terms of a `LossSum` inside are summed over the sizes, too.

    | input | shape | meaning |
    |---|---|---|
    | what the inner loss takes | `(B, D)` | floating tensors of two dimensions are truncated to each size |
    | | any other | passed on as it is |

    Args:
        loss: The loss on each truncation.
        dims: The sizes; the whole vector counts only if its size is among them.
        weights: `c_m` for each size; 1 by default.

    Example:
        `MatryoshkaLoss(SelfDistillationLoss(), [64, 128, 256])`
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
            terms.append(weight * self.loss(**{name: _truncated(value, size) for name, value in inputs.items()}))
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


def _is_vectors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2 and value.is_floating_point()


def _truncated(value: Any, size: int) -> Any:
    return value[:, :size] if _is_vectors(value) else value


def with_whole_size(dims: Sequence[int], width: int) -> list[int]:
    """The sizes to train on, longest first: those that vectors shall be cut to, and the whole vector.

    Raises:
        ValueError: A size does not fit vectors of `width` values.
    """
    misfits = [size for size in dims if not 0 < size <= width]
    if misfits or not dims:
        raise ValueError(f"matryoshka_dims={list(dims)} do not fit vectors of {width} values.")
    return sorted({*dims, width}, reverse=True)
