"""`encode`: packs equal rows alone, sizes are known beforehand, bad rows are named, and memory may run out."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling.encoding import is_out_of_memory
from xvlm2vec.modeling.images import ImageError, measure_image
from xvlm2vec.modeling.row_lengths import UNSEEN, measure_rows
from xvlm2vec.modeling.rows import BadRowsError, TextImageRow, make_rows

PACKED = [
    "qwen2_vl", "qwen3_vl", "llava", "llava_next-mistral", "llava_onevision", "idefics3", "internvl", "phi3_v",
    "gemma3",
]  # fmt: skip
PADDED = ["paligemma"]
SHORTFALL = 1e-5
WORDS = ["a red bicycle", "ein rotes Fahrrad lehnt an der Wand der alten Bäckerei", "自転車", "query"]


def load(checkpoint: Callable[[str], Path], name: str, **options: Any) -> XVLM2VecModel:
    return XVLM2VecModel.from_backbone(checkpoint(name), **options)


def rows_of_all_kinds(images: list[Any]) -> tuple[list[str | None], list[Any]]:
    """Four texts on one image, two on two images, a lone image, texts of many lengths."""
    texts = [*WORDS, *WORDS[:2], None, "alone", *WORDS, "long " * 30]
    return texts, [*[images[0]] * 4, *[images[2:4]] * 2, images[1], images[1:4], *[None] * 5]


def shortfall(one: Any, other: Any) -> float:
    return float((1 - (np.asarray(one) * np.asarray(other)).sum(axis=-1)).max())


class Passes:
    """Counts forward passes, the tokens of each, and those of the language model."""

    def __init__(self, model: XVLM2VecModel) -> None:
        self.tokens: list[int] = []
        model.get_input_embeddings().register_forward_hook(lambda _, given, __: self.tokens.append(given[0].numel()))


@pytest.mark.parametrize("name", [*PACKED, *PADDED])
def test_any_batch_gives_the_vectors_of_rows_alone(
    checkpoint: Callable[[str], Path], images: list[Any], name: str
) -> None:
    model = load(checkpoint, name)
    texts, row_images = rows_of_all_kinds(images)
    inputs = [model.processor(text=[text], images=[shown]) for text, shown in zip(texts, row_images, strict=True)]
    with torch.no_grad():
        plain = [model(**one).embeddings[0].numpy() for one in inputs]
    passes = Passes(model)
    together = model.encode(text=texts, images=row_images)
    in_one = sum(passes.tokens)
    assert shortfall(together, plain) < SHORTFALL
    assert shortfall(model.encode(text=texts, images=row_images, max_tokens_per_batch=100), plain) < SHORTFALL
    every = sum(one["input_ids"].numel() for one in inputs)
    assert (in_one < every) is (name in PACKED), "shared prefixes are computed once, and nothing is padded"


def test_attention_that_takes_no_packs_is_padded(checkpoint: Callable[[str], Path], images: list[Any]) -> None:
    texts, row_images = rows_of_all_kinds(images)
    packed = load(checkpoint, "qwen2_vl").encode(text=texts, images=row_images)
    eager = load(checkpoint, "qwen2_vl", attn_implementation="eager").encode(text=texts, images=row_images)
    assert shortfall(packed, eager) < SHORTFALL


def test_texts_cost_their_tokens_and_no_more(checkpoint: Callable[[str], Path]) -> None:
    model = load(checkpoint, "qwen2_vl")
    texts = [f"{number}{' word' * (number % 40)}" for number in range(60)]  # that begin in different ways
    tokens = sum(model.processor.row_lengths(make_rows(texts, None)[0]))
    passes = Passes(model)
    model.encode(text=texts, max_tokens_per_batch=tokens // 4)
    assert sum(passes.tokens) == tokens
    assert max(passes.tokens) <= tokens // 4
    assert len(passes.tokens) <= 6


def test_little_of_padded_batches_is_padding(checkpoint: Callable[[str], Path]) -> None:
    """All rows were one batch as long as the budget allowed, the shortest padded to the longest."""
    model = load(checkpoint, "llava", attn_implementation="eager")
    texts = ["word " * min(2 + number // 10, 10 * number // 150) + "end" for number in range(600)]
    tokens = sum(model.processor.row_lengths(make_rows(texts, None)[0]))
    passes = Passes(model)
    vectors = model.encode(text=texts, max_tokens_per_batch=100_000)
    assert sum(passes.tokens) < 1.4 * tokens
    assert min(passes.tokens[:-1]) >= 1024, "small batches would cost more than padding"
    assert shortfall(vectors[::37], model.encode(text=texts[::37])) < SHORTFALL


def test_an_instruction_costs_its_tokens_once(checkpoint: Callable[[str], Path]) -> None:
    model = load(checkpoint, "qwen2_vl")
    instruction = "represent the query for finding the image that it describes: " * 4
    tokens = sum(model.processor.row_lengths(make_rows(WORDS, None, instruction)[0]))
    plain = [model.encode(text=[instruction + word])[0] for word in WORDS]
    passes = Passes(model)
    assert shortfall(model.encode(text=WORDS, instruction=instruction), plain) < SHORTFALL
    assert sum(passes.tokens) < tokens / 2


def test_mean_pooling(checkpoint: Callable[[str], Path], images: list[Any]) -> None:
    model = load(checkpoint, "llava_next-llama", pooling="mean")
    texts, row_images = rows_of_all_kinds(images)
    together = model.encode(text=texts, images=row_images)
    alone = [model.encode(text=[t], images=[i])[0] for t, i in zip(texts, row_images, strict=True)]
    assert shortfall(together, alone) < SHORTFALL


def test_the_mode_of_the_model_stays(checkpoint: Callable[[str], Path]) -> None:
    model = load(checkpoint, "qwen2_vl").train()
    model.encode(text=WORDS)
    assert model.training
    assert model.backbone.config.get_text_config()._attn_implementation == "sdpa"
    with pytest.raises(BadRowsError):
        model.encode(text=["<|image_pad|>"])
    assert model.training


def test_no_rows(checkpoint: Callable[[str], Path]) -> None:
    assert load(checkpoint, "qwen2_vl").encode(text=[]).shape == (0, 32)


class TestSizes:
    @pytest.mark.parametrize("name", [*PACKED, *PADDED])
    def test_tokens_are_those_of_the_processor(
        self, checkpoint: Callable[[str], Path], images: list[Any], name: str
    ) -> None:
        processor = XVLM2VecProcessor.from_pretrained(checkpoint(name))
        sizes = [(40, 40), (5, 200), (300, 90), (700, 700)]
        row_images = [*images, *(Image.new("RGB", size) for size in sizes), images[1:3], None]
        rows, _ = make_rows(["a red bicycle"] * len(row_images), row_images)
        real = [int(processor.prepare([row])[0]["attention_mask"].sum()) for row in rows]
        found = processor.row_lengths(rows)
        assert abs(real[-1] - found[-1]) <= 2, "a text is counted but for marks that some processors write around it"
        for own, guess, row in zip(real, found, rows, strict=True):
            marks = 8 * max(len(row.images), 1)  # Gemma 3 writes seven tokens around an image
            assert own <= guess + marks
            # LLaVA-OneVision shows several images smaller.
            assert guess <= own + marks or len(row.images) > 1

    def test_a_processor_that_cannot_count(
        self, checkpoint: Callable[[str], Path], images: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        processor = XVLM2VecProcessor.from_pretrained(checkpoint("llava"))
        rows, _ = make_rows(["a"], [images[0]])
        before = processor.row_lengths(rows)
        monkeypatch.setattr(type(processor.inner), "_get_num_multimodal_tokens", None)
        assert before[0] <= processor.row_lengths(rows)[0] <= before[0] + 8

    def test_only_the_beginning_of_a_file_is_read(self, tmp_path: Path) -> None:
        Image.new("RGB", (60, 40)).save(tmp_path / "flat.png")
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.new("RGB", (60, 40)).save(tmp_path / "turned.jpg", exif=turned)
        (tmp_path / "cut.png").write_bytes((tmp_path / "flat.png").read_bytes()[:60])
        assert measure_image(tmp_path / "flat.png") == (60, 40)
        assert measure_image(str(tmp_path / "turned.jpg")) == (40, 60)
        assert measure_image(tmp_path / "cut.png") == (60, 40)
        assert measure_image(np.zeros((4, 9, 3), dtype=np.uint8)) == (9, 4)
        assert measure_image("http://127.0.0.1:1/x.png", allow_urls=True) is None
        with pytest.raises(ImageError, match=r"p: .*URLs are not fetched"):
            measure_image("http://127.0.0.1:1/x.png", name="p")
        with pytest.raises(ImageError, match="p: there is no file"):
            measure_image(tmp_path / "no.png", name="p")

    def test_a_url_is_not_fetched_to_be_measured(self, checkpoint: Callable[[str], Path]) -> None:
        processor = XVLM2VecProcessor.from_pretrained(checkpoint("qwen2_vl"), allow_urls=True)
        size = measure_rows(processor, [TextImageRow("a", ("http://127.0.0.1:1/x.png",))])[0]
        assert size.pixels == UNSEEN[0] * UNSEEN[1]


def mixed_rows(images: list[Any], folder: Path) -> tuple[list[Any], list[Any], dict[int, str]]:
    """Twenty rows of which five are bad, each in its own way, and what is wrong with them."""
    images[0].save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    texts: list[Any] = [f"row {number}" for number in range(20)]
    row_images: list[Any] = [None, images[1]] * 10
    texts[3], row_images[3] = None, []
    texts[8] = "see <|image_pad|>"
    row_images[11] = str(folder / "no.png")
    row_images[17] = str(folder / "cut.png")
    texts[19] = 5
    problems = {
        3: "row 3 has neither text nor image",
        8: "row 8: the text holds '<|image_pad|>'",
        11: "row 11, image 0: there is no file",
        17: "row 17, image 0: cannot be read as an image",
        19: "row 19: text is a int, not a string",
    }
    return texts, row_images, problems


class TestBadRows:
    @pytest.mark.parametrize("budget", [16_384, 40])
    def test_one_error_names_all(
        self, checkpoint: Callable[[str], Path], images: list[Any], tmp_path: Path, budget: int
    ) -> None:
        texts, row_images, problems = mixed_rows(images, tmp_path)
        model = load(checkpoint, "qwen2_vl")
        passes = Passes(model)
        with pytest.raises(BadRowsError, match="5 of 20 rows cannot be embedded: row 3 has") as caught:
            model.encode(text=texts, images=row_images, max_tokens_per_batch=budget)
        assert list(caught.value.problems) == list(problems)
        assert all(found.startswith(problems[row]) for row, found in caught.value.problems.items())
        assert not passes.tokens, "nothing is embedded when rows are known to be bad"
        assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems

    @pytest.mark.parametrize("name", ["qwen2_vl", "paligemma"])
    def test_nan_and_a_warning(
        self,
        checkpoint: Callable[[str], Path],
        images: list[Any],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        name: str,
    ) -> None:
        texts, row_images, problems = mixed_rows(images, tmp_path)
        texts[8] = "see <image>" if name == "paligemma" else texts[8]
        model = load(checkpoint, name)
        with caplog.at_level(logging.WARNING, "xvlm2vec"):
            vectors = model.encode(text=texts, images=row_images, bad_rows="nan", max_tokens_per_batch=100)
        assert np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist() == list(problems)
        assert "5 of 20 rows cannot be embedded: row 3 has" in caplog.text
        assert "Their vectors are NaN" in caplog.text
        good = [row for row in range(20) if row not in problems]
        alone = model.encode(text=[texts[row] for row in good], images=[row_images[row] for row in good])
        assert shortfall(vectors[good], alone) < SHORTFALL

    def test_several_texts_of_which_one_is_bad(self, checkpoint: Callable[[str], Path], images: list[Any]) -> None:
        model = load(checkpoint, "idefics3")
        model.processor.max_length = 90
        image, long = images[0], "long " * 200
        vectors = model.encode(text=["one", "<image>", "two"], images=[image] * 3, instruction="see: ", bad_rows="nan")
        assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False]
        with pytest.warns(UserWarning, match="1 of 2 rows were cut"):
            together = model.encode(text=["short", long], images=[image] * 2)
        with pytest.warns(UserWarning, match="1 of 1 rows were cut"):
            alone = model.encode(text=[long], images=[image])
        assert shortfall(together[1], alone[0]) < SHORTFALL

    def test_a_row_that_cannot_be_cut_short_enough(self, checkpoint: Callable[[str], Path], images: list[Any]) -> None:
        model = load(checkpoint, "idefics3")
        with pytest.raises(BadRowsError, match=r"1 of 2 rows .*row 1: images, instruction and the last token take"):
            model.encode(text=["a", "a red bicycle"], images=[None, images[0]], max_length=8)

    def test_an_error_about_many_rows_stays_readable(self) -> None:
        message = str(BadRowsError({row: f"row {row} is bad" for row in range(30)}, 40))
        assert message.startswith("30 of 40 rows cannot be embedded: row 0 is bad; row 1 is bad; ")
        assert message.endswith("row 19 is bad; and rows 20, 21, 22, 23, 24, 25, 26, 27, 28, 29")

    def test_unknown_ways(self, checkpoint: Callable[[str], Path]) -> None:
        model = load(checkpoint, "qwen2_vl")
        with pytest.raises(ValueError, match="bad_rows='skip' is unknown; choose one of raise, nan"):
            model.encode(text=["a"], bad_rows="skip")
        with pytest.raises(ValueError, match="max_tokens_per_batch=0 must be at least 1"):
            model.encode(text=["a"], max_tokens_per_batch=0)


def scarce(model: XVLM2VecModel, tokens: int, error: BaseException) -> list[int]:
    """Makes forward passes of more than so many tokens fail as if memory ran out; returns the sizes that were tried."""
    tried: list[int] = []

    def hook(_: Any, given: tuple[Any, ...]) -> None:
        tried.append(given[0].numel())
        if given[0].numel() > tokens:
            raise error

    model.get_input_embeddings().register_forward_pre_hook(hook)
    return tried


ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "linux": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "windows": RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "python": MemoryError(),
}


class TestMemory:
    @pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
    @pytest.mark.parametrize("name", ["qwen2_vl", "paligemma"])
    def test_batches_are_halved(
        self,
        checkpoint: Callable[[str], Path],
        images: list[Any],
        caplog: pytest.LogCaptureFixture,
        name: str,
        error: BaseException,
    ) -> None:
        texts, row_images = rows_of_all_kinds(images)
        expected = load(checkpoint, name).encode(text=texts, images=row_images)
        model = load(checkpoint, name)
        limit = max(model.processor.row_lengths(make_rows(texts, row_images)[0])) + 8
        tried = scarce(model, limit, error)
        with caplog.at_level(logging.WARNING, "xvlm2vec"):
            vectors = model.encode(text=texts, images=row_images)
        assert shortfall(vectors, expected) < SHORTFALL
        assert "Memory ran out" in caplog.text
        assert "going on with batches of" in caplog.text
        assert 0 < len([size for size in tried if size > limit]) < 8, "batches behind a failed one are no larger"

    def test_a_row_that_does_not_fit_alone(self, checkpoint: Callable[[str], Path]) -> None:
        model = load(checkpoint, "qwen2_vl")
        texts = [*WORDS, "long " * 60, *WORDS]
        tried = scarce(model, 40, ERRORS["linux"])
        with pytest.raises(BadRowsError, match=r"1 of 9 rows .*row 4: memory runs out on this row alone"):
            model.encode(text=texts)
        vectors = model.encode(text=texts, bad_rows="nan")
        assert np.isnan(vectors).any(axis=1).tolist() == [row == 4 for row in range(9)]
        assert tried

    def test_rows_that_were_cut_are_counted_once(self, checkpoint: Callable[[str], Path]) -> None:
        model = load(checkpoint, "qwen2_vl")
        scarce(model, 40, ERRORS["linux"])
        with pytest.warns(UserWarning, match="3 of 6 rows were cut"):
            model.encode(text=["long " * 60] * 3 + WORDS[:3], max_length=12)

    def test_other_failures_are_raised(self, checkpoint: Callable[[str], Path]) -> None:
        model = load(checkpoint, "qwen2_vl")
        scarce(model, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            model.encode(text=WORDS)
        assert not is_out_of_memory(ValueError("out of memory"))

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
    def test_memory_that_really_runs_out(self, checkpoint: Callable[[str], Path]) -> None:
        command = [sys.executable, "-c", REALLY_SCARCE, str(checkpoint("qwen2_vl"))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert "Memory ran out" in done.stderr


REALLY_SCARCE = """
import logging, resource, sys
import torch
from xvlm2vec import XVLM2VecModel
torch.set_num_threads(1)
logging.basicConfig()
model = XVLM2VecModel.from_backbone(sys.argv[1])
texts = [f"{number}{' word' * 50}" for number in range(800)]
expected = model.encode(text=texts[:8])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, resource.RLIM_INFINITY))
vectors = model.encode(text=texts, max_tokens_per_batch=10**7)
assert abs(vectors[:8] - expected).max() < 1e-5
"""


def test_half_of_a_surrogate_pair_is_a_bad_row(checkpoint: Callable[[str], Path]) -> None:
    model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"))
    with pytest.raises(BadRowsError, match=r"row 1: the text cannot be written as UTF-8 \('\\ud800' at character 2\)"):
        model.encode(text=["a", "b \ud800", "c"])
    vectors = model.encode(text=["a", "\ud800", "c"], bad_rows="nan")
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="row 0: the text cannot be written as UTF-8"):
        model.processor(text=["\ud800"])
