"""Ranking against a whole pool of candidates, in blocks: memory stays flat however many candidates there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .metrics import RankCounts, rank_counts, row_blocks, unit_rows

_CANDIDATES = 1 << 23  # values of candidates held at once: 32 MB of float32
_SCORES = 1 << 22  # scores held at once: 16 MB of float32

Unit = npt.NDArray[np.float32]


class VectorSource(Protocol):
    """Vectors in memory or on disk: an array, `StoredVectors`, or anything else that is indexed by rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(rows, D)`."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]: ...


def score_pool(
    queries: VectorSource,
    candidates: VectorSource,
    golds: npt.NDArray[np.integer],
    is_gold: npt.NDArray[np.bool_],
    *,
    tolerance: float,
    name: str,
) -> RankCounts:
    """Rank each query's best gold candidate among all candidates that are not gold, exactly, ties counted.

    Every candidate is read once, and twice if it is gold.

    Args:
        queries: `(n, D)`.
        candidates: `(m, D)`.
        golds: `(n, g)`, places of the gold candidates.
        is_gold: `(n, g)`, false where a query has fewer.
        tolerance: Cosines no further apart than this are level.
        name: The task, for messages.

    Raises:
        ValueError: A vector holds a NaN or an infinity.
    """
    asked = finite_unit_rows(queries[:], f"{name}: query")
    level = _gold_scores(asked, candidates, golds, is_gold, name)
    above, tied = np.zeros(len(asked), dtype=np.int64), np.zeros(len(asked), dtype=np.int64)
    rows, places = np.nonzero(is_gold)
    named = golds[rows, places]
    for start, block in unit_blocks(candidates, f"{name}: candidate"):
        inside = (named >= start) & (named < start + len(block))
        gold = rows[inside], named[inside] - start
        for some in row_blocks(len(asked), len(block), _SCORES):
            scores = asked[some] @ block.T
            here = (gold[0] >= some.start) & (gold[0] < some.stop)
            scores[gold[0][here] - some.start, gold[1][here]] = -np.inf
            counts = rank_counts(scores, level[some], tolerance=tolerance)
            above[some] += counts.above
            tied[some] += counts.tied
    return RankCounts(above, tied)


def top_of_pool(queries: VectorSource, candidates: VectorSource, k: int) -> list[list[tuple[int, float]]]:
    """The k best candidates of each of a few queries as (place, cosine); level ones in the order of the pool."""
    asked = unit_rows(queries[:])
    best = np.full((len(asked), 0), -np.inf, dtype=np.float32)
    places = np.zeros((len(asked), 0), dtype=np.int64)
    for start, block in unit_blocks(candidates, "candidate"):
        best = np.concatenate([best, asked @ block.T], axis=1)
        here = np.broadcast_to(np.arange(start, start + len(block)), (len(asked), len(block)))
        places = np.concatenate([places, here], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, places = np.take_along_axis(best, order, axis=1), np.take_along_axis(places, order, axis=1)
    return [
        [(int(place), float(score)) for place, score in zip(*row, strict=True)]
        for row in zip(places, best, strict=True)
    ]


def pool_occurrence(queries: VectorSource, candidates: VectorSource, k: int) -> npt.NDArray[np.float64]:
    """How often each candidate is among the k nearest of a query; those level at rank k share what is left.

    Candidates are read in blocks, twice; `k` must not exceed their number.

    Returns:
        `(m,)`, which sums to `n * k`.
    """
    asked = unit_rows(queries[:])
    best = np.full((len(asked), k), -np.inf, dtype=np.float32)
    level = np.zeros(len(asked), dtype=np.int64)  # candidates so far that score as the k-th best one
    for some, scores, _ in _scored_blocks(asked, candidates):
        earlier = best[some]
        largest = np.partition(np.concatenate([earlier, scores], axis=1), -k, axis=1)[:, -k:]
        edge = largest.min(axis=1, keepdims=True)
        same = edge[:, 0] == earlier.min(axis=1)
        level[some] = np.where(same, level[some], (earlier == edge).sum(axis=1)) + (scores == edge).sum(axis=1)
        best[some] = largest
    edge = best.min(axis=1, keepdims=True)
    share = (best == edge).sum(axis=1, keepdims=True) / level[:, None]
    counts = np.zeros(len(candidates))
    for some, scores, places in _scored_blocks(asked, candidates):
        counts[places] += (scores > edge[some]).sum(axis=0) + ((scores == edge[some]) * share[some]).sum(axis=0)
    return counts


def _scored_blocks(asked: Unit, candidates: VectorSource) -> Iterator[tuple[slice, Unit, slice]]:
    """Some queries, their scores, and of which candidates."""
    for start, block in unit_blocks(candidates, "candidate"):
        for some in row_blocks(len(asked), len(block), _SCORES):
            yield some, asked[some] @ block.T, slice(start, start + len(block))


def unit_blocks(vectors: VectorSource, what: str) -> Iterator[tuple[int, Unit]]:
    """Consecutive rows of length 1, as many as fit a block, each with the number of its first.

    Raises:
        ValueError: A vector holds a NaN or an infinity; names it as `what` and its number.
    """
    for rows in row_blocks(len(vectors), vectors.shape[1], _CANDIDATES):
        yield rows.start, finite_unit_rows(vectors[rows], what, rows.start)


def finite_unit_rows(vectors: npt.NDArray[Any], what: str, first: int = 0) -> Unit:
    """Rows of length 1.

    Raises:
        ValueError: A vector holds a NaN or an infinity; names it as `what` and its number, counted from `first`.
    """
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"the vector of {what} {first + int(np.argmin(finite))} holds a NaN or an infinity")
    return unit_rows(vectors)


def _gold_scores(
    asked: Unit,
    candidates: VectorSource,
    golds: npt.NDArray[np.integer],
    is_gold: npt.NDArray[np.bool_],
    name: str,
) -> Unit:
    """`(n,)`, the cosine of each query's best gold candidate."""
    best = np.full(len(asked), -np.inf, dtype=np.float32)
    for column in range(is_gold.shape[1]):
        chosen = np.flatnonzero(is_gold[:, column])
        for some in row_blocks(len(chosen), asked.shape[1], _CANDIDATES):
            rows = chosen[some]
            block = finite_unit_rows(candidates[golds[rows, column]], f"{name}: gold candidate of query")
            best[rows] = np.maximum(best[rows], np.einsum("nd,nd->n", asked[rows], block))
    return best
