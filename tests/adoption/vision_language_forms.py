"""Tiny vision-language embedders in saved form: the published checkpoint's files, a chat template, and the chain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from saved_chain import MESSAGES, checkpoints, enlarged, save_chain, save_transformer
from sentence_transformers.base.modules import Dense, Module, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling

WIDTH = checkpoints.LLM["hidden_size"]
TEMPLATES = Path(__file__).parent / "chat_templates"
# What the chat templates write, one token each.
MARKS = {
    "qwen": ["<|im_start|>", "<|im_end|>"],
    "gemma3": ["<start_of_turn>", "<end_of_turn>"],
    "smolvlm": ["<|begin_of_text|>"],
    "llava": [],
}
INSTRUCTION = "Represent the user's input."
SEARCH = {"query": "Find the image that fits this text.", "document": ""}


def save_checkpoint(folder: Path, family: str, template: str, marks: list[str]) -> None:
    """The checkpoint as its authors publish it: the language-model head, its keys, and a chat template."""
    config, processor = checkpoints.BUILDERS[family]()
    tokenizer = processor.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.add_bos_token = tokenizer.bos_token is not None  # Llama's and Gemma's
    config.text_config.vocab_size = len(tokenizer)
    save_transformer(folder, enlarged(transformers.AutoModelForImageTextToText, config), processor)
    text = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def form(
    family: str, *heads: Module, pooling: str, template: str | None = None, **settings: Any
) -> Callable[[Path], None]:
    """A builder of one embedder: a family of `tests/modeling/conftest.py`, a template, the modules behind it."""

    def build(folder: Path) -> None:
        save_checkpoint(folder, family, template or family, MARKS["qwen" if "qwen" in family else family])
        save_chain(folder, [Pooling(WIDTH, pooling), *heads], MESSAGES, **settings)

    return build


def heads() -> list[Module]:
    """The two projections of EmbeddingGemma: wider, and back."""
    torch.manual_seed(0)
    sizes = [(WIDTH, 2 * WIDTH), (2 * WIDTH, WIDTH)]
    return [Dense(*size, bias=False, activation_function=torch.nn.Identity()) for size in sizes]


VISION_LANGUAGE_FORMS: dict[str, Callable[[Path], None]] = {
    "llava": form("llava", Normalize(), pooling="lasttoken"),
    "gemma3": form("gemma3", Normalize(), pooling="lasttoken", prompts=SEARCH),
    "gemma3-dense": form(
        "gemma3",
        *heads(),
        Normalize(),
        pooling="mean",
        prompts={"default": INSTRUCTION},
        default_prompt_name="default",
    ),
    "qwen3_vl": form("qwen3_vl", Normalize(), pooling="lasttoken", prompts=SEARCH),
    "qwen2_5_vl": form("qwen2_5_vl", Normalize(), pooling="lasttoken"),
    "smolvlm": form("smolvlm", Normalize(), pooling="mean"),
    # The default instruction and the full stop stand in the template, so that encode_query has them, too.
    "qwen3_vl-embedding": form(
        "qwen3_vl",
        Normalize(),
        pooling="lasttoken",
        template="qwen3_vl_embedding",
        processing_kwargs={"chat_template": {"add_generation_prompt": True}},
    ),
}
