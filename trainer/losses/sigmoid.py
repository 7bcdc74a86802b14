"""Each query and candidate is judged by itself: a pair or not."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from .base import check_vectors
from .gathering import gather_rows
from .info_nce import ContrastiveLoss, cosines
from .pair_info_nce import all_candidates


class SigmoidLoss(ContrastiveLoss):
    """Every query with every candidate is a decision of its own, without a softmax over the batch.

    `-mean_i sum_j log sigmoid(z_ij (cos(q_i, d_j) / T + b))`, where `z_ij` is 1 for a query's own positive and -1 else
    (arXiv 2303.15343; SigLIP 2 trains with it, too). Here `T` and `b` are settings, not learned.

    | input | shape | meaning |
    |---|---|---|
    | `query` | `(B, D)` | what searches |
    | `positive` | `(B, D)` | what each should find |
    | `negative` | `(N, D)` | hard negatives of any of the queries; by default none |
    | `no_negative` | `(B, C)` bool | of each query, which of the positives of all processes and then the negatives |
    | | | of all processes are left out; its own positive never is |

    Args:
        temperature: `T`.
        bias: `b`; below 0, because most pairs are none.

    Example:
        `SigmoidLoss(0.1)(query=questions, positive=answers)`
    """

    citation = """\
@misc{zhai2023sigmoid,
    title={Sigmoid Loss for Language Image Pre-Training},
    author={Xiaohua Zhai and Basil Mustafa and Alexander Kolesnikov and Lucas Beyer},
    year={2023},
    eprint={2303.15343},
    archivePrefix={arXiv}
}"""

    def __init__(self, temperature: float = 0.1, bias: float = -10.0) -> None:
        super().__init__(temperature)
        self.bias = bias

    def forward(
        self,
        *,
        query: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor | None = None,
        no_negative: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over pairs.

        Raises:
            ValueError: The tensors do not fit each other.
        """
        check_vectors(self, query=query, positive=positive)
        rows = self.row_ids(None, query)
        everyone = gather_rows(rows)
        candidates = all_candidates(positive, negative)
        own = torch.zeros(len(query), len(candidates), dtype=torch.bool, device=query.device)
        own[:, : len(everyone)] = rows[:, None] == everyone[None, :]
        logits = cosines(query, candidates) / self.temperature + self.bias
        terms = -logsigmoid(torch.where(own, logits, -logits))
        if no_negative is not None:
            terms = terms.masked_fill(no_negative & ~own, 0.0)
        return terms.sum(dim=1).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {"temperature": self.temperature, "bias": self.bias}
