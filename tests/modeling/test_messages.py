"""Chat messages: what transformers takes becomes a row, and whatever would be lost is an error."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling.messages import read_messages
from xvlm2vec.modeling.rows import TextImageRow

TEXT = {"type": "text", "text": "a red bicycle"}


@pytest.fixture(scope="module")
def processor(checkpoint: Callable[[str], Path]) -> XVLM2VecProcessor:
    return XVLM2VecProcessor.from_pretrained(checkpoint("qwen2_vl"))


@pytest.fixture(scope="module")
def door(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    folder = tmp_path_factory.mktemp("saved")
    model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"), prompts={"query": "find: ", "document": "see: "})
    model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, images: list[Any]) -> Path:
    path = tmp_path_factory.mktemp("files") / "image.png"
    images[0].save(path)
    return path


def png(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def conversation(*parts: Any, role: str = "user", **more: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": list(parts), **more}]


def ways_to_show(image: Image.Image, file: Path) -> list[dict[str, Any]]:
    encoded = png(image)
    uri = f"data:image/png;base64,{encoded}"
    return [
        {"type": "image", "image": image},
        {"type": "image", "image": str(file)},
        {"type": "image", "image": uri},
        {"type": "image", "image": encoded},
        {"type": "image", "path": str(file)},
        {"type": "image", "url": str(file)},
        {"type": "image", "url": uri},
        {"type": "image", "url": file.as_uri()},
        {"type": "image", "base64": encoded},
        {"type": "image", "base64": uri},
        {"type": "image", "image": None, "url": None, "path": str(file), "base64": None},  # as tables have it
        {"type": "image_url", "image_url": {"url": uri, "detail": "low"}},
        {"type": "image_url", "image_url": uri},
    ]


@pytest.mark.parametrize("way", range(13))
def test_images_under_every_key(
    processor: XVLM2VecProcessor, door: SentenceTransformer, images: list[Any], file: Path, way: int
) -> None:
    messages = conversation(ways_to_show(images[0], file)[way], TEXT)
    expected = processor(text=["a red bicycle"], images=[images[0]])
    batch = processor.apply_chat_template([messages])
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    vector = door.encode([{"text": "a red bicycle", "image": images[0]}])
    assert np.allclose(door.encode([messages]), vector, atol=1e-6)


LOST = {
    "image_base64": (conversation({"type": "image", "image_base64": "iVBOR"}, TEXT), "'image_base64'"),
    "file": (conversation({"type": "image", "file": "a.png"}, TEXT), "'file'"),
    "image_url in an image": (conversation({"type": "image", "image_url": {"url": "a.png"}}, TEXT), "'image_url'"),
    "None": (conversation({"type": "image", "image": None}, TEXT), "`image` is None"),
    "nothing": (conversation({"type": "image"}, TEXT), "it has none of image, url, path, base64"),
    "no url": (conversation({"type": "image_url", "image_url": {"uri": "a"}}, TEXT), "has no `url`"),
    "no image_url": (conversation({"type": "image_url"}, TEXT), "has no `url`"),
    "beside": (conversation({"type": "image", "image": "a.png", "file": "b.png"}), "'file'"),
    "twice": (conversation({"type": "image", "image": "a.png", "path": "b.png"}), r"several \(image, path\)"),
    "in a text": (conversation({**TEXT, "image": "a.png"}), "'image'"),
    "in the message": ([{"role": "user", "content": "hi", "images": ["a.png"]}], "'images'"),
    "other type": (conversation({"type": "input_image", "image_url": "a"}, TEXT), "'input_image' cannot be embedded"),
    "no type": (conversation({"image": "a.png"}, TEXT), "None cannot be embedded"),
    "a string": (conversation("a.png", TEXT), "`content` must be"),
    "a video": (conversation({"type": "video", "video": "a.mp4"}, TEXT), "'video' cannot be embedded"),
    "no base64": (conversation({"type": "image", "base64": "äöü"}, TEXT), "`base64`: .* is not base64"),
}


@pytest.mark.parametrize(("messages", "fault"), LOST.values(), ids=LOST.keys())
def test_what_would_be_lost(processor: XVLM2VecProcessor, messages: Any, fault: str) -> None:
    good = conversation(TEXT)
    with pytest.raises(ValueError, match=f"row 1, message 1.*{fault}"):
        processor.apply_chat_template([good, [*good, *messages]])


def test_what_is_not_lost() -> None:
    messages = [
        {"role": "system", "content": "find: "},
        {"role": "user", "name": "someone", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": None}], "tools": None},
        {"content": "b"},
    ]
    assert read_messages(0, messages) == TextImageRow("a b", (), "find: ")


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_rows_of_sentence_transformers(door: SentenceTransformer, images: list[Any], file: Path, method: str) -> None:
    encode = getattr(door, method)
    expected = encode([{"text": "a", "image": images[0]}])
    for shown in (f"data:image/png;base64,{png(images[0])}", file.as_uri(), {"bytes": file.read_bytes(), "path": None}):
        assert np.allclose(encode([{"text": "a", "image": shown}]), expected, atol=1e-6)
    for row, fault in (
        ({"text": "a", "picture": images[0]}, "picture"),
        ({"text": "a", "image": None}, "`image` is None"),
        ({"text": "a", "image": {"url": "x.png"}}, "a dict is not an image"),
        ({"text": "a", "image": torch.zeros(3, 20, 20)}, "a Tensor is not an image"),
    ):
        with pytest.raises(ValueError, match=fault):
            encode([row])


def test_a_text_stays_a_text(door: SentenceTransformer, file: Path) -> None:
    """Bare, sentence-transformers takes a data URI for an image; under `text` it is one for nobody."""
    uri = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    model = door[0].auto_model
    assert np.allclose(door.encode([uri]), model.encode(images=[uri]), atol=1e-6)
    for text in ("data:image/png;base64,AAAA", file.as_uri(), "http://127.0.0.1:1/x.png"):
        assert np.allclose(door.encode([{"text": text}]), model.encode(text=[text]), atol=1e-6)
