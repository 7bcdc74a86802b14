"""Different texts of a batch are pushed apart, so that they do not end as one cluster beside the images."""

from __future__ import annotations

from typing import Any

import torch

from .base import EmbeddingLoss, check_row_labels, check_vectors, full_precision
from .gathering import gather_rows, global_row_ids
from .info_nce import cosines


class SpreadingLoss(EmbeddingLoss):
    """Each text keeps a distance from the nearest text of another pair.

    `mean_t max(0, max_u cos(t, u) - m)`, where `t` runs over the texts (rows without an image) of this process and `u`
    over those of the same side, queries or positives, in all processes. The idea is that of the objective of
    arXiv 2012.05107 (the paper of XTD10), which pushes a caption from the dissimilar caption of its triplet. This form,
    a hinge on cosines with the hardest text of the batch, is ours; the paper's pull of texts to their images is left
    to the loss beside it.

    It compares no query with its positive: alone it teaches nothing. In distillation there is no use for it: the
    teacher's vectors say how far texts are from each other.

    | input | shape | meaning |
    |---|---|---|
    | `query` | `(B, D)` | what searches |
    | `positive` | `(B, D)` | what each should find |
    | `query_is_text` | `(B,)` bool | whether the query has no image |
    | `positive_is_text` | `(B,)` bool | the same of the positive |
    | `no_negative` | `(B, C)` bool | of each query, which of the positives of all processes (and the negatives behind |
    | | | them, which do not count here) belong to it, too: texts of pairs that share a side are not pushed apart |
    | `no_query` | `(B, B')` bool | the same of each positive over the queries of all processes |

    Args:
        margin: `m`, the cosine that two different texts may have.

    Example:
        `LossSum({"info-nce": PairInfoNCELoss(), "spreading": SpreadingLoss()}, {"spreading": 0.1})`
    """

    stands_alone = False
    citation = """\
@misc{aggarwal2020towards,
    title={Towards Zero-shot Cross-lingual Image Retrieval},
    author={Pranav Aggarwal and Ajinkya Kale},
    year={2020},
    eprint={2012.05107},
    archivePrefix={arXiv}
}"""

    def __init__(self, margin: float = 0.5) -> None:
        super().__init__()
        if not -1 <= margin < 1:
            raise ValueError(f"margin={margin} is no cosine that a text could exceed: it lies between -1 and 1.")
        self.margin = margin

    def forward(
        self,
        *,
        query: torch.Tensor,
        positive: torch.Tensor,
        query_is_text: torch.Tensor,
        positive_is_text: torch.Tensor,
        no_negative: torch.Tensor | None = None,
        no_query: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over the texts; 0 where none has another one to be compared with.

        Raises:
            ValueError: The tensors do not fit each other.
        """
        check_vectors(self, query=query, positive=positive)
        check_row_labels(self, "query_is_text", len(query_is_text), len(query))
        check_row_labels(self, "positive_is_text", len(positive_is_text), len(positive))
        rows = global_row_ids(torch.arange(len(query), device=query.device))
        together = rows[:, None] == gather_rows(rows)[None, :]
        for left_out in (no_negative, no_query):
            if left_out is not None:
                together = together | left_out[:, : together.shape[1]]
        sides = ((query, query_is_text), (positive, positive_is_text))
        excess = torch.cat([self._excess(vectors, is_text, together) for vectors, is_text in sides])
        return excess.mean() if len(excess) else full_precision(query).sum() * 0

    def _excess(self, vectors: torch.Tensor, is_text: torch.Tensor, together: torch.Tensor) -> torch.Tensor:
        """`(T,)`: by how much the nearest other text of one side is too near, for texts that have another one."""
        everyone, texts = gather_rows(vectors), gather_rows(is_text.int()).bool()  # backends lack bool
        apart = ~together[is_text] & texts[None, :]
        nearest = cosines(vectors[is_text], everyone).masked_fill(~apart, -torch.inf).amax(dim=1)
        return (nearest[apart.any(dim=1)] - self.margin).clamp_min(0)

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {"margin": self.margin}
