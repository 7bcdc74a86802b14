"""Tiny random checkpoints of every family: real architectures, processors and tokenizers, a few thousand weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from xvlm2vec.modeling.configuration_phi3_v import Phi3VConfig
from xvlm2vec.modeling.image_processing_phi3_v import Phi3VImageProcessor
from xvlm2vec.modeling.processing_phi3_v import Phi3VProcessor

LINES = [
    "a red bicycle leans against the wall of the old bakery",
    "una bicicletta rossa è appoggiata al muro del vecchio forno",
    "ein rotes Fahrrad lehnt an der Wand der alten Bäckerei",
    "古いパン屋の壁に赤い自転車が立てかけてある",
    "represent the query for finding the image that it describes",
]
SIDE = 28  # pixels of one tile
LLM = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2} | {
    "intermediate_size": 64,
    "max_position_embeddings": 2048,
}
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GRID = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


def train_bpe(specials: list[str], metaspace: bool) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges, byte-level or with the word mark of SentencePiece."""
    tokenizer = Tokenizer(models.BPE())
    if metaspace:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        alphabet, specials = [], [*specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator(LINES, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    return state["vocab"], [tuple(merge) for merge in state["merges"]]


def qwen_tokenizer(extra: dict[str, str] | None = None, *more: str) -> Any:
    extra = extra or {}
    specials = ["<|endoftext|>", *extra.values(), *more]
    vocab, merges = train_bpe(specials, metaspace=False)
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocab, merges=merges, extra_special_tokens=extra)
    tokenizer.add_special_tokens({"additional_special_tokens": list(more)})
    return tokenizer


def llama_tokenizer(*more: str) -> Any:
    vocab, merges = train_bpe(["<unk>", "<s>", "</s>", *more], metaspace=True)
    tokenizer = transformers.LlamaTokenizer(vocab=vocab, merges=merges, pad_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(more)})
    return tokenizer


def gemma_tokenizer(extra: dict[str, str], **settings: Any) -> Any:
    vocab, merges = train_bpe(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *extra.values()], metaspace=True)
    return transformers.GemmaTokenizer(vocab=vocab, merges=merges, extra_special_tokens=extra, **settings)


def build_qwen(name: str) -> tuple[Any, Any]:
    tokenizer = qwen_tokenizer(None, "<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>")
    patch = 16 if name.startswith("Qwen3VL") else 14
    images = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 36 * patch**2, "longest_edge": 64 * patch**2}
    )
    processor_class = {"Qwen2VL": "Qwen2VLProcessor", "Qwen2_5_VL": "Qwen2_5_VLProcessor"}.get(name, "Qwen3VLProcessor")
    tower = {
        "Qwen2VL": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2},
        "Qwen2_5_VL": {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4, "intermediate_size": 64}
        | {"fullatt_block_indexes": [1]},
        "Qwen3VL": {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4, "intermediate_size": 64}
        | {"deepstack_visual_indexes": [0], "num_position_embeddings": 64},
    }[name.removesuffix("Moe")]
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = LLM | {"vocab_size": len(tokenizer), "rope_parameters": rope}
    if name.startswith("Qwen3VL"):
        text |= {"head_dim": 8}
        text["rope_parameters"] = rope | {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
    if name.endswith("Moe"):
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    ids = tokenizer.convert_tokens_to_ids
    config = getattr(transformers, f"{name}Config")(
        text_config=text,
        vision_config=tower,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    # Its own processor wants the video part, which needs torchvision: save the parts, as checkpoints have them.
    return config, Parts(processor_class, images, tokenizer)


def build_hybrid(name: str) -> tuple[Any, Any]:
    """Linear attention (Qwen3.5) or short convolutions (LFM3-VL) beside full attention."""
    tokenizer = qwen_tokenizer(
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}, "<|vision_start|>", "<|vision_end|>"
    )
    images = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil(
        patch_size=16, size={"shortest_edge": 36 * 16**2, "longest_edge": 64 * 16**2}
    )
    tower = {"hidden_size": 32, "intermediate_size": 64, "patch_size": 16}
    if name == "qwen3_5":
        rope = {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 1e4, "partial_rotary_factor": 0.25}
        text = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 16, "rope_parameters": rope}
        text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
        text |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
        tower |= {"depth": 1, "out_hidden_size": 32, "num_heads": 4, "num_position_embeddings": 64}
        config_class, processor_class = transformers.Qwen3_5Config, "Qwen3VLProcessor"
    else:
        text = {"layer_types": ["conv", "sliding_attention"], "sliding_window": 20, "conv_L_cache": 7}
        text |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "head_dim": 8}
        tower |= {"layer_types": ["conv", "full_attention"], "num_attention_heads": 4, "num_key_value_heads": 2}
        tower |= {"num_hidden_layers": 2}
        config_class, processor_class = transformers.Lfm3VlConfig, "Lfm3VlProcessor"
    ids = tokenizer.convert_tokens_to_ids
    config = config_class(
        text_config=LLM | text | {"vocab_size": len(tokenizer)},
        vision_config=tower,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    return config, Parts(processor_class, images, tokenizer)


class Parts:
    """An image processor and a tokenizer, saved as a checkpoint with the named processor class has them."""

    def __init__(self, processor_class: str, images: Any, tokenizer: Any, **settings: Any) -> None:
        self.processor_class, self.images, self.tokenizer, self.settings = (
            processor_class,
            images,
            tokenizer,
            settings,
        )

    def save_pretrained(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        self.images.save_pretrained(folder)
        content = {"processor_class": self.processor_class, **self.settings}
        (folder / "processor_config.json").write_text(json.dumps(content), encoding="utf-8")


def build_llava_next(text_type: str) -> tuple[Any, Any]:
    tokenizer = llama_tokenizer("<image>")
    images = transformers.models.llava_next.image_processing_pil_llava_next.LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=GRID
    )
    settings = {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = transformers.LlavaNextProcessor(images, tokenizer, **settings)
    config = transformers.LlavaNextConfig(
        vision_config=TOWER | {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 7},
        text_config=LLM | {"model_type": text_type, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=GRID,
        vision_feature_layer=-1,
    )
    return config, processor


def build_llava() -> tuple[Any, Any]:
    """No family entry knows this one: it takes the generic path."""
    tokenizer = llama_tokenizer("<image>")
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    settings = {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    config = transformers.LlavaConfig(
        vision_config=TOWER | {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 7},
        text_config=LLM | {"model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    return config, transformers.LlavaProcessor(images, tokenizer, **settings)


def build_llava_onevision() -> tuple[Any, Any]:
    tokenizer = qwen_tokenizer(None, "<image>", "<video>")
    module = transformers.models.llava_onevision.image_processing_pil_llava_onevision
    images = module.LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=GRID)
    settings = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    config = transformers.LlavaOnevisionConfig(
        vision_config=TOWER
        | {"model_type": "siglip_vision_model", "image_size": SIDE, "patch_size": 7, "vision_use_head": False},
        text_config=LLM | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRID,
    )
    return config, Parts("LlavaOnevisionProcessor", images, tokenizer, **settings)


def build_idefics(name: str) -> tuple[Any, Any]:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    specials = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"]
    tokenizer = qwen_tokenizer(None, *specials, *rows)
    images = getattr(transformers, f"{name}ImageProcessorPil")(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    config = getattr(transformers, f"{name}Config")(
        vision_config=TOWER | {"image_size": SIDE, "patch_size": 7},
        text_config=LLM | {"model_type": "llama", "vocab_size": len(tokenizer)},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
    )
    return config, Parts(f"{name}Processor", images, tokenizer, image_seq_len=4)


def build_internvl() -> tuple[Any, Any]:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = qwen_tokenizer(names)
    images = transformers.models.got_ocr2.image_processing_pil_got_ocr2.GotOcr2ImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=3
    )
    config = transformers.InternVLConfig(
        vision_config=TOWER | {"image_size": [SIDE, SIDE], "patch_size": [7, 7]},
        text_config=LLM | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return config, Parts("InternVLProcessor", images, tokenizer, image_seq_length=4)


def build_gemma3() -> tuple[Any, Any]:
    names = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = gemma_tokenizer(names)
    images = transformers.Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = transformers.Gemma3Processor(images, tokenizer, image_seq_length=4)
    ids = tokenizer.convert_tokens_to_ids
    config = transformers.Gemma3Config(
        # The window is shorter than the rows, so that padding could shift it.
        text_config=LLM
        | {"vocab_size": len(tokenizer), "head_dim": 8, "sliding_window": 8}
        | {"layer_types": ["sliding_attention", "full_attention"]},
        vision_config=TOWER | {"image_size": SIDE, "patch_size": 7, "vision_use_head": False},
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    return config, processor


def build_paligemma() -> tuple[Any, Any]:
    tokenizer = gemma_tokenizer({"image_token": "<image>"})
    images = transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    images.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(images, tokenizer)
    config = transformers.PaliGemmaConfig(
        text_config=LLM | {"model_type": "gemma", "vocab_size": len(tokenizer), "head_dim": 8},
        vision_config=TOWER
        | {"model_type": "siglip_vision_model", "image_size": SIDE, "patch_size": 7, "vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
        vocab_size=len(tokenizer),
    )
    return config, processor


def build_phi3_v() -> tuple[Any, Any]:
    tokenizer = llama_tokenizer("<|endoftext|>")
    half = LLM["hidden_size"] // LLM["num_attention_heads"] // 2
    config = Phi3VConfig(
        **LLM,
        vocab_size=len(tokenizer),
        original_max_position_embeddings=64,
        rope_theta=10000.0,
        rope_scaling={"type": "longrope", "short_factor": [1.0] * half, "long_factor": [2.0, 3.0, 4.0, 5.0][:half]},
        pad_token_id=tokenizer.pad_token_id,
        img_processor={"image_dim_out": 32},
        vision_config=TOWER | {"image_size": 336, "patch_size": 14},
    )
    return config, Phi3VProcessor(Phi3VImageProcessor(num_crops=1), tokenizer)


BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "qwen2_vl": lambda: build_qwen("Qwen2VL"),
    "qwen2_5_vl": lambda: build_qwen("Qwen2_5_VL"),
    "qwen3_vl": lambda: build_qwen("Qwen3VL"),
    "qwen3_vl_moe": lambda: build_qwen("Qwen3VLMoe"),
    "llava_next-llama": lambda: build_llava_next("llama"),
    "llava_next-mistral": lambda: build_llava_next("mistral"),
    "llava_onevision": build_llava_onevision,
    "smolvlm": lambda: build_idefics("SmolVLM"),
    "idefics3": lambda: build_idefics("Idefics3"),
    "internvl": build_internvl,
    "gemma3": build_gemma3,
    "paligemma": build_paligemma,
    "llava": build_llava,
    "phi3_v": build_phi3_v,
}


HYBRIDS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "qwen3_5": lambda: build_hybrid("qwen3_5"),
    "lfm3_vl": lambda: build_hybrid("lfm3_vl"),
}


def build(name: str, folder: Path) -> Path:
    """Writes a checkpoint with its language-model head, as families publish them."""
    config, processor = (BUILDERS | HYBRIDS)[name]()
    # Phi-3.5-V is ours, and has no head.
    auto = transformers.AutoModel if name == "phi3_v" else transformers.AutoModelForImageTextToText
    with_large_weights(auto, config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def with_large_weights(auto: Any, config: Any, seed: int = 0) -> Any:
    """A model whose weights are far larger than training starts with: rows must differ much for a fault to show."""
    torch.manual_seed(seed)
    model = auto.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight.flatten(1).shape[1] ** -0.5)
    return model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint, built at first use."""
    built: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in built:
            built[name] = build(name, tmp_path_factory.mktemp(name.replace("-", "_")))
        return built[name]

    return get


@pytest.fixture(scope="session")
def put_in_cache() -> Callable[..., None]:
    """Lays a folder down as the Hub client does what it has downloaded."""

    def put(cache: Path, name: str, folder: Path, commit: str = "0" * 40) -> None:
        place = cache / f"models--{name.replace('/', '--')}"
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / "main").write_text(commit, encoding="utf-8")
        shutil.copytree(folder, place / "snapshots" / commit)

    return put


@pytest.fixture(scope="session")
def families() -> list[str]:
    return list(BUILDERS)


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Four noisy images of different shapes."""
    random = np.random.default_rng(0)
    shapes = [(40, 40, 3), (30, 60, 3), (64, 32, 3), (20, 25, 3)]
    return [Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]
