"""A query's vector tells each of its conditions: the text and the images that it is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import normalize

from .base import EmbeddingLoss, check_row_labels, full_precision


class ReconstructionLoss(EmbeddingLoss):
    """From the vector of a query with several conditions, the vectors of the single conditions can be read.

    Coral (arXiv 2506.03144) trains, beside its contrastive loss, two decoders that rebuild masked tokens of text and
    image from a query's vector and the tokens that are left. This is a light form of it on whole vectors: a linear
    decoder for texts and one for images, fitted by ridge regression to the other queries of the batch, must predict
    what the model makes of the condition alone. Fitted in closed form, the decoders are no weights that would be
    trained, stored or resumed. The loss is the squared length of what the predictions lack, `mean_i |(R Y)_i / R_ii|^2`
    with `R = r (K + r I)^-1 - 1/Q`: `K` `(Q, Q)` holds the products of the queries' unit vectors less their mean, `Y`
    the unit vectors of the conditions (of several images of a query, their mean), which get no gradient.

    It compares no query with its positive, so it does not stand alone. Queries are those of one process.

    | input | shape | meaning |
    |---|---|---|
    | `query` | `(B, D)` | what searches |
    | `condition` | `(N, D)` | what the model makes of a text or an image of a query alone; by default none |
    | `query_of_condition` | `(N,)` int64 | the place of each condition's query |
    | `condition_is_text` | `(N,)` bool | whether it is a text, and no image |

    Args:
        ridge: `r`: the larger, the less a decoder follows single queries.

    Example:
        `LossSum({"info-nce": PairInfoNCELoss(), "rebuild": ReconstructionLoss()}, {"rebuild": 0.2})`
    """

    stands_alone = False
    citation = """\
@misc{chow2025merit,
    title={MERIT: Multilingual Semantic Retrieval with Interleaved Multi-Condition Query},
    author={Wei Chow and Yuan Gao and Linfeng Li and Xian Wang and Qi Xu and Hang Song and Lingdong Kong and Ran Zhou
        and Yi Zeng and Yidong Cai and Botian Jiang and Shilin Xu and Jiajun Zhang and Minghui Qiu and Xiangtai Li and
        Tianshu Yang and Siliang Tang and Juncheng Li},
    year={2025},
    eprint={2506.03144},
    archivePrefix={arXiv}
}"""

    def __init__(self, ridge: float = 0.1) -> None:
        super().__init__()
        if not ridge > 0:
            raise ValueError(f"ridge={ridge} is not positive.")
        self.ridge = ridge

    def forward(
        self,
        *,
        query: torch.Tensor,
        condition: torch.Tensor | None = None,
        query_of_condition: torch.Tensor | None = None,
        condition_is_text: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over queries and kinds of conditions; 0 where no kind has two queries.

        Raises:
            ValueError: There are conditions without their queries or kinds.
        """
        nothing = full_precision(query).sum() * 0
        if condition is None:
            return nothing
        if query_of_condition is None or condition_is_text is None:
            raise ValueError(f"{type(self).__name__} needs query_of_condition and condition_is_text beside condition.")
        check_row_labels(self, "query_of_condition", len(query_of_condition), len(condition))
        check_row_labels(self, "condition_is_text", len(condition_is_text), len(condition))
        units = normalize(full_precision(condition.detach()), dim=1)
        lacking = [
            self._lacking(query, units[kind], query_of_condition[kind])
            for kind in (condition_is_text, ~condition_is_text)
        ]
        squares = torch.cat(lacking)
        return squares.mean() if len(squares) else nothing

    def _lacking(self, query: torch.Tensor, targets: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """`(Q,)`: squared lengths of what a decoder (with a bias), fitted to all other queries, lacks for each."""
        queries, numbers = places.unique(return_inverse=True)
        if len(queries) < 2:
            return full_precision(query).new_zeros(0)
        with torch.autocast(query.device.type, enabled=False):
            members = torch.zeros(len(queries), len(places), device=targets.device, dtype=targets.dtype)
            members[numbers, torch.arange(len(places), device=places.device)] = 1
            means = members @ targets / members.sum(dim=1, keepdim=True)
            units = normalize(full_precision(query)[queries], dim=1)
            units = units - units.mean(dim=0)
            ridge = self.ridge * torch.eye(len(units), device=units.device, dtype=units.dtype)
            rest = self.ridge * torch.linalg.inv(units @ units.T + ridge) - 1 / len(units)
            return (rest @ means / rest.diagonal()[:, None]).square().sum(dim=1)

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {"ridge": self.ridge}
