"""A query finds its positive among those of the batch and the hard negatives, and the positive finds its query."""

from __future__ import annotations

from typing import Any

import torch

from .base import check_vectors
from .gathering import gather_rows
from .info_nce import INFONCE_CITATION, ContrastiveLoss, cosines


class PairInfoNCELoss(ContrastiveLoss):
    """Symmetric InfoNCE over the batch of all processes, with hard negatives and without false ones.

    `-mean_i (log p(d_i | q_i) + log p(q_i | d_i)) / 2` (arXiv 1807.03748), where `p` is a softmax over cosines divided
    by the temperature: of a query over all positives and hard negatives, of a positive over all queries.

    | input | shape | meaning |
    |---|---|---|
    | `query` | `(B, D)` | what searches |
    | `positive` | `(B, D)` | what each should find |
    | `negative` | `(N, D)` | hard negatives of any of the queries; by default none |
    | `no_negative` | `(B, C)` bool | of each query, which of the positives of all processes and then the negatives |
    | | | of all processes are left out; its own positive never is |
    | `no_query` | `(B, B')` bool | the same of each positive over the queries of all processes |

    Args:
        temperature: Cosines are divided by it.

    Example:
        `PairInfoNCELoss(0.05)(query=questions, positive=answers, negative=wrong_answers)`
    """

    citation = INFONCE_CITATION

    def forward(
        self,
        *,
        query: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor | None = None,
        no_negative: torch.Tensor | None = None,
        no_query: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over pairs.

        Raises:
            ValueError: The tensors do not fit each other.
        """
        check_vectors(self, query=query, positive=positive)
        rows = self.row_ids(None, query)
        own = rows[:, None] == gather_rows(rows)[None, :]
        candidates = all_candidates(positive, negative)
        found = torch.cat([own, own.new_zeros(len(query), len(candidates) - own.shape[1])], dim=1)
        forth = self._log_probabilities(query, candidates, found, no_negative)
        back = self._log_probabilities(positive, gather_rows(query), own, no_query)
        return -(forth + back).mean() / 2

    def _log_probabilities(
        self, queries: torch.Tensor, candidates: torch.Tensor, own: torch.Tensor, left_out: torch.Tensor | None
    ) -> torch.Tensor:
        """`(B,)`, of each query's own candidate."""
        scores = cosines(queries, candidates) / self.temperature
        if left_out is not None:
            scores = scores.masked_fill(left_out & ~own, -torch.inf)
        return scores.log_softmax(dim=1)[own]


def all_candidates(positive: torch.Tensor, negative: torch.Tensor | None) -> torch.Tensor:
    """The positives of all processes, and after them all their hard negatives."""
    # A process without hard negatives still takes part in gathering those of the others, and in its gradients.
    mine = positive[:0] if negative is None else negative
    return torch.cat([gather_rows(positive), gather_rows(mine)])
