"""No argument of a call is swallowed: what nobody would look at is an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xvlm2vec import XVLM2VecModel, XVLM2VecProcessor

FAMILIES = ["qwen2_vl", "idefics3", "phi3_v", "gemma3"]
MESSAGES = [{"role": "user", "content": "a red bicycle leans against the wall"}]


@pytest.fixture(scope="module", params=FAMILIES)
def processor(checkpoint: Callable[[str], Path], request: pytest.FixtureRequest) -> XVLM2VecProcessor:
    return XVLM2VecProcessor.from_pretrained(checkpoint(request.param))


@pytest.mark.parametrize("name", ["instructions", "max_lengths", "dim", "truncation", "text_kwargs"])
def test_unknown_arguments_of_a_call(processor: XVLM2VecProcessor, images: list[Any], name: str) -> None:
    for call in ({"text": ["a"]}, {"images": [images[0]]}, {"text": ["a", "b"], "images": [images[0], None]}):
        with pytest.raises(TypeError, match=f"takes no argument '{name}', so it would be ignored"):
            processor(**call, **{name: 5})


def test_what_was_meant(processor: XVLM2VecProcessor) -> None:
    with pytest.raises(TypeError, match="Did you mean 'instruction'"):
        processor(text=["a"], instructions="see: ")


def test_arguments_of_the_backbones_processor_reach_it(checkpoint: Callable[[str], Path], images: list[Any]) -> None:
    qwen, phi = (XVLM2VecProcessor.from_pretrained(checkpoint(name)) for name in ("qwen2_vl", "phi3_v"))
    for processor, option in ((qwen, {"max_pixels": 28 * 28 * 4, "min_pixels": 28 * 28}), (phi, {"num_crops": 4})):
        shown = {"text": ["a"], "images": [images[1]]}
        assert processor(**shown)["pixel_values"].shape != processor(**shown, **option)["pixel_values"].shape
        assert torch.equal(processor(text=["a"], **option)["input_ids"], processor(text=["a"])["input_ids"])


def test_encode_has_no_others(checkpoint: Callable[[str], Path]) -> None:
    model = XVLM2VecModel.from_backbone(checkpoint("qwen2_vl"))
    with pytest.raises(TypeError, match="truncate_dims"):
        model.encode(text=["a"], truncate_dims=16)


@pytest.mark.filterwarnings("ignore:The texts of")
def test_arguments_of_a_chat_template(processor: XVLM2VecProcessor) -> None:
    usual = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    short = processor(text=[MESSAGES[0]["content"]], max_length=6)["input_ids"]
    for options in ({"max_length": 6}, {"processor_kwargs": {"max_length": 6}},
                    {"processor_kwargs": {"text_kwargs": {"max_length": 6, "truncation": True}}}):  # fmt: skip
        assert torch.equal(processor.apply_chat_template([MESSAGES], **usual, **options)["input_ids"], short)
    for options, fault in (
        ({"chat_template": "{{ messages }}"}, "'chat_template' has no meaning"),
        ({"tools": [{"name": "a"}]}, "'tools' has no meaning"),
        ({"tokenize": False}, "'tokenize=False' has no meaning"),
    ):
        with pytest.raises(ValueError, match=fault):
            processor.apply_chat_template([MESSAGES], **options)
    for options in ({"num_frames": 4}, {"processor_kwargs": {"images_kwargs": {"sizes": 4}}}):
        with pytest.raises(TypeError, match=r"takes no argument '(num_frames|sizes)'"):
            processor.apply_chat_template([MESSAGES], **options)
