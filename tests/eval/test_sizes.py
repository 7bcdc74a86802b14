"""Smaller vectors: what they score, what they lose, and for whom."""

from __future__ import annotations

import numpy as np
import pytest

from xvlm2vec.eval.metrics import hit_at_1, unit_rows
from xvlm2vec.eval.ranking import RankingTask, Row, score_task
from xvlm2vec.eval.sizes import Size, shrink, size_row, size_summary, smaller_sizes


def make(language: str = "en", n: int = 60, pool: int = 80) -> RankingTask:
    rows, candidates = [Row(f"q{i}") for i in range(n)], [Row("", f"p{i}") for i in range(pool)]
    index = np.stack([np.r_[i, np.delete(np.arange(pool), i)] for i in range(n)])
    return RankingTask("B", "d", "t2i", language, "plain", rows, candidates, index)


def vectors(width: int = 32, noise: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(80, width)).astype(np.float32)
    return (candidates[:60] + noise * rng.normal(size=(60, width))).astype(np.float32), candidates


def test_sizes_and_their_bytes() -> None:
    found = smaller_sizes(64, [16, 32], ["int8", "binary"])
    assert [(size.dim, size.precision) for size in found] == [
        (64, "int8"), (64, "binary"), (32, "float32"), (32, "int8"), (32, "binary"),
        (16, "float32"), (16, "int8"), (16, "binary"),
    ]  # fmt: skip
    assert [Size(20, name).byte_count for name in ("float32", "int8", "binary")] == [80, 20, 3]
    assert smaller_sizes(64) == []
    with pytest.raises(ValueError, match="64 values cannot be cut to 128"):
        smaller_sizes(64, [128])
    with pytest.raises(ValueError, match="unknown precision 'int4'"):
        smaller_sizes(64, [], ["int4"])


def test_cut_vectors_are_scored_by_their_own_cosine() -> None:
    task, (queries, candidates) = make(), vectors()
    direct = score_task(task, queries[:, :8], candidates[:, :8])
    row = size_row(task, score_task(task, queries, candidates), (queries, candidates), Size(8))
    assert row["p_at_1"] == pytest.approx(hit_at_1(direct).mean())
    assert row["loss"] == pytest.approx(hit_at_1(score_task(task, queries, candidates)).mean() - row["p_at_1"])
    assert row["loss"] > 0
    assert row["loss_ci95"][0] <= row["loss"] <= row["loss_ci95"][1]
    assert (row["dim"], row["precision"], row["bytes"], row["n"]) == (8, "float32", 32, 60)


def test_binary_orders_like_the_hamming_distance() -> None:
    queries, candidates = (unit_rows(side) for side in vectors(width=20))
    short, long = shrink(queries, candidates, Size(20, "binary"))
    scores = unit_rows(short[:]) @ unit_rows(long[:]).T
    hamming = ((queries[:, None] > 0) != (candidates[None] > 0)).sum(axis=2)
    np.testing.assert_allclose(scores, 1 - 2 * hamming / 20, atol=1e-6)
    row = size_row(make(), score_task(make(), queries, candidates), (queries, candidates), Size(20, "binary"))
    assert 0 < row["loss"] < 1


def test_int8_stays_within_half_a_step() -> None:
    queries, candidates = (unit_rows(side) for side in vectors())
    shrunk = shrink(queries, candidates, Size(32, "int8"))
    step = np.ptp(candidates, axis=0) / 255
    assert (np.abs(shrunk[1][:] - candidates) <= 0.51 * step).all()
    assert len(np.unique(shrunk[1][:][:, 0])) <= 80
    row = size_row(make(), score_task(make(), queries, candidates), (queries, candidates), Size(32, "int8"))
    assert abs(row["loss"]) <= 0.02


def test_full_size_loses_nothing() -> None:
    queries, candidates = vectors()
    full = score_task(make(), queries, candidates)
    assert size_row(make(), full, (queries, candidates), Size(32))["loss"] == 0


def test_a_whole_pool_is_scored_the_same() -> None:
    queries, candidates = vectors()
    whole = RankingTask(**{**vars(make()), "candidate_index": np.arange(60)[:, None], "whole_pool": True})
    for size in (Size(8), Size(32, "int8"), Size(16, "binary")):
        rows = [size_row(task, score_task(task, queries, candidates), (queries, candidates), size)
                for task in (make(), whole)]  # fmt: skip
        assert rows[0]["p_at_1"] == pytest.approx(rows[1]["p_at_1"])


def test_summary_names_who_loses_most() -> None:
    def row(language: str, size: Size, p_at_1: float, loss: float) -> dict:
        return {"language": language, "p_at_1": p_at_1, "loss": loss, "dim": size.dim, "precision": size.precision,
                "bytes": size.byte_count}  # fmt: skip

    small, large = Size(16), Size(64, "int8")
    rows = [
        row("en", small, 0.8, 0.1),
        row("de", small, 0.5, 0.3),
        row("de", small, 0.7, 0.1),
        row("en", large, 0.9, 0),
    ]
    first, second = size_summary(rows)
    assert (first["dim"], first["bytes"], second["dim"], second["bytes"]) == (64, 64, 16, 64)
    assert second["loss_by_language"] == {"en": 0.1, "de": pytest.approx(0.2)}
    assert (second["worst_language"], second["worst_loss"]) == ("de", pytest.approx(0.2))
    assert second["p_at_1"] == pytest.approx(2 / 3)
