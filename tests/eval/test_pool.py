"""Ranking in blocks: the same counts as all at once, from memory and from a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xvlm2vec.common.store import EmbeddingStore, StoredVectors, row_key
from xvlm2vec.eval import embedding, pool
from xvlm2vec.eval.encoders import CallableEncoder
from xvlm2vec.eval.metrics import unit_rows
from xvlm2vec.eval.pool import pool_occurrence, score_pool, top_of_pool
from xvlm2vec.eval.ranking import RankingTask, Row
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.runner import Extras, evaluate


def dense(queries: np.ndarray, candidates: np.ndarray, golds: list[list[int]]) -> tuple[list[int], list[int]]:
    """Counts by the definition, one query at a time."""
    above, tied = [], []
    for query, gold in zip(unit_rows(queries), golds, strict=True):
        scores = unit_rows(candidates) @ query
        level = scores[gold].max()
        others = np.delete(scores, gold)
        above.append(int((others > level + 1e-6).sum()))
        tied.append(int((np.abs(others - level) <= 1e-6).sum()))
    return above, tied


def with_ties(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """40 queries and 300 candidates, of which a third occur twice."""
    candidates = rng.normal(size=(200, 16)).astype(np.float32)
    return rng.normal(size=(40, 16)).astype(np.float32), np.concatenate([candidates, 3 * candidates[:100]])


@pytest.mark.parametrize(("values", "scores"), [(16, 1), (16 * 7, 50), (1 << 23, 1 << 22)])
def test_blocks_count_like_the_definition(values: int, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_CANDIDATES", values)
    monkeypatch.setattr(pool, "_SCORES", scores)
    rng = np.random.default_rng(0)
    queries, candidates = with_ties(rng)
    golds = np.stack([rng.choice(300, 2, replace=False) for _ in range(40)])
    is_gold = rng.random((40, 2)) < [1.1, 0.5]
    found = score_pool(queries, candidates, golds, is_gold, tolerance=1e-6, name="t")
    named = [list(row[kept]) for row, kept in zip(golds, is_gold, strict=True)]
    above, tied = dense(queries, candidates, named)
    assert found.above.tolist() == above
    assert found.tied.tolist() == tied
    assert sum(tied) > 10


def test_from_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_CANDIDATES", 16 * 32)
    queries, candidates = with_ties(np.random.default_rng(1))
    keys = [row_key(str(i)) for i in range(300)]
    store = EmbeddingStore(tmp_path, "m")
    for start in range(0, 300, 70):
        store.add(keys[start : start + 70], candidates[start : start + 70])
    golds, is_gold = np.arange(40)[:, None] * 7, np.ones((40, 1), dtype=bool)
    view = EmbeddingStore(tmp_path, "m").view(keys)
    stored = score_pool(queries, view, golds, is_gold, tolerance=1e-6, name="t")
    above, tied = dense(queries, candidates, golds.tolist())
    assert (stored.above.tolist(), stored.tied.tolist()) == (above, tied)
    assert top_of_pool(queries[:3], view, 5) == top_of_pool(queries[:3], candidates, 5)


def test_top_of_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = np.array([[1.0, 0], [0, 1], [2, 0], [1, 1]])
    whole = top_of_pool(np.array([[1.0, 0.1]]), candidates, 3)
    assert [place for place, _ in whole[0]] == [0, 2, 3]
    monkeypatch.setattr(pool, "_CANDIDATES", 2)
    assert [place for place, _ in top_of_pool(np.array([[1.0, 0.1]]), candidates, 3)[0]] == [0, 2, 3]
    assert len(top_of_pool(candidates, candidates, 9)[0]) == 4


@pytest.mark.parametrize("side", ["query", "candidate"])
def test_a_vector_that_is_not_finite_is_named(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_CANDIDATES", 4)
    queries, candidates = np.ones((3, 2)), np.ones((5, 2))
    (queries if side == "query" else candidates)[2, 1] = np.nan
    with pytest.raises(ValueError, match=f"the vector of t: {side} 2 holds a NaN"):
        score_pool(queries, candidates, np.zeros((3, 1), int), np.ones((3, 1), bool), tolerance=0, name="t")


def test_the_runner_leaves_a_stored_pool_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, examples and smaller sizes are those of lists that name every candidate, without a store."""
    queries, candidates = with_ties(np.random.default_rng(3))
    rows = [Row(f"query {i}") for i in range(40)], [Row(f"candidate {i}") for i in range(300)]
    lists = [[i, *(j for j in range(300) if j != i)] for i in range(40)]

    def embed(texts: list, images: list) -> np.ndarray:
        sides = {"query": queries, "candidate": candidates}
        return np.array([sides[kind][int(number)] for kind, number in (text.split() for text in texts)])

    def run(**options: Any) -> Results:
        task = RankingTask("B", "d", "t2t", "en", "plain", *rows, options.pop("index"), **options.pop("task", {}))
        extras = Extras(dims=(8,), precisions=("int8",))
        return evaluate(CallableEncoder(embed, name="m"), [task], progress=False, extras=extras, **options)

    dense = run(index=lists)
    monkeypatch.setattr(pool, "_CANDIDATES", 16 * 32)
    monkeypatch.setattr(embedding, "_SHARD", 50)
    stored = run(index=[[i] for i in range(40)], task={"whole_pool": True}, store=tmp_path, chunk=50)
    assert stored.rows[0]["ties"] > 0
    assert {**stored.rows[0], "alignment": None} == {**dense.rows[0], "alignment": None}
    tops = [[item["top"][0]["id"] % 200 for item in one.examples] for one in (stored, dense)]  # a copy is level
    assert tops[0] == tops[1]
    assert [row["p_at_1"] for row in stored.sizes] == [row["p_at_1"] for row in dense.sizes]


@pytest.mark.parametrize(("values", "scores"), [(4, 1), (4 * 7, 50), (1 << 23, 1 << 22)])
def test_occurrence_in_blocks(values: int, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of which many are level at the k-th rank, in whole numbers, so that no rounding tells them apart."""
    rng = np.random.default_rng(0)
    queries, candidates = np.eye(4)[rng.integers(4, size=30)], rng.integers(-1, 2, size=(50, 4)).astype(np.float32)
    similarity = unit_rows(queries) @ unit_rows(candidates).T
    edge = np.sort(similarity, axis=1)[:, -10, None]
    left = 10 - (similarity > edge).sum(axis=1, keepdims=True)
    level = similarity == edge
    expected = ((similarity > edge) + level * left / level.sum(axis=1, keepdims=True)).sum(axis=0)
    monkeypatch.setattr(pool, "_CANDIDATES", values)
    monkeypatch.setattr(pool, "_SCORES", scores)
    found = pool_occurrence(queries, candidates, 10)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.sum() == pytest.approx(300)


def test_no_measure_reads_a_whole_stored_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_CANDIDATES", 8 * 100)
    monkeypatch.setattr("xvlm2vec.eval.alignment._SAMPLE", 100)
    task = RankingTask("B", "d", "t2t", "en", "plain", [Row(f"q{i}") for i in range(30)],
                       [Row(f"c{i}") for i in range(2000)], [[i] for i in range(30)], whole_pool=True)  # fmt: skip

    def embed(texts: list, images: list) -> np.ndarray:
        return np.random.default_rng(len(texts)).normal(size=(len(texts), 8))

    model = CallableEncoder(embed, name="m")
    extras = Extras(drift_from=CallableEncoder(embed, name="teacher", fingerprint="teacher"))
    evaluate(model, [task], store=tmp_path, progress=False, extras=extras)
    read, largest = StoredVectors.__getitem__, []

    def counting(self: StoredVectors, rows: Any) -> np.ndarray:
        found = read(self, rows)
        largest.append(len(found))
        return found

    monkeypatch.setattr(StoredVectors, "__getitem__", counting)
    results = evaluate(model, [task], store=tmp_path, progress=False, extras=extras)
    assert {"hubness", "english_drift"} <= results.rows[0]["alignment"].keys()
    assert max(largest) <= 100
