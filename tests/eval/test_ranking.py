from __future__ import annotations

import numpy as np
import pytest

from xvlm2vec.eval import metrics
from xvlm2vec.eval import ranking as ranking_module
from xvlm2vec.eval.ranking import RankingTask, Row, score_task, top_candidates

POOL = [Row(f"c{i}") for i in range(6)]
QUERIES = [Row(f"q{i}") for i in range(3)]


def make(index, queries=QUERIES, pool=POOL, **kwargs) -> RankingTask:
    return RankingTask("B", "d", "t2i", "de", "plain", queries, pool, index, **kwargs)


def test_ragged_lists_are_scored_one_by_one() -> None:
    generator = np.random.default_rng(0)
    lists = [[0, 1, 2, 3, 4, 5], [3, 1], [5]]
    queries, pool = generator.normal(size=(3, 4)), generator.normal(size=(6, 4))
    counts = score_task(make(lists), queries, pool)
    for row, listed in enumerate(lists):
        cosines = [pool[c] @ queries[row] / np.linalg.norm(pool[c]) / np.linalg.norm(queries[row]) for c in listed]
        assert counts.above[row] == sum(score > cosines[0] for score in cosines[1:])
    assert counts.tied.tolist() == [0, 0, 0]


@pytest.mark.parametrize("block", [1, 40, 1 << 24])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    index = np.stack([generator.permutation(50)[:7] for _ in range(30)]).astype(np.int16)
    task = make(index, [Row(f"q{i}") for i in range(30)], [Row(f"c{i}") for i in range(50)])
    queries, pool = generator.normal(size=(30, 8)), generator.normal(size=(50, 8))
    whole = score_task(task, queries, pool)
    monkeypatch.setattr(ranking_module, "_BLOCK", block)
    blocks = score_task(task, queries, pool)
    np.testing.assert_array_equal(whole.above, blocks.above)
    assert 0 < whole.above.mean() < 6


def test_zero_vectors_score_one_over_the_list() -> None:
    counts = score_task(make([[0, 1, 2, 3], [1, 0], [2, 3, 4, 5]]), np.zeros((3, 5)), np.zeros((6, 5)))
    np.testing.assert_allclose(metrics.hit_at_1(counts), [1 / 4, 1 / 2, 1 / 4])
    assert metrics.tied_rows(counts) == 3


def test_the_gold_place_is_not_favoured() -> None:
    """A model that says the same of everything, up to rounding, is at chance: neither first nor last."""
    constant = np.random.default_rng(0).normal(size=64)
    pool = constant * np.array([1, 1.1, 0.7, 3, 1 / 3, 9])[:, None]
    assert len(set(metrics.unit_rows(pool) @ metrics.unit_rows(constant[None])[0])) > 1, "rounding does differ"
    counts = score_task(make([[0, 1, 2, 3, 4, 5]] * 3), np.tile(constant, (3, 1)), pool)
    np.testing.assert_allclose(metrics.hit_at_1(counts), 1 / 6)


def test_top_candidates() -> None:
    pool = np.eye(6)
    queries = np.array([[0.1, 3.0, 2, 0, 0, 9], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 2]])
    found, last = top_candidates(make([[0, 1, 2], [3, 1], [5, 0]]), [0, 2], queries, pool, k=2)
    assert [place for place, _ in last] == [5, 0]
    assert [place for place, _ in found] == [1, 2]
    assert found[0][1] > found[1][1] > 0


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([[0, 1], [], [2]], r"B/d/t2i/de/plain: row 1 \('q1'\) has an empty candidate list"),
        ([[], [], []], "row 0 .* has an empty candidate list"),
        ([[0, 1], [1, 0, 1], [2]], r"row 1 \('q1'\) lists its gold candidate 'c1' more than once"),
        ([[0, 1], [-1, 0], [2]], "row 1 .* has no gold candidate"),
        ([[0, 1], [1, 6], [2]], "row 1 points outside the pool of 6"),
        ([[0, 1], [1]], "lengths differ"),
        (np.zeros((3, 1), dtype=np.float32), "signed integers"),
    ],
)
def test_bad_lists(index, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(index)


def test_pool_with_a_row_twice() -> None:
    with pytest.raises(ValueError, match="holds 'c0' twice, at 0 and 6"):
        make([[0, 1]] * 3, pool=[*POOL, Row("c0")])


def test_no_rows() -> None:
    with pytest.raises(ValueError, match="no rows to score"):
        make([], queries=[])


def test_bad_vectors() -> None:
    task = make([[0, 1]] * 3)
    good = np.ones((6, 4))
    bad = good[:3].copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="query 2 holds a NaN"):
        score_task(task, bad, good)
    with pytest.raises(ValueError, match="queries have 4 dimensions, candidates 3"):
        score_task(task, good[:3], good[:, :3])
    with pytest.raises(ValueError, match="candidate embeddings"):
        score_task(task, good[:3], good[:5])


def test_the_best_of_several_gold_candidates_is_ranked_against_the_rest() -> None:
    pool = np.array([[1.0, 0], [0, 1], [1, 1], [1, 0.1], [-1, 0], [0.5, 0.1]])
    queries = np.array([[1.0, 0], [0, 1.0], [1.0, 0]])
    lists = [[2, 0, 1, 3], [4, 1, 2], [5, 3]]
    counts = score_task(make(lists, gold_counts=np.array([2, 1, 1])), queries, pool)
    assert counts.above.tolist() == [0, 2, 1], "the second gold candidate of row 0 is the best; it does not compete"
    assert counts.tied.tolist() == [0, 0, 0]


@pytest.mark.parametrize("block", [1, 1 << 24])
def test_the_whole_pool_competes(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_module, "_BLOCK", block)
    generator = np.random.default_rng(2)
    queries, pool = generator.normal(size=(3, 8)), generator.normal(size=(6, 8))
    golds = [[4, 0], [2], [1, 3, 5]]
    others = [[c for c in range(6) if c not in row] for row in golds]
    spelt_out = make([g + o for g, o in zip(golds, others, strict=True)], gold_counts=np.array([2, 1, 3]))
    short = make(golds, whole_pool=True)
    expected, found = score_task(spelt_out, queries, pool), score_task(short, queries, pool)
    assert (found.above.tolist(), found.tied.tolist()) == (expected.above.tolist(), expected.tied.tolist())
    tops = [top_candidates(task, [0, 2], queries, pool, 6) for task in (short, spelt_out)]
    assert [[place for place, _ in row] for row in tops[0]] == [[place for place, _ in row] for row in tops[1]]


@pytest.mark.parametrize(
    ("index", "golds", "message"),
    [
        ([[0, 1], [2, 2, 3], [4]], [1, 2, 1], "row 1 .* more than once"),
        ([[0, 1], [2, 3, 3], [4]], [1, 2, 1], "row 1 .* more than once"),
        ([[0, 1], [2], [4]], [1, 2, 1], "row 1 .* no gold candidate in place 2"),
        ([[0], [2], [4]], [1, 3, 1], "row 1 .* should have 3 gold candidates, and its list has only 1"),
        ([[0], [2], [4]], [1, 1, 0], "row 2 .* has no gold candidate"),
        ([[0], [2], [4]], [1, 1], "lengths differ"),
    ],
)
def test_bad_gold_candidates(index: list, golds: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(index, gold_counts=np.array(golds))
