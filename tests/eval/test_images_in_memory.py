"""How many decoded images are held at once: those of a batch, however many rows a chunk has."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.eval.embedding import DistinctRows, embed_distinct
from xvlm2vec.eval.encoders import CallableEncoder, Encoder, as_encoder
from xvlm2vec.eval.examples import Gallery
from xvlm2vec.eval.ranking import RankingTask, Row
from xvlm2vec.eval.row_images import open_image
from xvlm2vec.modeling import images as image_module
from xvlm2vec.modeling.rows import BadRowsError

TINY = TinyModelConfig(32, 8, 32, 1, 1, 2, 64, 300)
COUNT = 96


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        Image.new("RGB", (32, 32), (number, 0, 255 - number)).save(path)
    return paths


@pytest.fixture
def peak(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The largest number of decoded images that were alive together."""
    decoded: list[weakref.ref[Image.Image]] = []
    largest = 0
    decode = image_module._to_rgb

    def counting(image: Image.Image) -> Image.Image:
        nonlocal largest
        result = decode(image)
        decoded.append(weakref.ref(result))
        largest = max(largest, sum(one() is not None for one in decoded))
        return result

    monkeypatch.setattr(image_module, "_to_rgb", counting)
    return lambda: largest


def embed(encoder: Encoder, files: list[Path], text: str | None) -> np.ndarray:
    distinct = DistinctRows()
    distinct.add([Row(text, path.name) for path in files], {path.name: path for path in files})
    return np.asarray(embed_distinct(encoder, distinct, progress=False))


def tiny(max_tokens: int) -> Encoder:
    model, processor = build_tiny_model(TINY, ["a dog"])
    return as_encoder(model, processor=processor, name="tiny", max_tokens_per_batch=max_tokens)


@pytest.mark.parametrize("text", [None, "a dog"])
def test_a_model(files: list[Path], peak: Callable[[], int], text: str | None) -> None:
    few = embed(tiny(200), files, text)
    assert peak() <= 24, "all images of a chunk were decoded at once"
    np.testing.assert_allclose(few, embed(tiny(16_384), files, text), atol=2e-6)


@pytest.mark.parametrize("text", [None, "a dog"])
def test_a_function(files: list[Path], peak: Callable[[], int], text: str | None) -> None:
    calls: list[int] = []

    def function(texts: list[str | None], images: list[Any]) -> np.ndarray:
        calls.append(len(images))
        return np.array([[image.getpixel((0, 0))[0], 1.0] for image in images])

    vectors = embed(CallableEncoder(function, name="f", batch_size=16), files, text)
    assert peak() <= 16
    assert calls == [16] * 6
    np.testing.assert_array_equal(vectors[:, 0], np.arange(COUNT))


def test_two_towers(files: list[Path], peak: Callable[[], int], tiny_clip: Path) -> None:
    encoder = as_encoder(SentenceTransformer(str(tiny_clip), device="cpu"), batch_size=16)
    embed(encoder, files, None)
    assert peak() <= 16


def test_rows_of_one_image_are_decoded_together(files: list[Path], peak: Callable[[], int]) -> None:
    distinct = DistinctRows()
    distinct.add([Row(f"text {i}", "one") for i in range(40)], {"one": files[0]})
    seen: list[int] = []
    function = CallableEncoder(lambda texts, images: seen.append(len(set(map(id, images)))) or np.ones((len(texts), 2)),
                               name="f", fingerprint="f")  # fmt: skip
    embed_distinct(function, distinct, progress=False)
    assert (seen, peak()) == ([1, 1], 1)


def test_the_file_of_a_broken_image_is_named(files: list[Path]) -> None:
    files[3].write_bytes(files[3].read_bytes()[:60])
    with pytest.raises(BadRowsError, match=rf"{files[3]}: .*cannot be read as an image"):
        embed(tiny(16_384), files[:5], "a dog")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_image_is_on_white_in_memory_as_in_a_file(mode: str, tmp_path: Path) -> None:
    """Functions and other libraries' encoders got the image as it is, and copies in reports dropped transparency."""
    seen = Image.new("RGBA", (32, 32), (0, 90, 0, 0))
    seen.paste((200, 0, 0, 255), (8, 8, 24, 24))
    seen = seen.quantize(16) if mode == "P" else seen.convert(mode)
    seen.save(tmp_path / "seen.png")
    shown = [np.asarray(open_image(source)) for source in (seen, tmp_path / "seen.png")]
    np.testing.assert_array_equal(*shown)
    assert shown[0].shape == (32, 32, 3)
    assert shown[0][0, 0].tolist() == [255, 255, 255]
    gallery = Gallery(16)
    row = Row(None, "seen")
    gallery.add(RankingTask("b", "d", "i2t", "en", "", [row], [Row("red")], [[0]], {"seen": seen}), row)
    (copy,) = gallery.files.values()
    assert min(Image.open(io.BytesIO(copy)).getpixel((1, 1))) > 245
