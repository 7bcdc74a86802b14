"""The processor: rows of every kind, truncation of the user's text only, and bad rows named."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.modeling import image_tokens as expansion
from xvlm2vec.modeling.images import ImageError
from xvlm2vec.modeling.rows import BadRowsError

CUT_FAMILIES = [
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
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
INSTRUCTION = "represent the query: "
LONG = "a red bicycle leans against the wall of the old bakery " * 8


@pytest.fixture(scope="module")
def processors(checkpoint: Callable[[str], Path]) -> Callable[..., XVLM2VecProcessor]:
    return lambda name, **options: XVLM2VecProcessor.from_pretrained(checkpoint(name), **options)


def ids(processor: XVLM2VecProcessor, **call: Any) -> list[int]:
    batch = processor(**call)
    return batch["input_ids"][0][batch["attention_mask"][0].bool()].tolist()


def image_ids(processor: XVLM2VecProcessor, name: str, count: int) -> torch.Tensor:
    """Ids that stand for images in rows of so many images."""
    if name == "phi3_v":
        return -torch.arange(1, count + 1)
    owner = processor.inner.tokenizer if name == "gemma3" else processor.inner
    return torch.tensor([owner.image_token_id])


class TestTruncation:
    @pytest.mark.parametrize("name", CUT_FAMILIES)
    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_only_text_is_cut(
        self, processors: Callable[..., XVLM2VecProcessor], images: list[Any], name: str, count: int
    ) -> None:
        processor = processors(name)
        call = {"text": [LONG], "images": [images[:count]], "instruction": INSTRUCTION}
        whole = ids(processor, **call)
        fixed = ids(processor, **{**call, "text": [""]})
        for limit in (len(fixed) + 4, len(whole) - 1):
            with pytest.warns(UserWarning, match=f"1 of 1 rows were cut to fit max_length={limit}"):
                cut = ids(processor, **call, max_length=limit)
            assert len(cut) == limit
            after = len(processor.family.after_text)
            kept = limit - 1 - after
            assert cut[:kept] == whole[:kept]  # images, instruction, and the text's beginning
            assert cut[-1] == whole[-1]  # the pooled token
            tokens = torch.tensor(whole)
            placeholders = image_ids(processor, name, count)
            assert torch.isin(torch.tensor(cut), placeholders).sum() == torch.isin(tokens, placeholders).sum()
            assert torch.isin(tokens, placeholders).any() == bool(count)

    def test_short_rows_stay(self, processors: Callable[..., XVLM2VecProcessor]) -> None:
        processor = processors("qwen2_vl")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            free = processor(text=["a red bicycle", "query"])
            assert torch.equal(
                free["input_ids"], processor(text=["a red bicycle", "query"], max_length=20)["input_ids"]
            )

    def test_per_token_inputs_are_cut_alike(
        self, processors: Callable[..., XVLM2VecProcessor], images: list[Any]
    ) -> None:
        processor = processors("qwen2_vl")
        with pytest.warns(UserWarning, match="cut"):
            batch = processor(text=[LONG, "query"], images=[images[0], None], max_length=30)
        assert batch["input_ids"].shape == batch["mm_token_type_ids"].shape == batch["attention_mask"].shape == (2, 30)
        assert torch.equal(batch["mm_token_type_ids"].bool(), batch["input_ids"] == processor.inner.image_token_id)

    def test_what_may_not_be_cut_is_too_long(
        self, processors: Callable[..., XVLM2VecProcessor], images: list[Any]
    ) -> None:
        with pytest.raises(ValueError, match=r"row 1: images, instruction and the last token take \d+ tokens"):
            processors("idefics3")(text=["a", "a red bicycle"], images=[None, images[0]], max_length=8)

    def test_warns_once_with_a_count(self, processors: Callable[..., XVLM2VecProcessor]) -> None:
        processor = processors("qwen2_vl")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                processor(text=[LONG, "query", LONG], max_length=12)
        assert ["2 of 3 rows" in str(warning.message) for warning in caught] == [True]

    def test_encode_counts_all_rows(self, checkpoint: Callable[[str], Path]) -> None:
        model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"))
        texts = [LONG] * 5 + ["query"]
        with pytest.warns(UserWarning, match="5 of 6 rows") as caught:
            short = model.encode(text=texts, max_length=12, max_tokens_per_batch=24)
        assert len(caught) == 1
        assert not np.allclose(short[0], model.encode(text=texts)[0])

    def test_saved_setting(self, processors: Callable[..., XVLM2VecProcessor], tmp_path: Path) -> None:
        processor = processors("qwen2_vl", max_length=9)
        processor.save_pretrained(tmp_path)
        loaded = XVLM2VecProcessor.from_pretrained(tmp_path)
        assert loaded.max_length == 9
        with pytest.warns(UserWarning, match="max_length=9"):
            assert loaded(text=[LONG])["input_ids"].shape == (1, 9)
        assert XVLM2VecProcessor.from_pretrained(tmp_path, max_length=None).max_length is None

    def test_the_backbones_context_is_the_default(self, processors: Callable[..., XVLM2VecProcessor]) -> None:
        processor = processors("gemma3")
        assert processor.max_length == 2048
        with pytest.warns(UserWarning, match="max_length=2048"):
            assert processor(text=["a" * 200_000])["input_ids"].shape == (1, 2048)

    def test_tokenizers_limit_counts(self, processors: Callable[..., XVLM2VecProcessor]) -> None:
        processor = processors("idefics3")
        processor.tokenizer.model_max_length = 10
        with pytest.warns(UserWarning, match="max_length=10"):
            assert processor(text=[LONG])["input_ids"].shape == (1, 10)

    def test_vector_is_that_of_the_kept_tokens(self, checkpoint: Callable[[str], Path]) -> None:
        folder = checkpoint("llava_next-llama")
        model, processor = XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)
        with pytest.warns(UserWarning, match="cut"):
            cut = processor(text=[LONG], max_length=20)
        with torch.no_grad():
            vector = model(**cut).embeddings[0].numpy()
        with pytest.warns(UserWarning, match="cut"):
            assert np.allclose(model.encode(text=LONG, max_length=20, processor=processor), vector, atol=1e-6)


class TestBlankImages:
    @pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
    @pytest.mark.parametrize("settings", [{"image_mean": [128 / 255] * 3}, {"do_normalize": False}])
    def test_an_all_zero_image_counts(
        self,
        checkpoint: Callable[[str], Path],
        images: list[Any],
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        settings: dict[str, Any],
    ) -> None:
        folder = checkpoint(name)
        model, processor = XVLM2VecModel.from_backbone(folder), XVLM2VecProcessor.from_pretrained(folder)
        for key, value in settings.items():
            setattr(processor.inner.image_processor, key, value)
        blank = Image.new("RGB", (40, 40), (128 if "image_mean" in settings else 0,) * 3)
        texts, row_images = ["a", "a", "query"], [[blank], [images[0]], [images[1], blank]]
        batch = processor(text=texts, images=row_images)
        values = batch["pixel_values"][0]
        assert values.abs().max() <= expansion.BLANK_VALUE
        with torch.no_grad():
            vectors = model(**batch).embeddings.numpy()
        # So small that it is zero to every sum, and yet not zero to the backbone: what an exact zero would give.
        monkeypatch.setattr(expansion, "BLANK_VALUE", 1e-30)
        for vector, text, found in zip(vectors, texts, row_images, strict=True):
            exact = model.encode(text=text, images=found, processor=processor)
            assert vector @ exact > 1 - 1e-5


class TestRows:
    def test_texts_that_look_like_paths_and_urls_are_texts(
        self, processors: Callable[..., XVLM2VecProcessor], tmp_path: Path, images: list[Any]
    ) -> None:
        processor = processors("qwen2_vl")
        path = tmp_path / "image.png"
        images[0].save(path)
        batch = processor(text=[str(path), "https://localhost/image.png", "data:image/png;base64,AAAA"])
        assert set(batch) == {"input_ids", "attention_mask"}
        assert processor(text=["a"], images=[str(path)])["pixel_values"].shape[0] > 0

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ({}, "Pass `text`, `images`, or both"),
            ({"text": ["a", None]}, "row 1 has neither text nor image"),
            ({"text": [None], "images": [None]}, "row 0 has neither text nor image"),
            ({"text": ["a", None], "images": [None, []]}, "row 1 has neither text nor image"),
            ({"text": ["a", 3]}, "row 1: text is a int, not a string"),
            ({"text": ["a"], "images": [None, None]}, "1 texts and 2 images"),
            ({"text": ["a", "b"], "images": [None, 5]}, "row 1, image 0: a int is not an image"),
            ({"text": ["a", "b"], "images": [None, ["no.png"]]}, "row 1, image 0: there is no file 'no.png'"),
            ({"text": ["a", ""]}, "row 1: the text is empty"),
            ({"text": ["a", "see <|image_pad|>"]}, r"row 1: the text holds '<\|image_pad\|>'"),
            ({"text": ["a"], "instruction": "<|vision_start|>"}, r"row 0: the text holds '<\|vision_start\|>'"),
            ({"text": ["a"], "padding_side": "up"}, "padding_side='up' is unknown"),
            ({"text": ["a"], "return_tensors": "np"}, "padded torch tensors"),
        ],
    )
    def test_bad_rows_are_named(
        self, processors: Callable[..., XVLM2VecProcessor], call: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            processors("qwen2_vl")(**call)

    @pytest.mark.parametrize(
        ("name", "token"),
        [
            ("llava_next-llama", "<image>"),
            ("llava_onevision", "<video>"),
            ("idefics3", "<fake_token_around_image>"),
            ("smolvlm", "<image>"),
            ("internvl", "<IMG_CONTEXT>"),
            ("gemma3", "<image_soft_token>"),
            ("gemma3", "<start_of_image>"),
            ("paligemma", "<image>"),
        ],
    )
    def test_image_tokens_in_texts(
        self, processors: Callable[..., XVLM2VecProcessor], images: list[Any], name: str, token: str
    ) -> None:
        with pytest.raises(ValueError, match=f"row 0: the text holds '{token}'"):
            processors(name)(text=[f"two {token} {token}"], images=[images[0]])

    def test_encode_names_the_row_of_the_whole_call(self, checkpoint: Callable[[str], Path], images: list[Any]) -> None:
        model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"))
        with pytest.raises(BadRowsError, match="1 of 5 rows cannot be embedded: row 4, image 1: there is no file"):
            model.encode(
                text=["a", "a much longer text", "b", "c", "d"],
                images=[None, None, None, images[0], [images[1], "no.png"]],
                max_tokens_per_batch=1,
            )

    def test_an_image_that_the_backbone_refuses_is_named(
        self, processors: Callable[..., XVLM2VecProcessor], images: list[Any]
    ) -> None:
        processor = processors("idefics3")
        with pytest.raises(ImageError, match=r"row 0: Idefics3Processor refuses images of 40 x 40:"):
            processor(text=["a", "b"], images=images[:2], max_image_size={"longest_edge": -1})

    def test_long_images_are_refused_by_row(self, processors: Callable[..., XVLM2VecProcessor]) -> None:
        with pytest.raises(ImageError, match="row 1, image 0: 300 x 1 pixels are longer than 200 to 1"):
            processors("qwen2_vl")(images=[Image.new("L", (9, 9)), Image.new("L", (300, 1))])

    @pytest.mark.parametrize("name", ["qwen2_vl", "llava_next-llama", "idefics3", "internvl", "gemma3", "paligemma"])
    def test_small_and_long_images(self, checkpoint: Callable[[str], Path], name: str) -> None:
        model = XVLM2VecModel.from_backbone(checkpoint(name))
        sizes = [(1, 1), (1, 40), (3, 3), (400, 3)]
        vectors = model.encode(images=[Image.new("RGB", size, (9, 200, 30)) for size in sizes])
        assert np.isfinite(vectors).all()

    def test_urls_need_to_be_asked_for(self, processors: Callable[..., XVLM2VecProcessor], tmp_path: Path) -> None:
        processor = processors("qwen2_vl", allow_urls=True)
        with pytest.raises(ImageError, match="row 0, image 0: cannot be read"):
            processor(images=["http://127.0.0.1:1/x.png"])
        processor.save_pretrained(tmp_path)
        loaded = XVLM2VecProcessor.from_pretrained(tmp_path)
        with pytest.raises(ImageError, match="not fetched unless allow_urls=True"):
            loaded(images=["http://127.0.0.1:1/x.png"])


class TestLoading:
    def test_budget_of_pixels(self, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
        source = checkpoint("qwen2_vl")
        for file in source.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
        settings["size"] = {"shortest_edge": 56 * 56, "longest_edge": 16384 * 28 * 28}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        limited = XVLM2VecProcessor.from_pretrained(tmp_path)
        assert limited.inner.image_processor.size["longest_edge"] == 1280 * 28 * 28
        grid = limited(images=[Image.new("RGB", (3000, 3000))])["image_grid_thw"]
        assert grid.prod() // 4 <= 1280
        own = {"shortest_edge": 56 * 56, "longest_edge": 2000 * 28 * 28}
        free = XVLM2VecProcessor.from_pretrained(tmp_path, size=own)
        assert free.inner.image_processor.size["longest_edge"] == 2000 * 28 * 28

    def test_budget_is_kept_when_saved(self, processors: Callable[..., XVLM2VecProcessor], tmp_path: Path) -> None:
        processor = processors("qwen2_vl")
        before = dict(processor.inner.image_processor.size)
        processor.save_pretrained(tmp_path)
        assert dict(XVLM2VecProcessor.from_pretrained(tmp_path).inner.image_processor.size) == before

    def test_unknown_family_without_image_token(self, processors: Callable[..., XVLM2VecProcessor]) -> None:
        processor = processors("qwen2_vl")
        processor.model_type = "some_new_vl"
        processor.inner.image_token = None
        assert processor(text=["a"])["input_ids"].shape == (1, 1)
        with pytest.raises(ValueError, match="'some_new_vl' has no entry in `families`"):
            processor(images=[Image.new("L", (40, 40))])

    def test_phi_texts_begin_with_bos_whatever_the_tokenizer_says(
        self, processors: Callable[..., XVLM2VecProcessor], images: list[Any]
    ) -> None:
        processor = processors("phi3_v")
        with_bos = ids(processor, text=["a red bicycle"])
        processor.tokenizer.add_bos_token = False
        assert processor.tokenizer("a")["input_ids"][0] != processor.tokenizer.bos_token_id
        assert ids(processor, text=["a red bicycle"]) == with_bos
        mixed = processor(text=["a red bicycle", "query"], images=[None, images[0]], padding_side="right")
        assert mixed["input_ids"][0, : len(with_bos)].tolist() == with_bos
        assert mixed["input_ids"][1, :2].tolist() == [processor.tokenizer.bos_token_id, -1]

    def test_no_processor(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
        with pytest.raises(ValueError, match="knows no processor for a 'gpt2' model"):
            XVLM2VecProcessor.from_pretrained(tmp_path)
