"""Threads that embed at once, as in a service: the same bits as one after the other, and the model stays as it was."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling import images as image_files
from xvlm2vec.modeling.concurrency import CopyableLock
from xvlm2vec.modeling.images import load_image
from xvlm2vec.modeling.packing import token_groups
from xvlm2vec.modeling.rows import TextImageRow

THREADS = 8
ROUNDS = 4


@pytest.fixture(autouse=True)
def threads_change_often() -> Iterator[None]:
    before, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(before)
    torch.set_num_threads(threads)


def at_once(function: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Results of a function in threads that start together."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Any:
        barrier.wait()
        return function(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))


def requests(images: list[Any]) -> list[dict[str, Any]]:
    """What eight users ask for: texts, images, both, long ones, several images, an instruction, several batches."""
    words = ["a red bicycle", "ein rotes Fahrrad lehnt an der Wand", "自転車", "query"]
    return [
        {"text": words},
        {"images": images},
        {"text": words, "images": [images[0]] * 4},
        {"text": [f"{word} " * 20 for word in words], "max_length": 15},
        {"text": [*words, None], "images": [None, images[1], images[2:4], None, images[3]]},
        {"text": words, "instruction": "represent the query for finding the image that it describes: " * 3},
        {"text": words * 5, "max_tokens_per_batch": 30},
        {"text": words, "images": [images[3], None, images[3], None], "max_tokens_per_batch": 60},
    ]


@pytest.mark.filterwarnings("ignore:The texts of")
@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next-llama", "idefics3", "phi3_v", "paligemma"])
def test_eight_threads_give_the_same_bits(checkpoint: Callable[[str], Path], images: list[Any], name: str) -> None:
    model = XVLM2VecModel.from_backbone(checkpoint(name))
    asked = requests(images)
    expected = [model.encode(**request) for request in asked]
    found = at_once(lambda number: [model.encode(**asked[(number + step) % THREADS]) for step in range(ROUNDS)])
    for number, answers in enumerate(found):
        for step, vectors in enumerate(answers):
            assert np.array_equal(vectors, expected[(number + step) % THREADS]), asked[(number + step) % THREADS]
    assert not model.training
    assert model.backbone.config.get_text_config()._attn_implementation == "sdpa"


def test_the_mode_of_each_part_stays(checkpoint: Callable[[str], Path]) -> None:
    """A frozen vision tower that stands in evaluation mode in a model that is trained, and dropout that would show."""
    model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"), attn_implementation="sdpa")
    for layer in model.backbone.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    texts = ["a red bicycle leans against the wall"] * 3
    expected = model.encode(text=texts)
    model.train()
    model.backbone.visual.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    assert any(modes.values())
    assert not all(modes.values())
    found = at_once(lambda number: [model.encode(text=texts[: 1 + number % 3]) for _ in range(ROUNDS)])
    assert all(np.allclose(vectors, expected[: len(vectors)], atol=1e-6) for some in found for vectors in some)
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_a_pack_beside_encode(checkpoint: Callable[[str], Path]) -> None:
    """A forward pass of a pack asks for an attention that must stay when the last `encode` is over."""
    model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"))
    rows = [TextImageRow("a red bicycle"), TextImageRow("query")]
    groups, _ = token_groups(model.processor, [rows])
    (pack,) = model.pack(groups, 100)

    def work(number: int) -> Any:
        with torch.inference_mode():
            forward = [model(pack=pack).embeddings for _ in range(6)] if number % 2 else []
        return forward or [torch.from_numpy(model.encode(text=["a red bicycle", "query"])) for _ in range(6)]

    expected = model.encode(text=["a red bicycle", "query"])
    for vectors in at_once(work):
        assert all(np.array_equal(one.numpy(), expected) for one in vectors)


def test_the_processor_is_loaded_once(
    checkpoint: Callable[[str], Path], images: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    load = XVLM2VecProcessor.from_pretrained.__func__

    def counted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        loaded.append(args)
        time.sleep(0.05)
        return load(cls, *args, **kwargs)

    model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"))  # which looks at the processor once
    monkeypatch.setattr(XVLM2VecProcessor, "from_pretrained", classmethod(counted))
    at_once(lambda number: model.encode(text=["a"], images=[images[0]]))
    assert len(loaded) == 1


@pytest.mark.filterwarnings("ignore:The texts of")
def test_the_processor_itself(checkpoint: Callable[[str], Path], images: list[Any]) -> None:
    """Padding of images and the cutting of texts are states of the tokenizer."""
    processor = XVLM2VecProcessor.from_pretrained(checkpoint("idefics3"))
    calls = [
        {"text": ["a red bicycle " * 200, "query"], "images": [images[0], None]},
        {"text": ["a " * 2000, "query"], "max_length": 20},
        {"text": ["query " * 1000] * 4},
        {"text": ["a", "a red bicycle " * 200], "images": [images[1], images[2]]},
    ]
    expected = [processor(**call)["input_ids"] for call in calls]
    for number, results in enumerate(at_once(lambda n: [processor(**calls[n % 4])["input_ids"] for _ in range(20)])):
        assert all(torch.equal(ids, expected[number % 4]) for ids in results)


def test_sentence_transformers(checkpoint: Callable[[str], Path], images: list[Any], tmp_path: Path) -> None:
    model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"))
    model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    door = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    rows = ["a red bicycle", {"text": "query", "image": images[0]}, images[1], "query"]
    expected = [door.encode(rows[: 1 + number % 4], show_progress_bar=False) for number in range(THREADS)]
    found = at_once(lambda n: [door.encode(rows[: 1 + n % 4], show_progress_bar=False) for _ in range(ROUNDS)])
    for number, answers in enumerate(found):
        assert all(np.array_equal(vectors, expected[number]) for vectors in answers)


def test_an_image_that_all_threads_share_is_read_once(tmp_path: Path) -> None:
    """PIL reads a file that it has opened when it is first needed, wherever another thread has moved it."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    for _ in range(5):
        opened = Image.open(io.BytesIO(stream.getvalue()))
        found = at_once(lambda number, opened=opened: np.asarray(load_image(opened)))
        assert all(np.array_equal(loaded, pixels) for loaded in found)


def test_filters_of_warnings_stay(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    before = list(warnings.filters)
    at_once(lambda number: [image_files.measure_image(tmp_path / "a.png") for _ in range(200)])
    assert warnings.filters == before


def test_a_copied_lock_is_open() -> None:
    lock = CopyableLock()
    with lock:
        for copied in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
            assert at_once(lambda number, copied=copied: copied.__enter__() is copied, count=1) == [True]
