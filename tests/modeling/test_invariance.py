"""The vector of a row depends on nothing but the row: not on its batch, its place, padding, kernel or door."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling import modeling_xvlm2vec

FAMILIES = [
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "llava_next-llama",
    "llava_next-mistral",
    "llava_onevision",
    "smolvlm",
    "idefics3",
    "internvl",
    "gemma3",
    "paligemma",
    "llava",
    "phi3_v",
]
TEXTS = ["a red bicycle", None, "ein rotes Fahrrad lehnt an der Wand der alten Bäckerei", "自転車", "query", ""]
SHORTFALL = 1e-5  # 1 - cosine


@dataclass
class Wrapped:
    """One family's model and processor, its rows, and each row's vector when embedded alone."""

    model: XVLM2VecModel
    processor: XVLM2VecProcessor
    images: list[Any]
    alone: np.ndarray
    checkpoint: Path

    def vectors(self, rows: list[int], **options: Any) -> np.ndarray:
        inputs = self.processor(text=[TEXTS[i] for i in rows], images=[self.images[i] for i in rows], **options)
        with torch.no_grad():
            return self.model(**inputs).embeddings.numpy()

    def shortfall(self, rows: list[int], vectors: np.ndarray) -> float:
        """The largest 1 - cosine between the vectors and those of the rows alone."""
        return float((1 - (vectors * self.alone[rows]).sum(axis=1)).max())


@pytest.fixture(scope="module", params=FAMILIES)
def wrapped(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path], images: list[Any]) -> Wrapped:
    folder = checkpoint(request.param)
    model, processor = XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)
    row_images = [images[0], images[1], None, None, images[2:4], images[1:4]]
    alone = [model.encode(text=[t], images=[i], processor=processor)[0] for t, i in zip(TEXTS, row_images, strict=True)]
    return Wrapped(model, processor, row_images, np.stack(alone), folder)


ARRANGEMENTS = {
    "all": [0, 1, 2, 3, 4, 5],
    "reversed": [5, 4, 3, 2, 1, 0],
    "texts only": [2, 3],
    "images only": [4, 1, 0],
    "text among images": [5, 3, 4],
    "image among texts": [3, 0, 2],
    "repeated": [1, 1, 3, 3, 1],
}


def test_rows_differ(wrapped: Wrapped) -> None:
    similarities = wrapped.alone @ wrapped.alone.T
    assert np.isfinite(similarities).all()
    assert similarities[~np.eye(len(TEXTS), dtype=bool)].max() < 0.995


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rows", ARRANGEMENTS.values(), ids=ARRANGEMENTS.keys())
def test_batch_and_padding(wrapped: Wrapped, rows: list[int], side: str) -> None:
    assert wrapped.shortfall(rows, wrapped.vectors(rows, padding_side=side)) < SHORTFALL


# transformers has no Phi-3.5-V; test_phi3_v_conformance holds ours against the original.
@pytest.mark.parametrize("wrapped", [family for family in FAMILIES if family != "phi3_v"], indirect=True)
def test_vector_is_the_last_hidden_state_of_plain_transformers(wrapped: Wrapped, images: list[Any]) -> None:
    """The family's own processor and its whole model, head included, on one row with an image and one without."""
    whole = AutoModelForImageTextToText.from_pretrained(wrapped.checkpoint).eval()
    inner = wrapped.processor.inner
    inputs = inner(text=[wrapped.processor.prompt("a red bicycle", 1)], images=[[images[0]]], return_tensors="pt")
    inputs.pop("labels", None)
    with torch.no_grad():
        expected = whole(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    assert torch.allclose(pooled(wrapped, "a red bicycle", [images[0]]), expected, rtol=1e-4, atol=1e-5)
    if wrapped.processor.model_type == "paligemma":
        return  # its processor refuses rows without images
    plain = inner.tokenizer(["a red bicycle"], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        expected = whole(**plain, output_hidden_states=True).hidden_states[-1][0, -1]
    assert torch.allclose(pooled(wrapped, "a red bicycle", None), expected, rtol=1e-4, atol=1e-5)


def pooled(wrapped: Wrapped, text: str, images: Any) -> torch.Tensor:
    with torch.no_grad():
        return wrapped.model(**wrapped.processor(text=[text], images=[images])).pooler_output[0]


def test_more_image_tokens_than_images(wrapped: Wrapped) -> None:
    """Whatever a backbone would put there, it would be wrong."""
    inputs = wrapped.processor(text=["a red bicycle"], images=[wrapped.images[0]])
    token = getattr(wrapped.model.backbone.config, "image_token_id", None)
    inputs["input_ids"][0, -1] = -2 if token is None else token
    with pytest.raises((ValueError, RuntimeError)), torch.no_grad():
        wrapped.model(**inputs)


def test_extra_padding(wrapped: Wrapped) -> None:
    vectors = wrapped.vectors([0, 3], padding_side="left", pad_to_multiple_of=64)
    assert wrapped.shortfall([0, 3], vectors) < SHORTFALL


def test_eager(wrapped: Wrapped) -> None:
    eager = XVLM2VecModel.from_backbone(wrapped.checkpoint, attn_implementation="eager")
    assert eager.backbone.config.get_text_config()._attn_implementation == "eager"
    assert wrapped.model.backbone.config.get_text_config()._attn_implementation == "sdpa"
    other = Wrapped(eager, wrapped.processor, wrapped.images, wrapped.alone, wrapped.checkpoint)
    for side in ("left", "right"):
        rows = [0, 1, 2, 3, 4, 5]
        assert wrapped.shortfall(rows, other.vectors(rows, padding_side=side)) < SHORTFALL


def test_saved_and_loaded_through_every_door(wrapped: Wrapped, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    wrapped.model.save_pretrained(tmp_path)
    wrapped.processor.save_pretrained(tmp_path)
    rows = [0, 1, 2, 3, 4, 5]
    own = Wrapped(
        XVLM2VecModel.from_pretrained(tmp_path),
        XVLM2VecProcessor.from_pretrained(tmp_path),
        wrapped.images,
        wrapped.alone,
        tmp_path,
    )
    assert wrapped.shortfall(rows, own.vectors(rows)) < SHORTFALL
    remote = Wrapped(
        AutoModel.from_pretrained(tmp_path, trust_remote_code=True),
        AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True),
        wrapped.images,
        wrapped.alone,
        tmp_path,
    )
    assert wrapped.shortfall(rows, remote.vectors(rows)) < SHORTFALL
    sentence_model = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    given = [
        {"text": text, "image": image} if image is not None and text else image if image is not None else text
        for text, image in zip(TEXTS[:5], wrapped.images[:5], strict=True)
    ]
    assert wrapped.shortfall(rows[:5], sentence_model.encode(given)) < SHORTFALL


WITHOUT_THE_PACKAGE = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

folder, image, vectors = sys.argv[1:]
rows = {"text": ["a red bicycle", None, "query"], "images": [None, Image.open(image), Image.open(image)]}
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
door = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
mixed = ["a red bicycle", Image.open(image), {"text": "query", "image": Image.open(image)}]
np.save(vectors, np.stack([model.encode(**rows), model.encode(**rows, processor=processor), door.encode(mixed)]))
assert "xvlm2vec" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_vl", "phi3_v"])
def test_remote_code_in_a_process_without_the_package(
    checkpoint: Callable[[str], Path], images: list[Any], tmp_path: Path, name: str
) -> None:
    model = XVLM2VecModel.from_backbone(checkpoint(name))
    model.save_pretrained(tmp_path / "saved")
    XVLM2VecProcessor.from_pretrained(checkpoint(name)).save_pretrained(tmp_path / "saved")
    images[0].save(tmp_path / "image.png")
    arguments = [str(tmp_path / part) for part in ("saved", "image.png", "vectors.npy")]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": ""}
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, *arguments]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=120)
    own = model.encode(text=["a red bicycle", None, "query"], images=[None, images[0], images[0]])
    for vectors in np.load(tmp_path / "vectors.npy"):
        assert (1 - (vectors * own).sum(axis=1)).max() < SHORTFALL


def test_matrix_sees_the_wrong_pooled_column(wrapped: Wrapped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_xvlm2vec, "pool", lambda hidden, mask, pooling, span: hidden[:, -1])
    assert wrapped.shortfall([5, 3, 4], wrapped.vectors([5, 3, 4], padding_side="right")) > 100 * SHORTFALL


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_matrix_sees_one_dimensional_positions(checkpoint: Callable[[str], Path], images: list[Any], name: str) -> None:
    folder = checkpoint(name)
    model, processor = XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)
    inputs = processor(text=["a red bicycle"], images=[images[0]])
    linear = torch.arange(inputs["input_ids"].shape[1])[None]
    with torch.no_grad():
        right, wrong = model(**inputs).embeddings, model(**inputs, position_ids=linear).embeddings
    assert 1 - (right * wrong).sum() > 100 * SHORTFALL


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("qwen2_vl", "mm_token_type_ids"),
        ("qwen2_5_vl", "mm_token_type_ids"),
        ("qwen3_vl", "mm_token_type_ids"),
        ("qwen3_vl_moe", "mm_token_type_ids"),
        ("gemma3", "token_type_ids"),
        ("paligemma", "token_type_ids"),
    ],
)
def test_missing_input_is_an_error(
    checkpoint: Callable[[str], Path], images: list[Any], name: str, lacking: str
) -> None:
    folder = checkpoint(name)
    model, processor = XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)
    inputs = processor(text=["a red bicycle"], images=[images[0]])
    del inputs[lacking]
    with pytest.raises(ValueError, match=f"`{lacking}`"):
        model(**inputs)
