"""Share of queries whose right candidate is among the first k, with ties shared evenly.

Candidates that score the same as the right one are taken to stand in random order, and the expectation over these
orders is exact: a model that gives every candidate the same score gets k divided by the number of candidates, wherever
the right one stands in the list.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from .metrics import RankCounts, rank_counts, recall_at_k, tied_rows

_INPUTS = """
Args:
    predictions (list of list of float): the scores of each query's candidates; lists may differ in length.
    references (list of int): the place of the right candidate in each list, from 0.
    k (int): how many candidates count (default 1).

Returns:
    hit_at_k: mean over the queries. n: number of queries. tied: queries whose right candidate shares its score.

Examples:
    >>> hit_at_k = evaluate.load("hit_at_k")
    >>> hit_at_k.compute(predictions=[[0.9, 0.1], [0.5, 0.5]], references=[0, 1])
    {'hit_at_k': 0.75, 'n': 2, 'tied': 1}
"""


class HitAtK(evaluate.Metric):
    """Tie-fair hit at k."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[int], k: int = 1) -> dict[str, Any]:
        if k < 1:
            raise ValueError(f"k must be 1 or more, not {k}")
        counts = [_counts(row, *pair) for row, pair in enumerate(zip(predictions, references, strict=True))]
        ranks = RankCounts(*np.concatenate(counts, axis=1))
        return {"hit_at_k": float(recall_at_k(ranks, k).mean()), "n": len(counts), "tied": tied_rows(ranks)}


def _counts(row: int, scores: list[float], place: int) -> RankCounts:
    """How many candidates of a row stand above the right one, and level with it."""
    values = np.asarray(scores, dtype=np.float64)
    if not 0 <= place < len(values):
        raise ValueError(f"row {row}: the right candidate {place} is not among its {len(values)} candidates")
    if np.isnan(values).any():
        raise ValueError(f"row {row}: a score is not a number")
    return rank_counts(np.delete(values, place)[None], values[place : place + 1])
