"""What an evaluation refuses: it says what and where, and leaves earlier results and the store as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xvlm2vec.common.store import StoreError
from xvlm2vec.eval.encoders import CallableEncoder
from xvlm2vec.eval.ranking import RankingTask, Row
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.runner import Extras, evaluate

NAMES = [f"word {i}" for i in range(6)]


def task(dataset: str = "d", prefix: str = "") -> RankingTask:
    rows = [Row(prefix + name) for name in NAMES]
    index = [[i, *(j for j in range(6) if j != i)] for i in range(6)]
    return RankingTask("B", dataset, "t2t", "en", "plain", rows, [Row(f"{name}.") for name in NAMES], index)


def encoder(width: int = 4, broken: str | None = None, fingerprint: str = "f") -> CallableEncoder:
    def embed(texts: list, images: list) -> np.ndarray:
        seeds = [int.from_bytes(hashlib.sha256(text.strip(".").encode()).digest()[:4], "big") for text in texts]
        vectors = np.array([np.random.default_rng(seed).normal(size=width) for seed in seeds])
        vectors[[text == broken for text in texts]] = np.nan
        return vectors

    return CallableEncoder(embed, name="m", fingerprint=fingerprint)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """An evaluation that went well: scores and a store."""
    evaluate(encoder(), [task()], store=tmp_path / "store", progress=False).save(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_vector_that_is_not_a_number(finished: Path) -> None:
    before = files(finished)
    other = task("other", "a ")
    with pytest.raises(ValueError, match="m returned a vector with a NaN or an infinity for 'a word 2'"):
        evaluate(encoder(broken="a word 2"), [other], store=finished / "store", progress=False).save(finished)
    assert files(finished) == before


def test_a_model_of_another_width_than_the_store(finished: Path) -> None:
    before = files(finished)
    with pytest.raises(StoreError, match="holds vectors of width 4, the model gives 5"):
        evaluate(encoder(width=5), [task("other", "a ")], store=finished / "store", progress=False)
    assert files(finished) == before


def flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-1], lambda _: b"garbage", lambda _: b""])
def test_a_damaged_store(finished: Path, damage: Callable[[bytes], bytes]) -> None:
    shard = next((finished / "store").glob("*/*.npy"))
    shard.write_bytes(damage(shard.read_bytes()))
    before = files(finished)
    with pytest.raises(StoreError, match=f"{shard.name} is damaged; delete it"):
        evaluate(encoder(), [task()], store=finished / "store", progress=False)
    assert files(finished) == before
    shard.unlink()
    again = evaluate(encoder(), [task()], store=finished / "store", progress=False)
    assert again.rows == Results.load(finished).rows


def test_an_empty_candidate_list() -> None:
    with pytest.raises(ValueError, match=r"B/d/t2t/en/plain: row 1 \('b'\) has an empty candidate list"):
        RankingTask("B", "d", "t2t", "en", "plain", [Row("a"), Row("b")], [Row("c")], [[0], []])


def test_an_id_that_two_rows_have() -> None:
    rows, pool = [Row("a"), Row("b"), Row("d")], [Row("c"), Row("e")]
    with pytest.raises(ValueError, match=r"B/d/t2t/en/plain: rows 0, 2 have the same id 7; ids in row_ids must be"):
        RankingTask("B", "d", "t2t", "en", "plain", rows, pool, [[0, 1]] * 3, row_ids=np.array([7, 1, 7]))


def test_sizes_that_vectors_do_not_have(finished: Path) -> None:
    before = files(finished)
    for extras, message in (
        (Extras(dims=(8,)), "vectors of 4 values cannot be cut to 8"),
        (Extras(precisions=("int4",)), "unknown precision 'int4'"),
        (Extras(drift_from=encoder(width=3, fingerprint="t")), "two models of one width, and these have 4 and 3"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(encoder(), [task()], store=finished / "store", progress=False, extras=extras).save(finished)
    kept = files(finished)
    assert {path: kept[path] for path in before} == before


def test_results_are_replaced_as_a_whole(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(finished)
    results = evaluate(encoder(), [task("other", "a ")], progress=False)
    results.settings["impossible"] = float("nan")
    with pytest.raises(ValueError, match="Out of range float values"):
        results.save(finished)
    assert files(finished) == before


def test_drift_is_measured_on_english_alone(finished: Path) -> None:
    results = evaluate(encoder(), [task()], progress=False, extras=Extras(drift_from=encoder(fingerprint="t")))
    assert results.rows[0]["alignment"]["english_drift"] == pytest.approx(1)


def test_a_second_benchmark_embeds_only_what_is_new(finished: Path) -> None:
    asked: list[str] = []
    inner = encoder()

    def counting(texts: list, images: list) -> np.ndarray:
        asked.extend(texts)
        return inner.function(texts, images)

    shared = CallableEncoder(counting, name="m", fingerprint="f")
    evaluate(shared, [task(), task("other", "a ")], store=finished / "store", progress=False)
    assert sorted(asked) == [f"a {name}" for name in NAMES]
