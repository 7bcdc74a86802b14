from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval

from xvlm2vec.eval import metrics
from xvlm2vec.eval.metrics import RankCounts


def brute_force(above: int, tied: int, gain) -> float:
    return float(np.mean([gain(rank) for rank in range(above + 1, above + tied + 2)]))


CASES = [(0, 0), (0, 1), (0, 999), (2, 0), (4, 3), (9, 1), (10, 0), (8, 50)]
COUNTS = RankCounts(np.array([a for a, _ in CASES]), np.array([t for _, t in CASES]))


@pytest.mark.parametrize(
    ("values", "gain"),
    [
        (metrics.hit_at_1(COUNTS), lambda rank: rank == 1),
        (metrics.recall_at_k(COUNTS, 5), lambda rank: rank <= 5),
        (metrics.recall_at_k(COUNTS, 10), lambda rank: rank <= 10),
        (metrics.reciprocal_rank(COUNTS), lambda rank: 1 / rank),
        (metrics.ndcg_at_k(COUNTS, 10), lambda rank: (rank <= 10) / math.log2(1 + rank)),
        (metrics.expected_rank(COUNTS), lambda rank: rank - 1),
    ],
    ids=["hit@1", "r@5", "r@10", "mrr", "ndcg@10", "rank"],
)
def test_expectation_over_all_ways_to_break_a_tie(values: np.ndarray, gain) -> None:
    np.testing.assert_allclose(values, [brute_force(a, t, gain) for a, t in CASES], rtol=1e-12)


def test_counts_and_ties() -> None:
    scores = np.array([[0.5, 9, 9], [1.0, 2.0, 9], [0.0, 0.0, 0.0], [9, 9, 9]])
    valid = np.arange(3) < np.array([1, 2, 3, 0])[:, None]
    counts = metrics.rank_counts(scores, np.array([1.0, 1.0, 0.0, 3.0]), valid)
    assert counts.above.tolist() == [0, 1, 0, 0]
    assert counts.tied.tolist() == [0, 1, 3, 0]
    assert metrics.hit_at_1(counts).tolist() == [1.0, 0.0, 0.25, 1.0]
    assert metrics.tied_rows(counts) == 2


def test_padding_is_no_candidate() -> None:
    scores = np.array([[9.0, 1.0], [0.0, 9.0]])
    counts = metrics.rank_counts(scores, np.array([1.0, 1.0]), np.array([[False, True], [True, False]]))
    assert (counts.above.tolist(), counts.tied.tolist()) == ([0, 0], [1, 0])


@pytest.mark.parametrize("scores", [[[float("nan"), 1.0]], [[1.0, float("nan")]]])
def test_nan_is_refused(scores: list) -> None:
    with pytest.raises(ValueError, match="NaN"):
        metrics.rank_counts(np.array(scores)[:, 1:], np.array(scores)[:, 0])


def test_against_pytrec_eval() -> None:
    scores = np.random.default_rng(0).normal(size=(40, 30))
    counts = metrics.rank_counts(scores[:, 1:], scores[:, 0])
    judged = pytrec_eval.RelevanceEvaluator(
        {str(q): {"0": 1} for q in range(40)}, {"P_1", "recall_5", "recall_10", "recip_rank", "ndcg_cut_10"}
    ).evaluate({str(q): {str(d): float(s) for d, s in enumerate(row)} for q, row in enumerate(scores)})
    for name, values in {
        "P_1": metrics.hit_at_1(counts),
        "recall_5": metrics.recall_at_k(counts, 5),
        "recall_10": metrics.recall_at_k(counts, 10),
        "recip_rank": metrics.reciprocal_rank(counts),
        "ndcg_cut_10": metrics.ndcg_at_k(counts, 10),
    }.items():
        np.testing.assert_allclose(values, [judged[str(q)][name] for q in range(40)], atol=1e-6)


def test_mean_rank_variance() -> None:
    found = metrics.mean_rank_variance(np.array([[0, 0, 5], [4, 0, 5]]))
    assert found == {"mrv_std": pytest.approx(2 / 3), "mrv_var": pytest.approx(4 / 3)}
    with pytest.raises(ValueError, match="languages, items"):
        metrics.mean_rank_variance(np.zeros(3))


def test_parity_gap() -> None:
    assert metrics.parity_gap({"en": 0.75, "de": 0.5, "fr": 1.0}) == {"de": 0.25, "fr": -0.25}
    with pytest.raises(ValueError, match="'en'"):
        metrics.parity_gap({"de": 0.5})


def test_translation_accuracy() -> None:
    eye = np.eye(4)
    assert metrics.translation_accuracy(eye, 3 * eye) == 1
    assert metrics.translation_accuracy(eye, np.roll(eye, 1, axis=0)) == 0
    assert metrics.translation_accuracy(eye, np.zeros((4, 4))) == 0.25
    one_hub = np.array([[1.0, 0], [1, 0.1]])
    assert metrics.translation_accuracy(np.eye(2), one_hub) == 0.75


def test_linear_cka() -> None:
    x = np.random.default_rng(1).normal(size=(50, 8))
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))[0]
    assert metrics.linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1.0)
    square = np.array([[1.0], [-1], [1], [-1]])
    assert metrics.linear_cka(square, np.array([[1.0], [1], [-1], [-1]])) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="undefined"):
        metrics.linear_cka(x, np.ones((50, 2)))


def test_modality_gap() -> None:
    images, texts = np.tile([2.0, 0.0], (3, 1)), np.tile([0.0, 5.0], (4, 1))
    assert metrics.modality_gap(images, texts) == pytest.approx(math.sqrt(2))
    assert metrics.modality_gap(images, images) == 0


def test_hubness() -> None:
    assert metrics.occurrence_skewness(np.ones(10)) == 0
    p = 1 / 11  # one of eleven items has all occurrences: a Bernoulli variable, scaled
    expected = (1 - 2 * p) / math.sqrt(p * (1 - p))
    assert metrics.occurrence_skewness(np.array([10] + [0] * 10)) == pytest.approx(expected)


def test_same_language_share() -> None:
    split = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert metrics.same_language_share(split, ["en", "en", "de", "de"], k=1).tolist() == [1.0] * 4
    assert metrics.same_language_share(split, ["en", "de", "en", "de"], k=1).tolist() == [0.0] * 4
    level = metrics.same_language_share(np.ones((6, 2)), ["en", "de"] * 3, k=2)
    assert level.tolist() == [pytest.approx(2 / 5)] * 6, (
        "all five others are level, and two of them are of its language"
    )


def test_english_drift() -> None:
    drift = metrics.english_drift(np.array([[1.0, 0], [0, 2]]), np.array([[3.0, 0], [1, 0]]))
    assert drift == (0.5, 0.0)


def test_zero_vectors_stay_zero() -> None:
    assert metrics.unit_rows(np.array([[0.0, 0], [3, 4]])).tolist() == [
        [0, 0],
        [pytest.approx(0.6), pytest.approx(0.8)],
    ]
