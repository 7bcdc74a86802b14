"""A tiny vision-language model, made from a real architecture's configuration, that learns on two CPU cores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    Idefics3Config,
    Idefics3ImageProcessorPil,
    Idefics3Model,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

SPECIAL_TOKENS = (
    "<pad>", "<s>", "</s>", "<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>",
)  # fmt: skip
# Arabic writes "and" as one letter glued to the next word. Splitting it off gives a word the same tokens after "and" as
# elsewhere.
ARABIC_AND = Regex(r"(?<=\s)و(?=\p{Arabic})")


@dataclass(frozen=True)
class TinyModelConfig:
    """Sizes of the tiny model.

    Args:
        image_size: Pixels of a (square) image's side.
        patch_size: Pixels of a patch's side.
        hidden_size: Width of both towers.
        vision_layers: Layers of the vision tower.
        text_layers: Layers of the language model.
        heads: Attention heads of both towers.
        intermediate_size: Width of the MLPs.
        vocab_size: Tokens of the byte-level BPE, special tokens included.
        scale_factor: Pixel shuffle: a side's patches are divided by this.
        seed: Seed of the initial weights.
    """

    image_size: int = 48
    patch_size: int = 8
    hidden_size: int = 128
    vision_layers: int = 3
    text_layers: int = 3
    heads: int = 4
    intermediate_size: int = 384
    vocab_size: int = 6_000
    scale_factor: int = 2
    seed: int = 0


def build_tiny_model(config: TinyModelConfig, texts: Iterable[str]) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
    """Builds an untrained Idefics3 embedder and its processor.

    Args:
        config: Sizes.
        texts: What the tokenizer learns its merges from.

    Returns:
        The model (evaluation mode, float32) and the processor.
    """
    tokenizer = train_tokenizer(texts, config.vocab_size)
    processor = XVLM2VecProcessor(_inner_processor(config, tokenizer), "idefics3")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = Idefics3Model(_backbone_config(config, tokenizer))
        initialise_by_fan_in(backbone)
    model = XVLM2VecModel(XVLM2VecConfig(vlm_config=backbone.config), backbone=backbone).eval()
    model.processor = processor
    return model, processor


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of words, in which a word has the same tokens wherever it stands.

    Spaces are dropped: a name would otherwise have one spelling after a space, another one after a quotation mark, and
    would have to be learned twice. Nothing is ever decoded.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(ARABIC_AND, behavior="isolated"),
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=512
    )


def initialise_by_fan_in(model: nn.Module) -> None:
    """Draws linear and convolution weights with standard deviation fan-in^-1/2 and embeddings with width^-1/2.

    The usual 0.02 stays at chance for hundreds of steps at this width.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=fan_in**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)


def _backbone_config(config: TinyModelConfig, tokenizer: PreTrainedTokenizerFast) -> Idefics3Config:
    shared = {
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.heads,
        "intermediate_size": config.intermediate_size,
    }
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return Idefics3Config(
        vision_config={
            **shared,
            "num_hidden_layers": config.vision_layers,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
        },
        text_config={
            **shared,
            **special,
            "model_type": "llama",
            "num_hidden_layers": config.text_layers,
            "num_key_value_heads": config.heads,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 512,
        },
        scale_factor=config.scale_factor,
        image_token_id=SPECIAL_TOKENS.index("<image>"),
    )


def _inner_processor(config: TinyModelConfig, tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    patches = config.image_size // config.patch_size
    edge = {"longest_edge": config.image_size}
    images = Idefics3ImageProcessorPil(do_resize=True, do_image_splitting=False, size=edge, max_image_size=edge)
    return Idefics3Processor(images, tokenizer, image_seq_len=math.ceil(patches / config.scale_factor) ** 2)
