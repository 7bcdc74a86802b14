from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from xvlm2vec.common.store import StoreError
from xvlm2vec.eval import embedding
from xvlm2vec.eval.embedding import DistinctRows, distinct_rows, embed_distinct
from xvlm2vec.eval.encoders import (
    CallableEncoder,
    EmbedFunction,
    Encoder,
    SentenceTransformerEncoder,
    as_encoder,
)
from xvlm2vec.eval.function_fingerprint import function_fingerprint
from xvlm2vec.eval.ranking import RankingTask, Row

RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")


def hashed(texts: list[str | None], images: list[Image.Image | None]) -> np.ndarray:
    """Vectors that depend on text and pixels and on nothing else."""
    contents = [(t or "").encode() + (i.tobytes() if i else b"") for t, i in zip(texts, images, strict=True)]
    return np.array([np.frombuffer(hashlib.sha256(content).digest(), np.uint8) for content in contents], np.float32)


class Counting(CallableEncoder):
    def __init__(self, fail_after: int = 10**9) -> None:
        super().__init__(hashed, name="hashed")
        self.seen: list[Row] = []
        self.fail_after = fail_after

    def encode_rows(self, rows, images):
        if len(self.seen) + len(rows) > self.fail_after:
            raise KeyboardInterrupt
        self.seen += rows
        return super().encode_rows(rows, images)


def make_tasks() -> list[RankingTask]:
    first = RankingTask(
        "B", "d", "t2i", "en", "plain", [Row("a"), Row("b")], [Row("x", "1"), Row("x", "2")], [[0, 1], [1, 0]],
        {"1": RED, "2": BLUE},
    )  # fmt: skip
    second = RankingTask(
        "B", "d", "i2t", "en", "plain", [Row("x", "2"), Row(None, "2")], [Row("b"), Row("c")], [[0, 1], [1, 0]],
        {"2": RED.copy()},
    )  # fmt: skip
    return [first, second]


def test_rows_are_equal_by_content_not_by_name() -> None:
    distinct, places = distinct_rows(make_tasks())
    assert len(distinct.rows) == 6
    assert places[1][0][0] == places[0][1][0], "image '2' of the second task is image '1' of the first"
    assert places[1][1][0] == places[0][0][1]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_each_row_once_and_in_its_place(chunk: int, tmp_path: Path) -> None:
    distinct, _ = distinct_rows(make_tasks())
    images = [distinct.images[row.image] if row.image else None for row in distinct.rows]
    expected = hashed([row.text for row in distinct.rows], images)
    for store in (None, tmp_path):
        encoder = Counting()
        vectors = embed_distinct(encoder, distinct, store, chunk, progress=False)
        np.testing.assert_array_equal(vectors, expected)
        assert len(encoder.seen) == len(set(encoder.seen)) == 6


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    distinct, _ = distinct_rows(make_tasks())
    with pytest.raises(KeyboardInterrupt):
        embed_distinct(Counting(fail_after=4), distinct, tmp_path, 2, progress=False)
    rest = Counting()
    resumed = embed_distinct(rest, distinct, tmp_path, 2, progress=False)
    assert len(rest.seen) == 2
    np.testing.assert_array_equal(resumed, embed_distinct(Counting(), distinct, None, progress=False))


def shard_sizes(store: Path) -> list[int]:
    return sorted(int(path.name.split("-")[0]) for path in store.glob("*/*.npy"))


def many_rows(count: int) -> DistinctRows:
    distinct = DistinctRows()
    distinct.add([Row(f"text {i}") for i in range(count)], {})
    return distinct


def test_a_small_run_keeps_what_it_had(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_distinct(Counting(fail_after=599), many_rows(600), tmp_path, progress=False)
    assert shard_sizes(tmp_path) == [512]
    rest = Counting()
    embed_distinct(rest, many_rows(600), tmp_path, progress=False)
    assert len(rest.seen) == 600 - 512


@pytest.mark.parametrize(("seconds", "shards"), [(600.0, [976, 1024]), (0.0, [208, *[256] * 7])])
def test_shards_are_large_unless_rows_come_slowly(
    seconds: float, shards: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_SHARD_SECONDS", seconds)
    distinct = many_rows(2000)
    vectors = embed_distinct(Counting(), distinct, tmp_path, progress=False)
    assert shard_sizes(tmp_path) == shards
    np.testing.assert_array_equal(vectors[:], hashed([row.text for row in distinct.rows], [None] * 2000))


def test_a_store_of_another_width_is_refused(tmp_path: Path) -> None:
    distinct, _ = distinct_rows(make_tasks())
    embed_distinct(CallableEncoder(hashed, name="m", fingerprint="m"), distinct, tmp_path, progress=False)
    more = DistinctRows()
    more.add([Row("new")], {})
    narrow = CallableEncoder(lambda texts, images: hashed(texts, images)[:, :8], name="m", fingerprint="m")
    with pytest.raises(StoreError, match="width 32, the model gives 8"):
        embed_distinct(narrow, more, tmp_path, progress=False)


def test_bad_vectors_name_the_row() -> None:
    distinct, _ = distinct_rows(make_tasks())

    def broken(texts: list, images: list) -> np.ndarray:
        return np.array([[np.nan if text == "b" else 1.0] for text in texts])

    with pytest.raises(ValueError, match="broken returned a vector with a NaN or an infinity for 'b'"):
        embed_distinct(as_encoder(broken), distinct, progress=False)
    with pytest.raises(ValueError, match=r"returned shape \(1, 3\) for 6 rows"):
        embed_distinct(CallableEncoder(lambda *_: np.ones((1, 3)), name="short"), distinct, progress=False)


def test_missing_images_and_empty_rows() -> None:
    with pytest.raises(KeyError, match="no image '9' for 'a' \\+ image '9'"):
        DistinctRows().add([Row("a", "9")], {})
    with pytest.raises(ValueError, match="neither text nor image"):
        DistinctRows().add([Row()], {})


def test_paths_are_opened(tmp_path: Path) -> None:
    RED.save(tmp_path / "red.png")
    images = {"p": tmp_path / "red.png", "q": RED}
    found = CallableEncoder(hashed, name="h").encode_rows([Row(None, "p"), Row(None, "q")], images)
    np.testing.assert_array_equal(found[0], found[1])


def test_rows_of_one_image_share_the_object(tmp_path: Path) -> None:
    RED.save(tmp_path / "red.png")
    seen = []
    encoder = CallableEncoder(lambda texts, images: seen.extend(images) or np.ones((len(texts), 2)), name="h")
    encoder.encode_rows([Row("a", "p"), Row("b", "p")], {"p": tmp_path / "red.png"})
    assert seen[0] is seen[1]


def bag_of_words() -> SentenceTransformer:
    return SentenceTransformer(modules=[BoW(vocab=["dog", "cat", "house"])], device="cpu")


def test_sentence_transformer() -> None:
    encoder = as_encoder(bag_of_words(), name="bow")
    assert isinstance(encoder, SentenceTransformerEncoder)
    assert isinstance(encoder, Encoder)
    assert encoder.encode_rows([Row("a dog"), Row("cat cat")], {}).tolist() == [[1, 0, 0], [0, 2, 0]]
    assert encoder.fingerprint == as_encoder(bag_of_words()).fingerprint
    assert encoder.fingerprint != as_encoder(bag_of_words(), dim=2).fingerprint


def test_what_is_no_model() -> None:
    encoder = CallableEncoder(hashed, name="h")
    assert as_encoder(encoder) is encoder
    with pytest.raises(TypeError, match="cannot embed with a int"):
        as_encoder(3)


def test_rows_with_several_images(tmp_path: Path) -> None:
    """Their order counts, and they are not the row with one of them."""
    RED.save(tmp_path / "red.png")
    images = {"r": tmp_path / "red.png", "b": BLUE}
    distinct = DistinctRows()
    rows = [Row("a", ("r", "b")), Row("a", ("b", "r")), Row("a", "r"), Row("a", ("r", "b"))]
    assert distinct.add(rows, images).tolist() == [0, 1, 2, 0]
    seen: dict[int, list] = {}

    def embed(texts: list[str | None], image_list: list) -> np.ndarray:
        for image in image_list:
            parts = image if isinstance(image, list) else [image]
            seen[len(seen)] = [part.getpixel((0, 0)) for part in parts]
        return np.ones((len(texts), 2))

    embed_distinct(as_encoder(embed), distinct, progress=False)
    assert sorted(map(len, seen.values())) == [1, 2, 2]
    assert sorted(value for value in seen.values() if len(value) == 2) == [
        [(0, 0, 255), (255, 0, 0)],
        [(255, 0, 0), (0, 0, 255)],
    ]
    with pytest.raises(KeyError, match="no image 'x' for 'a' \\+ image 'r' \\+ image 'x'"):
        distinct.add([Row("a", ("r", "x"))], images)


def scaled(factor: float) -> Callable[[list, list], np.ndarray]:
    return lambda texts, images: factor * hashed(texts, images)


class Model:
    """Stands for weights, which a fingerprint of code does not see."""

    def __call__(self, texts: list, images: list) -> np.ndarray:
        return hashed(texts, images)


MODEL = Model()


def test_functions_of_one_name_do_not_share_vectors(tmp_path: Path) -> None:
    distinct, _ = distinct_rows(make_tasks())
    functions = [
        scaled(1.0),
        scaled(2.0),
        lambda texts, images: hashed(texts, images)[:, ::-1],
        lambda texts, images, factor=3.0: factor * hashed(texts, images),
        lambda texts, images, factor=4.0: factor * hashed(texts, images),
    ]
    assert {as_encoder(function).name for function in functions} == {"<lambda>"}
    for function in functions:
        stored = embed_distinct(as_encoder(function), distinct, tmp_path, progress=False)
        np.testing.assert_array_equal(stored, embed_distinct(as_encoder(function), distinct, progress=False))
    assert as_encoder(scaled(1.0)).fingerprint == as_encoder(scaled(1.0)).fingerprint


@pytest.mark.parametrize("shared", [np.arange(4.0), {"a": [1, {2, 3}]}, hashed, np.linalg.norm, Model, RED])
def test_a_fingerprint_follows_what_a_function_refers_to(shared: object) -> None:
    def refers(value: object) -> Callable[[list, list], object]:
        return lambda texts, images: value

    first, again, other = (function_fingerprint(refers(value)) for value in (shared, shared, "another"))
    assert first == again != other


def test_a_function_is_the_same_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_words.py").write_text(
        "import numpy as np\nKINDS = {'a', 'b', 'c'}\ndef embed(texts, images):\n    return np.ones((len(KINDS), 2))\n"
    )
    code = "from own_words import embed; from xvlm2vec.eval.function_fingerprint import function_fingerprint as f; " \
        "print(f(embed))"  # fmt: skip
    found = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": seed}, check=True,
            capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1] != "None\n"


@pytest.mark.parametrize("function", [MODEL, lambda texts, images: MODEL(texts, images)])
def test_a_function_with_a_model_is_not_stored_without_a_name(function: EmbedFunction, tmp_path: Path) -> None:
    distinct, _ = distinct_rows(make_tasks())
    encoder = as_encoder(function)
    with pytest.raises(ValueError, match=r'as as_encoder\(function, fingerprint="..."\)'):
        embed_distinct(encoder, distinct, tmp_path, progress=False)
    assert embed_distinct(encoder, distinct, progress=False).shape == (6, 32)
    named = as_encoder(function, fingerprint="v1")
    assert embed_distinct(named, distinct, tmp_path, progress=False).shape == (6, 32)
