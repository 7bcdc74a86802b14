"""Models that embed only some of it: of two towers, of texts alone; real tiny models through sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from xvlm2vec.eval.abilities import EVERYTHING, IMAGE, PAIR, SEVERAL, TEXT, row_kind, split_by_ability
from xvlm2vec.eval.encoders import CallableEncoder, as_encoder
from xvlm2vec.eval.metrics import unit_rows
from xvlm2vec.eval.ranking import RankingTask, Row
from xvlm2vec.eval.results import Results
from xvlm2vec.eval.runner import evaluate

IMAGES = {name: Image.new("RGB", (32, 32), name) for name in ("red", "blue", "lime")}


@pytest.fixture(scope="module")
def clip(tiny_clip: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_clip), device="cpu")


def make_task(task: str, queries: list[Row], candidates: list[Row]) -> RankingTask:
    return RankingTask("B", "d", task, "en", "plain", queries, candidates, [[0, 1], [1, 0]], IMAGES)


T2I = make_task("t2i", [Row("red"), Row("blue")], [Row("", "red"), Row("", "blue")])
VQA = make_task("vqa", [Row("what is it", "red"), Row("what is it", "blue")], [Row("dog"), Row("cat")])
T2T = make_task("t2t", [Row("a dog"), Row("a cat")], [Row("dog"), Row("cat")])
MANY = make_task("many", [Row("x", ("red", "blue")), Row("x", ("blue", "lime"))], [Row("dog"), Row("cat")])


def test_kinds() -> None:
    rows = [Row("a"), Row("", "red"), Row(None, "red"), Row("a", "red"), Row("", ("red", "blue")), Row("", ("red",))]
    assert [row_kind(row) for row in rows] == [TEXT, IMAGE, IMAGE, PAIR, SEVERAL, IMAGE]


def test_two_towers(clip: SentenceTransformer) -> None:
    encoder = as_encoder(clip, name="clip")
    assert (encoder.embeds, encoder.joint) == (EVERYTHING - {SEVERAL}, False)
    text, image, pair = encoder.encode_rows([Row("red"), Row("", "red"), Row("red", "red")], IMAGES)
    np.testing.assert_allclose(text, clip.encode(["red"])[0], atol=1e-6)
    np.testing.assert_allclose(image, clip.encode([IMAGES["red"]])[0], atol=1e-6)
    np.testing.assert_allclose(pair, unit_rows(text[None])[0] + unit_rows(image[None])[0], atol=1e-6)


def test_a_text_that_looks_like_the_address_of_an_image_is_a_text(clip: SentenceTransformer) -> None:
    address = "https://localhost/dog.png"
    found = as_encoder(clip).encode_rows([Row(address), Row("zzz")], {})
    np.testing.assert_allclose(found[0], found[1], atol=1e-6), "both are one unknown word"


def test_what_two_towers_cannot_embed_is_left_out_with_the_reason(clip: SentenceTransformer, tmp_path: Path) -> None:
    results = evaluate(as_encoder(clip, name="clip"), [T2I, VQA, MANY], progress=False)
    assert [row["task"] for row in results.rows] == ["t2i", "vqa"]
    assert results.settings["text with image"] == "sum of both unit vectors"
    results.save(tmp_path)
    (left_out,) = json.loads((tmp_path / "results.json").read_text())["left_out"]
    assert left_out == {
        "benchmark": "B", "dataset": "d", "task": "many", "language": "en", "style": "plain",
        "reason": "clip embeds a text or a text with an image or an image, and this needs several images",
    }  # fmt: skip
    assert Results.load(tmp_path) == results


def test_texts_only() -> None:
    encoder = as_encoder(SentenceTransformer(modules=[BoW(vocab=["dog", "cat"])], device="cpu"), name="words")
    assert encoder.embeds == {TEXT}
    results = evaluate(encoder, [T2I, T2T], progress=False)
    assert [(row["task"], row["p_at_1"]) for row in results.rows] == [("t2t", 1.0)]
    with pytest.raises(ValueError, match="2 of 2 tasks cannot be scored: words embeds a text, and this needs an image"):
        evaluate(encoder, [T2I, MANY], progress=False)


def test_a_function_is_given_everything() -> None:
    encoder = CallableEncoder(lambda texts, images: np.ones((len(texts), 2)), name="f")
    assert split_by_ability(encoder, [T2I, VQA, MANY])[1] == []
