"""InfoNCE over the batch of all processes, and what the losses that are built on it share."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import normalize

from .base import EmbeddingLoss, check_row_labels, full_precision
from .gathering import gather_rows, global_row_ids

INFONCE_CITATION = """\
@misc{oord2018representation,
    title={Representation Learning with Contrastive Predictive Coding},
    author={Aaron van den Oord and Yazhe Li and Oriol Vinyals},
    year={2018},
    eprint={1807.03748},
    archivePrefix={arXiv}
}"""


class ContrastiveLoss(EmbeddingLoss):
    """Holds the temperature, and tells the rows of all processes from each other.

    Args:
        temperature: Cosines are divided by it.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} is not positive.")
        self.temperature = temperature

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {"temperature": self.temperature}

    def row_ids(self, row_of_pair: torch.Tensor | None, vectors: torch.Tensor) -> torch.Tensor:
        """An id `(P,)` of each vector's row that no other row of any process has; by default all rows differ."""
        if row_of_pair is None:
            return global_row_ids(torch.arange(len(vectors), device=vectors.device))
        check_row_labels(self, "row_of_pair", len(row_of_pair), len(vectors))
        return global_row_ids(row_of_pair.to(vectors.device))


def info_nce(queries: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE over cosines of queries `(B, D)` against the targets `(B, D)` of all processes.

    Args:
        queries: The vectors that search.
        targets: What each should find; may be none.
        rows: `(B,)`, global id of each vector's row: a target of the query's own row is no negative.
        temperature: Cosines are divided by it.

    Returns:
        The mean over this process's queries, a scalar in at least float32; 0 without queries.
    """
    places = global_row_ids(torch.arange(len(queries), device=queries.device))
    everyone, all_rows, all_places = gather_rows(targets), gather_rows(rows), gather_rows(places)
    if not len(queries):
        return full_precision(queries).sum()
    scores = cosines(queries, everyone) / temperature
    positive = places[:, None] == all_places[None, :]
    scores = scores.masked_fill((rows[:, None] == all_rows[None, :]) & ~positive, -torch.inf)
    return -scores.log_softmax(dim=1)[positive].mean()


def cosines(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Cosine of each pair of rows, `(M, N)` in at least float32, also under autocast, which would round them."""
    with torch.autocast(left.device.type, enabled=False):
        return normalize(full_precision(left), dim=1) @ normalize(full_precision(right), dim=1).T
