"""Tiny vision-language embedders in saved form: the published checkpoint's files, a chat template, and the chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from saved_chain import IMAGES, VIDEOS, checkpoints, enlarged, save_chain, save_transformer, write_json
from sentence_transformers.base.modules import Dense, Module, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling

WIDTH = checkpoints.LLM["hidden_size"]
TEMPLATES = Path(__file__).parent / "chat_templates"
QWEN_MARKS = ("<|im_start|>", "<|im_end|>")
INSTRUCTION = "Represent the user's input."
SEARCH = {"query": "Find the image that fits this text.", "document": ""}


@dataclass(frozen=True)
class Family:
    """What a family of `tests/modeling/conftest.py` needs beyond it.

    Args:
        marks: What its chat template writes, one token each.
        modalities: The `modality_config` that sentence-transformers finds for it, with torchvision.
        video_processor: The content of its `video_preprocessor_config.json`.
    """

    marks: tuple[str, ...]
    modalities: dict[str, Any]
    video_processor: dict[str, Any] | None = None


FAMILIES = {
    "llava": Family((), IMAGES),
    "gemma3": Family(("<start_of_turn>", "<end_of_turn>"), IMAGES),
    "qwen3_vl": Family(QWEN_MARKS, VIDEOS, {"video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 16}),
    "qwen2_5_vl": Family(QWEN_MARKS, VIDEOS),
    "smolvlm": Family(("<|begin_of_text|>",), VIDEOS),
}


def save_checkpoint(folder: Path, name: str, template: str, **settings: Any) -> None:
    """The checkpoint as its authors publish it: the language-model head, its keys, and a chat template."""
    family = FAMILIES[name]
    config, processor = checkpoints.BUILDERS[name]()
    tokenizer = processor.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.marks)})
    tokenizer.add_bos_token = tokenizer.bos_token is not None  # Llama's and Gemma's
    config.text_config.vocab_size = len(tokenizer)
    save_transformer(folder, enlarged(transformers.AutoModelForImageTextToText, config), processor, **settings)
    if family.video_processor:
        write_json(folder / "video_preprocessor_config.json", family.video_processor)
    text = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def form(
    family: str,
    *heads: Module,
    pooling: str,
    template: str | None = None,
    save_settings: dict[str, Any] | None = None,
    **settings: Any,
) -> Callable[[Path], None]:
    """A builder of one embedder: its family, its chat template, and the modules behind its pooling."""

    def build(folder: Path) -> None:
        save_checkpoint(folder, family, template or family, **(save_settings or {}))
        save_chain(folder, [Pooling(WIDTH, pooling), *heads], FAMILIES[family].modalities, **settings)

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
        save_settings={"max_shard_size": "100KB"},
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
