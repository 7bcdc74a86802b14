"""nDCG and recall over all right documents of a query, as mteb has them, with ties in expectation.

Both are sums over the right documents of something that depends on one rank each, so the mean over all ways to order
what is tied is exact: each document is equally likely to hold any of the ranks that it shares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .metrics import FloatArray, IntArray, RankCounts, ndcg_at_k, recall_at_k, reciprocal_rank
from .pool import VectorSource
from .ranking import RankingTask, gold_places, score_every_gold

_NAME = re.compile(r"(ndcg|recall|precision|hit_rate)_at_([0-9]+)")


@dataclass(frozen=True, eq=False)
class GradedRanks:
    """Where every right document of each query stands.

    Attributes:
        best: `(n,)`, where the best right document of each query stands among the wrong ones.
        rows: `(p,)`, the query of each right document that is in the pool.
        counts: `(p,)`, where it stands among all others.
        grades: `(p,)`, how right it is.
        ideal: `(n, g)`, the grades of all right documents of each query, in the pool or not, the highest first.
    """

    best: RankCounts
    rows: IntArray
    counts: RankCounts
    grades: FloatArray
    ideal: FloatArray

    def ndcg(self, k: int) -> FloatArray:
        """Expected nDCG@k of each query; 0 without a right document."""
        discounts = 1 / np.log2(2 + np.arange(min(k, self.ideal.shape[1])))
        return self._share(self.grades * ndcg_at_k(self.counts, k), self.ideal[:, :k] @ discounts)

    def recall(self, k: int) -> FloatArray:
        """Expected share of each query's right documents within the first k."""
        return self._share(recall_at_k(self.counts, k), (self.ideal > 0).sum(axis=1))

    def precision(self, k: int) -> FloatArray:
        """Expected share of right documents among the first k of each query."""
        return self._share(recall_at_k(self.counts, k), np.full(len(self.ideal), k))

    def reciprocal(self) -> FloatArray:
        """Expected reciprocal rank of each query's best right document; 0 where none is in the pool."""
        return np.where(self._found(), reciprocal_rank(self.best), 0.0)

    def of(self, kept: npt.NDArray[np.bool_]) -> GradedRanks:
        """The same of some of the queries."""
        chosen, numbers = kept[self.rows], np.cumsum(kept) - 1
        return GradedRanks(
            some_ranks(self.best, kept),
            numbers[self.rows[chosen]],
            some_ranks(self.counts, chosen),
            self.grades[chosen],
            self.ideal[kept],
        )

    def named(self, name: str) -> float | None:
        """The mean of a score by its name in mteb, such as `ndcg_at_5`; None for those that are not known here."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        kind, k = match[1], int(match[2])
        if kind == "hit_rate":
            return float(np.where(self._found(), recall_at_k(self.best, k), 0.0).mean())
        return float({"ndcg": self.ndcg, "recall": self.recall, "precision": self.precision}[kind](k).mean())

    def _found(self) -> np.ndarray:
        return np.bincount(self.rows, minlength=len(self.ideal)) > 0

    def _share(self, gains: FloatArray, most: FloatArray) -> FloatArray:
        total = np.bincount(self.rows, weights=gains, minlength=len(self.ideal))
        return np.divide(total, most, out=np.zeros(len(total)), where=most > 0)


def some_ranks(ranks: RankCounts, kept: npt.NDArray[np.bool_]) -> RankCounts:
    """The counts of some rows."""
    return RankCounts(ranks.above[kept], ranks.tied[kept])


def graded_ranks(
    task: RankingTask, queries: VectorSource, candidates: VectorSource, best: RankCounts
) -> GradedRanks | None:
    """Rank every right document of a task; None for a task without grades.

    Args:
        task: The task.
        queries: `(n, D)`.
        candidates: `(pool, D)`.
        best: What `ranking.score_task` returned for them.
    """
    if task.grades is None:
        return None
    ideal = np.zeros((len(task.grades), max(map(len, task.grades), default=1)))
    for row, grades in enumerate(task.grades):
        ideal[row, : len(grades)] = grades
    golds = gold_places(task)
    if golds.shape[1] == 1:  # the best one is the only one
        rows = np.flatnonzero(golds[:, 0])
        places, counts = np.zeros_like(rows), RankCounts(best.above[rows], best.tied[rows])
    else:
        rows, places, counts = score_every_gold(task, queries, candidates)
    return GradedRanks(best, rows, counts, ideal[rows, places], -np.sort(-ideal, axis=1))
