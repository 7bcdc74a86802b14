"""The prompts that stock sentence-transformers renders for every family, written out, with the tokens' ids compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from saved_forms import NEED_TORCHVISION
from sentence_transformers import SentenceTransformer

HELPFUL = "You are a helpful assistant."
REPRESENT = "Represent the user's input."
# An image's tokens, written once.
QWEN = "<|vision_start|><|image_pad|><|vision_end|>"
GEMMA = "\n\n<start_of_image><image_soft_token><end_of_image>\n\n"
SMOL = "<fake_token_around_image><global-img><image><fake_token_around_image>"


def qwen(user: str, system: str = "", tail: str = "") -> str:
    """One turn of Qwen, behind a system turn if there is a text for it."""
    turn = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{turn}<|im_start|>user\n{user}<|im_end|>\n{tail}"


def qwen_family(system: str = "") -> dict[str, tuple[str, str]]:
    return {
        "text": (qwen("T", system), qwen("T", "P")),
        "image": (qwen(QWEN, system), qwen(QWEN, "P")),
        "image, text": (qwen(f"{QWEN}T", system), qwen(f"{QWEN}T", "P")),
        "text, image": (qwen(f"T{QWEN}", system), qwen(f"T{QWEN}", "P")),
        "two images": (qwen(f"{QWEN}{QWEN}T", system), qwen(f"{QWEN}{QWEN}T", "P")),
        "blanks": (qwen("  T ", system), qwen("  T ", "P")),
    }


def embedding(user: str) -> tuple[str, str]:
    """The default instruction, and another one with the full stop that it lacks."""
    assistant = "<|im_start|>assistant\n"
    return qwen(user, REPRESENT, assistant), qwen(user, "P.", assistant)


def gemma(user: str) -> tuple[str, str]:
    turn = "<bos><start_of_turn>user\n{}<end_of_turn>\n"
    return turn.format(user), turn.format(f"P\n\n{user}")


def smol(user: str) -> tuple[str, str]:
    turn = f"User:{user}<end_of_utterance>\n"
    return f"<|begin_of_text|>{turn}", f"<|begin_of_text|>System: P<end_of_utterance>\n{turn}"


def llava(user: str) -> tuple[str, str]:
    """The template has no BOS, so the tokenizer adds its own, and its blank before the first word."""
    return f"<s> USER: {user}", f"<s> P USER: {user}"


# Without a prompt, and with the prompt "P".
RENDERED: dict[str, dict[str, tuple[str, str]]] = {
    "qwen3_vl": qwen_family(),
    "qwen2_5_vl": qwen_family(HELPFUL),
    "qwen3_vl-embedding": {
        "text": embedding("T"),
        "image": embedding(QWEN),
        "image, text": embedding(f"{QWEN}T"),
        "text, image": embedding(f"{QWEN}T"),
        "two images": embedding(f"{QWEN}{QWEN}T"),
        "blanks": embedding("  T "),
    },
    "gemma3": {
        "text": gemma("T"),
        "image": gemma(GEMMA),
        "image, text": gemma(f"{GEMMA}T"),
        "text, image": gemma(f"T{GEMMA}"),
        "two images": gemma(f"{GEMMA}{GEMMA}T"),
        "blanks": gemma("T"),
    },
    "smolvlm": {
        "text": smol(" T"),
        "image": smol(SMOL),
        "image, text": smol(f"{SMOL}T"),
        "text, image": smol(f" T{SMOL}"),
        "two images": smol(f"{SMOL}{SMOL}T"),
        "blanks": smol("   T "),
    },
    "llava": {
        "text": llava("T "),
        "image": llava("<image>\n"),
        "image, text": llava("<image>\nT "),
        "text, image": llava("<image>\nT "),
        "two images": llava("<image>\n<image>\nT "),
        "blanks": llava("  T  "),
    },
}
GENERATION = {
    "qwen3_vl": "<|im_start|>assistant\n",
    "qwen2_5_vl": "<|im_start|>assistant\n",
    "gemma3": "<start_of_turn>model\n",
    "smolvlm": "Assistant:",
    "llava": "ASSISTANT:",
}


@pytest.fixture(scope="module")
def rows(images: list[Image.Image]) -> dict[str, Any]:
    return {
        "text": "T",
        "image": images[0],
        "image, text": {"image": images[0], "text": "T"},
        "text, image": {"text": "T", "image": images[0]},
        "two images": {"image": images[:2], "text": "T"},
        "blanks": "  T ",
    }


@pytest.fixture(scope="module")
def model(st_model: Callable[[str], Path], request: pytest.FixtureRequest) -> SentenceTransformer:
    return SentenceTransformer(str(st_model(request.param)), device="cpu")


def every_family(names: Any) -> pytest.MarkDecorator:
    vision = {name: [pytest.mark.vision] for name in NEED_TORCHVISION}
    values = [pytest.param(name, name, marks=vision.get(name, []), id=name) for name in names]
    return pytest.mark.parametrize(("model", "name"), values, indirect=["model"])


def rendered(model: SentenceTransformer, row: Any, prompt: str | None = None, **settings: Any) -> str:
    """The row's prompt, read off the ids that the model gets, with each image's tokens written once."""
    ids = model.preprocess([row], prompt=prompt, **settings)["input_ids"][0]
    text = model.tokenizer.decode(ids)
    tiles = r"<fake_token_around_image><row_1_col_1>.*?<global-img>"
    text = re.sub(tiles, "<fake_token_around_image><global-img>", text, flags=re.DOTALL)
    return re.sub(r"(<image>|<\|image_pad\|>|<image_soft_token>)\1+", r"\1", text)


@every_family(RENDERED)
def test_rows_are_rendered_as_written(model: SentenceTransformer, name: str, rows: dict[str, Any]) -> None:
    for kind, (plain, prompted) in RENDERED[name].items():
        assert rendered(model, rows[kind]) == plain, kind
        assert rendered(model, rows[kind], prompt="P") == prompted, kind


@every_family(GENERATION)
def test_a_generation_prompt_follows_the_tail(model: SentenceTransformer, name: str) -> None:
    settings = {"chat_template": {"add_generation_prompt": True}}
    plain, prompted = RENDERED[name]["text"]
    assert rendered(model, "T", processing_kwargs=settings) == plain + GENERATION[name]
    assert rendered(model, "T", prompt="P", processing_kwargs=settings) == prompted + GENERATION[name]


@every_family(["qwen3_vl-embedding"])
def test_the_full_stop_and_the_empty_row(model: SentenceTransformer, name: str) -> None:
    """An instruction gets its full stop, unless it ends in punctuation of any script; a row without content is NULL."""
    tail = "<|im_start|>assistant\n"
    for prompt, system in [(" P ", "P."), ("P?", "P?"), ("検索。", "検索。"), ("P+", "P+."), ("", REPRESENT)]:
        assert rendered(model, "T", prompt=prompt) == qwen("T", system, tail)
    assert rendered(model, "") == qwen("NULL", REPRESENT, tail)
