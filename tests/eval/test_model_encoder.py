"""The adapters on a real, tiny model: the same rows through `encode` and through sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.eval.abilities import EVERYTHING
from xvlm2vec.eval.encoders import ModelEncoder, as_encoder
from xvlm2vec.eval.ranking import Row

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
