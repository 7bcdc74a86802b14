"""The adapters on a real, tiny model: the same rows through `encode` and through sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.eval.abilities import EVERYTHING
from xvlm2vec.eval.encoders import CallableEncoder, Deferred, ModelEncoder, as_encoder, release
from xvlm2vec.eval.ranking import RankingTask, Row

TINY = TinyModelConfig(32, 8, 32, 1, 1, 2, 64, 300)
IMAGES = {"noise": Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))}
ROWS = [Row("a dog"), Row(None, "noise"), Row("what is this?", "noise"), Row("ein viel längerer Text über einen Hund")]


@pytest.fixture(scope="module")
def encoder() -> ModelEncoder:
    model, _ = build_tiny_model(TINY, ["a dog", "what is this?", "ein Hund"])
    found = as_encoder(model, name="tiny")
    assert isinstance(found, ModelEncoder)
    return found


def test_mixed_rows_do_not_depend_on_their_company(encoder: ModelEncoder) -> None:
    together = encoder.encode_rows(ROWS, IMAGES)
    assert together.dtype == np.float32
    alone = np.concatenate([encoder.encode_rows([row], IMAGES) for row in ROWS])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    assert np.linalg.matrix_rank(together, tol=1e-3) == 4


def test_fingerprint_follows_weights_settings_and_tokenizer(encoder: ModelEncoder) -> None:
    model, processor = build_tiny_model(TINY, ["a dog", "what is this?", "ein Hund"])
    assert ModelEncoder(model, processor).fingerprint == encoder.fingerprint
    assert ModelEncoder(model, processor, dim=8).fingerprint != encoder.fingerprint
    _, other = build_tiny_model(TINY, ["другие слова, другие слова"])
    assert ModelEncoder(model, other).fingerprint != encoder.fingerprint
    next(model.parameters()).data[0] += 1
    assert ModelEncoder(model, processor).fingerprint != encoder.fingerprint


def test_dim(encoder: ModelEncoder) -> None:
    assert ModelEncoder(encoder.model, dim=8).encode_rows(ROWS, IMAGES).shape == (4, 8)


def test_through_sentence_transformers(encoder: ModelEncoder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder.model.save_pretrained(tmp_path)
    encoder.processor.save_pretrained(tmp_path)
    door = as_encoder(SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True))
    np.testing.assert_allclose(door.encode_rows(ROWS, IMAGES), encoder.encode_rows(ROWS, IMAGES), atol=2e-6)
    assert (door.embeds, door.joint, door.instructed) == (EVERYTHING, True, True)
    several = [Row("which?", ("noise", "red"))]
    images = {**IMAGES, "red": Image.new("RGB", (32, 32), "red")}
    np.testing.assert_allclose(door.encode_rows(several, images), encoder.encode_rows(several, images), atol=2e-6)


def test_weights_are_not_read_for_a_fingerprint_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the way into the runner, nor in an evaluation without a store, nor for the model of the drift."""
    from xvlm2vec.eval import encoders
    from xvlm2vec.eval.runner import Extras, evaluate

    def refuse(*_: object) -> str:
        raise AssertionError("all weights were read")

    monkeypatch.setattr(encoders, "fingerprint", refuse)
    model, processor = build_tiny_model(TINY, ["a dog", "what is this?", "ein Hund"])
    encoder = as_encoder(model, processor=processor, name="tiny")
    assert as_encoder(encoder) is encoder
    task = RankingTask("B", "d", "t2i", "en-GB", "plain", ROWS[:1], ROWS[1:3], [[0, 1]], IMAGES)
    results = evaluate(encoder, [task], progress=False, extras=Extras(drift_from=as_encoder(model, name="teacher")))
    assert results.fingerprint == ""
    assert results.rows[0]["alignment"]["english_drift"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(AssertionError, match="all weights were read"):
        _ = encoder.fingerprint


def test_a_released_model_holds_no_memory(encoder: ModelEncoder) -> None:
    model, processor = build_tiny_model(TINY, ["a dog"])
    other = ModelEncoder(model, processor)
    release(other)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    release(CallableEncoder(lambda texts, images: np.ones((len(texts), 2)), name="f"))
    assert encoder.encode_rows(ROWS[:1], {}).shape == (1, 32)


def test_the_model_of_the_drift_comes_last(encoder: ModelEncoder, tmp_path: Path) -> None:
    from xvlm2vec.eval.runner import Extras, evaluate

    task = RankingTask("B", "d", "t2i", "en", "plain", ROWS[:1], ROWS[1:3], [[0, 1]], IMAGES)
    model, processor = build_tiny_model(TINY, ["a dog", "what is this?", "ein Hund"])
    first = ModelEncoder(model, processor, name="student")

    def load() -> ModelEncoder:
        assert list(tmp_path.glob("*/*.npy")), "the first model has embedded everything"
        release(first)
        return encoder

    results = evaluate(first, [task], store=tmp_path, progress=False, extras=Extras(drift_from=Deferred(load)))
    assert results.rows[0]["alignment"]["english_drift_max"] == pytest.approx(0, abs=1e-6)


def test_a_model_of_the_drift_that_embeds_less(encoder: ModelEncoder, caplog: pytest.LogCaptureFixture) -> None:
    from xvlm2vec.eval.runner import Extras, evaluate

    def words(texts: list[str | None], images: list) -> np.ndarray:
        assert not any(images)
        return np.ones((len(texts), 32))

    words.embeds = frozenset({"a text"})  # type: ignore[attr-defined]
    task = RankingTask("B", "d", "t2i", "en", "plain", ROWS[:1], ROWS[1:3], [[0, 1]], IMAGES)
    results = evaluate(encoder, [task], progress=False, extras=Extras(drift_from=words))
    assert "english_drift" not in results.rows[0].get("alignment", {})
    assert "No drift of B/d/t2i/en/plain: words does not embed all that it needs" in caplog.text
