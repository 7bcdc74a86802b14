"""Metrics as pure functions on NumPy arrays.

Ranking metrics take, for every row, how many candidates score above the gold one and how many score the same. A tie is
broken at random in expectation: the gold candidate is equally likely to hold any of the ranks that it shares, and every
metric below is the exact mean over those ranks. Nothing therefore depends on the order of the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

_BLOCK = 1 << 22  # similarities held at once: 16 MB of float32


class RankCounts(NamedTuple):
    """Where the gold candidate of each row stands.

    Attributes:
        above: `(n,)`, candidates that score strictly higher than the gold one.
        tied: `(n,)`, other candidates that score the same as the gold one.
    """

    above: IntArray
    tied: IntArray


class Drift(NamedTuple):
    """Mean and smallest cosine between the two vectors of each item."""

    mean: float
    minimum: float


def rank_counts(
    scores: FloatArray, gold: FloatArray, valid: npt.NDArray[np.bool_] | None = None, tolerance: float = 0.0
) -> RankCounts:
    """Count the candidates above and level with the gold one.

    Args:
        scores: `(n, m)`, the scores of the candidates other than the gold one.
        gold: `(n,)`, the score of the gold candidate.
        valid: `(n, m)`, false where a shorter candidate list was padded.
        tolerance: Scores no further apart than this count as equal.

    Raises:
        ValueError: A score is not a number.
    """
    if np.isnan(gold).any() or np.isnan(scores if valid is None else scores[valid]).any():
        raise ValueError("a score is not a number (NaN): the ranking would be meaningless")
    level = np.asarray(gold)[:, None]
    above = scores > level + tolerance
    tied = scores >= level - tolerance
    if valid is not None:
        above, tied = above & valid, tied & valid
    higher = np.count_nonzero(above, axis=1)
    return RankCounts(higher, np.count_nonzero(tied, axis=1) - higher)


def hit_at_1(ranks: RankCounts) -> FloatArray:
    """Expected hit@1 per row: one over the number of candidates that share the top, if the gold one is among them."""
    return recall_at_k(ranks, 1)


def recall_at_k(ranks: RankCounts, k: int) -> FloatArray:
    """Expected recall@k per row (one positive): the share of the gold candidate's possible ranks within the first k."""
    shared = np.asarray(ranks.tied) + 1
    return np.clip(k - np.asarray(ranks.above), 0, shared) / shared


def reciprocal_rank(ranks: RankCounts) -> FloatArray:
    """Expected reciprocal rank per row; its mean is MRR."""
    return _mean_gain(ranks, lambda rank: 1.0 / rank)


def ndcg_at_k(ranks: RankCounts, k: int) -> FloatArray:
    """Expected nDCG@k per row with one positive: `1 / log2(1 + rank)` for ranks up to k, else 0."""
    return _mean_gain(ranks, lambda rank: np.where(rank <= k, 1.0 / np.log2(1.0 + rank), 0.0))


def expected_rank(ranks: RankCounts) -> FloatArray:
    """Expected 0-based rank per row."""
    return np.asarray(ranks.above) + np.asarray(ranks.tied) / 2


def tied_rows(ranks: RankCounts) -> int:
    """Number of rows whose gold candidate shares its score with another one."""
    return int(np.count_nonzero(ranks.tied))


def mean_rank_variance(ranks: FloatArray) -> dict[str, float]:
    """How much an item's rank depends on the language of the text.

    The 1-to-K paper (Nie et al., 2024) calls the metric MRV; its published code averages the population standard
    deviation, so both that and the variance are given.

    Args:
        ranks: `(languages, items)`, 0-based rank of each item in each language of a parallel set.

    Returns:
        `mrv_std` and `mrv_var`, the means over items of the standard deviation and of the variance over languages.

    Raises:
        ValueError: The array is not two-dimensional or is empty.
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if ranks.ndim != 2 or not ranks.size:
        raise ValueError(f"ranks must be (languages, items) and not empty, got shape {ranks.shape}")
    return {"mrv_std": float(ranks.std(axis=0).mean()), "mrv_var": float(ranks.var(axis=0).mean())}


def parity_gap(scores: Mapping[str, float], reference: str = "en") -> dict[str, float]:
    """How far each language lies below the reference language (negative: above it).

    Raises:
        ValueError: The reference language has no score.
    """
    if reference not in scores:
        raise ValueError(f"no score for the reference language {reference!r}; there are: {', '.join(sorted(scores))}")
    return {language: scores[reference] - score for language, score in scores.items() if language != reference}


def translation_accuracy(source: FloatArray, target: FloatArray) -> float:
    """Top-1 accuracy of finding each item's translation, mean over both directions.

    Args:
        source: `(n, D)` vectors in one language.
        target: `(n, D)` vectors of the same items in another language.
    """
    _same_shape(source, target)
    similarity = unit_rows(source) @ unit_rows(target).T
    return float(np.mean([_diagonal_hits(matrix).mean() for matrix in (similarity, similarity.T)]))


def linear_cka(x: FloatArray, y: FloatArray) -> float:
    """Linear centred kernel alignment (Kornblith et al., 2019) of `(n, D1)` and `(n, D2)`: 1 for equal geometries.

    Raises:
        ValueError: The numbers of rows differ, or one side does not vary at all.
    """
    if len(x) != len(y):
        raise ValueError(f"the two sets need the same rows, got {len(x)} and {len(y)}")
    x, y = (np.asarray(side, dtype=np.float64) - np.mean(side, axis=0, dtype=np.float64) for side in (x, y))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    if scale == 0:
        raise ValueError("one side has the same vector everywhere: its alignment is undefined")
    return float(np.linalg.norm(x.T @ y) ** 2 / scale)


def modality_gap(images: FloatArray, texts: FloatArray) -> float:
    """Distance between the centres of the normalised image and text vectors (Liang et al., 2022)."""
    return float(np.linalg.norm(unit_rows(images).mean(axis=0) - unit_rows(texts).mean(axis=0)))


def occurrence_skewness(counts: FloatArray) -> float:
    """Hubness (Radovanovic et al., 2010): skewness of how often each pool item is a near neighbour of a query, `(m,)`.

    0 without hubs, large with a few.
    """
    spread = counts.std()
    return 0.0 if spread == 0 else float((((counts - counts.mean()) / spread) ** 3).mean())


def same_language_share(embeddings: FloatArray, languages: Sequence[str] | npt.NDArray[Any], k: int = 10) -> FloatArray:
    """Share of an item's own language among its k nearest neighbours in a pool of mixed languages (itself left out).

    Args:
        embeddings: `(n, D)`.
        languages: The language of each row.
        k: Neighbours of each item; items level at rank k share what is left.

    Returns:
        `(n,)`.

    Raises:
        ValueError: The lengths differ, or there are fewer than two items.
    """
    codes = np.unique(np.asarray(languages), return_inverse=True)[1]
    if len(codes) != len(embeddings) or len(codes) < 2:
        raise ValueError(f"need at least two vectors and a language for each, got {len(embeddings)} and {len(codes)}")
    vectors, k = unit_rows(embeddings), min(k, len(codes) - 1)
    share = np.empty(len(codes))
    for rows in row_blocks(len(codes), len(codes)):
        similarity = vectors[rows] @ vectors.T
        similarity[np.arange(len(similarity)), np.arange(rows.start, rows.stop)] = -np.inf
        same = codes[rows, None] == codes[None, :]
        share[rows] = (_top_k_shares(similarity, k) * same).sum(axis=1) / k
    return share


def english_drift(student: FloatArray, teacher: FloatArray) -> Drift:
    """Cosine between two models' vectors of the same English rows: an index built before needs no rebuild near 1."""
    _same_shape(student, teacher)
    cosines = (unit_rows(student) * unit_rows(teacher)).sum(axis=1)
    return Drift(float(cosines.mean()), float(cosines.min()))


def unit_rows(vectors: FloatArray) -> npt.NDArray[np.float32]:
    """Rows of length 1 in float32; a row of zeros stays zero, so that it is equally far from everything."""
    array = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return np.divide(array, norms, out=np.zeros_like(array), where=norms > 0)


def _mean_gain(ranks: RankCounts, gain: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Mean of a gain over the 1-based ranks `above + 1 ... above + tied + 1`, through its running sum."""
    above, tied = (np.asarray(part, dtype=np.int64) for part in ranks)
    if not len(above):
        return np.zeros(0)
    last = int((above + tied).max()) + 1
    total = np.concatenate([[0.0], np.cumsum(gain(np.arange(1, last + 1, dtype=np.float64)))])
    return (total[above + tied + 1] - total[above]) / (tied + 1)


def _diagonal_hits(similarity: FloatArray) -> FloatArray:
    gold = np.diagonal(similarity)
    others = ~np.eye(len(similarity), dtype=bool)
    return hit_at_1(rank_counts(similarity, gold, valid=others))


def _top_k_shares(similarity: FloatArray, k: int) -> FloatArray:
    """`(n, m)`: 1 for what is surely in the row's top k, a fraction for what ties at its edge, else 0."""
    edge = np.partition(similarity, -k, axis=1)[:, -k, None]
    above, level = similarity > edge, similarity == edge
    left = k - above.sum(axis=1, keepdims=True)
    return above + level * (left / level.sum(axis=1, keepdims=True))


def row_blocks(rows: int, width: int, most: int = _BLOCK) -> list[slice]:
    """Slices of rows whose `rows * width` values are at most `most`, one row at least."""
    size = max(1, most // max(width, 1))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _same_shape(left: FloatArray, right: FloatArray) -> None:
    if np.shape(left) != np.shape(right) or np.ndim(left) != 2 or not len(left):
        raise ValueError(f"the two sets must be (n, D) of one shape, got {np.shape(left)} and {np.shape(right)}")
