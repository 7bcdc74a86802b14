"""`XVLM2VecModel.encode` against plain `SentenceTransformer.encode` of the same weights: texts, images, instructions.

    python benchmarks/encode.py --json benchmarks/results/encode.json

One process on one thread, interleaved: each round embeds the same rows through one door and then through the other,
and the medians of the processor time are compared. The weights are random, as speed does not depend on them: Qwen2-VL
with 8 layers of width 512 as its language model, and a vision tower in proportion. Both doors get float32, and batches
of their defaults: 16,384 tokens here, 32 rows there. sentence-transformers sorts texts by their characters.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLModel, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from xvlm2vec import XVLM2VecConfig, XVLM2VecModel, XVLM2VecProcessor
from xvlm2vec.corpus.emoji.training import tokenizer_texts
from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig
from xvlm2vec.modeling.backbone_processors import images_only

MARKS = ("<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>")
PIXELS_A_TOKEN = 28 * 28
IMAGE_TOKENS = (24, 32)
"""768 tokens: height and width of the image that meets several instructions, in tokens."""
INSTRUCTIONS = 4

Case = tuple[str, list[Any], Callable[[XVLM2VecModel], np.ndarray]]
"""Name, rows for sentence-transformers, and the same rows through `encode`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--rounds", type=int, default=5, help="how often each door embeds each case (default 5)")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    texts = [text for text in tokenizer_texts(EmojiWorld.load(EmojiWorldConfig()), captions=300) if len(text) > 20]
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), texts)
        model = XVLM2VecModel.from_pretrained(folder)
        door = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
        rows = []
        for case in cases(texts):
            rows.append(measure(model, door, case, flags.rounds))
            print(json.dumps(rows[-1]), flush=True)
    content = {
        "name": "encode",
        "machine": {
            "cores": os.cpu_count(),
            "threads": 1,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "sentence-transformers")},
        },
        "rows": rows,
        "ratios": {row["case"]: round(row["sentence_transformers_s"] / row["encode_s"], 2) for row in rows},
    }
    print(json.dumps(content["ratios"], indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(model: XVLM2VecModel, door: SentenceTransformer, case: Case, rounds: int) -> dict[str, Any]:
    """Medians of both doors on one case, whose vectors must agree."""
    name, given, encode = case
    vectors = [door.encode(given, show_progress_bar=False), encode(model)]  # and a warm-up
    distance = float((1 - (vectors[0] * vectors[1]).sum(axis=1)).max())
    if not distance < 1e-5:
        raise SystemExit(f"{name}: the two doors give different vectors (1-cos {distance:.1e}).")
    doors: tuple[Callable[[], Any], ...] = (
        lambda: door.encode(given, show_progress_bar=False),
        lambda: encode(model),
    )
    seconds: list[list[float]] = [[], []]
    for number in range(rounds):
        for place in (0, 1) if number % 2 else (1, 0):
            started = time.process_time()
            doors[place]()
            seconds[place].append(time.process_time() - started)
    medians = [statistics.median(values) for values in seconds]
    return {
        "case": name,
        "rows": len(given),
        "sentence_transformers_s": round(medians[0], 3),
        "encode_s": round(medians[1], 3),
        "max_1_minus_cos": distance,
    }


def cases(texts: list[str]) -> list[Case]:
    """The rows of all cases."""
    draw = random.Random(0)
    mixed = mixed_texts(texts, draw, rows=96)
    captions = [draw.choice(texts) for _ in range(160)]
    images = [noise(draw.randint(8, 16), draw.randint(8, 16), seed) for seed in range(12)]
    instructed = noise(*IMAGE_TOKENS, seed=99)
    asked = [f"{draw.choice(texts)} {draw.choice(texts)}" for _ in range(INSTRUCTIONS)]
    labels = [*captions[: len(images)]]
    return [
        ("texts of mixed lengths and languages", mixed, lambda model: model.encode(text=mixed)),
        ("short texts", captions, lambda model: model.encode(text=captions)),
        ("images", images, lambda model: model.encode(images=images)),
        (
            "images and texts in one call",
            [row for pair in zip(images, labels, strict=True) for row in pair],
            lambda model: model.encode(
                text=[row for label in labels for row in (None, label)],
                images=[row for image in images for row in (image, None)],
            ),
        ),
        (
            f"one image of {IMAGE_TOKENS[0] * IMAGE_TOKENS[1]} tokens x {INSTRUCTIONS} instructions",
            [{"text": text, "image": instructed} for text in asked],
            lambda model: model.encode(text=asked, images=[instructed] * INSTRUCTIONS),
        ),
    ]


def mixed_texts(texts: list[str], draw: random.Random, rows: int) -> list[str]:
    """Texts in fourteen languages, from a word to a few hundred words, most of them short (log-normal)."""
    made = []
    for _ in range(rows):
        sentences = min(max(round(draw.lognormvariate(1.0, 1.1)), 1), 40)
        made.append(" ".join(draw.choice(texts) for _ in range(sentences)))
    return made


def noise(height: int, width: int, seed: int) -> Image.Image:
    """An image of so many tokens, high and wide."""
    shape = (height * 28, width * 28, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def save_model(folder: Path, texts: list[str]) -> None:
    """Writes a random Qwen2-VL as an embedding model, with a byte-level tokenizer that knows these texts."""
    tokenizer = make_tokenizer(texts)
    size = {"shortest_edge": 4 * PIXELS_A_TOKEN, "longest_edge": 1280 * PIXELS_A_TOKEN}
    inner = images_only(Qwen2VLProcessor)(Qwen2VLImageProcessorPil(size=size), tokenizer)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "intermediate_size": 1408,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 8192,
            "bos_token_id": None,
            "eos_token_id": None,
            "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 10000.0},
        },
        vision_config={"depth": 6, "embed_dim": 192, "hidden_size": 512, "num_heads": 6, "mlp_ratio": 4},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    torch.manual_seed(0)
    backbone = Qwen2VLModel(config)
    XVLM2VecModel(XVLM2VecConfig(vlm_config=backbone.config), backbone=backbone).save_pretrained(folder)
    XVLM2VecProcessor(inner, "qwen2_vl", max_length=8192).save_pretrained(folder)


def make_tokenizer(texts: list[str]) -> Qwen2Tokenizer:
    """A byte-level BPE of 16,000 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000, special_tokens=["<|endoftext|>", *MARKS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    made = Qwen2Tokenizer(vocab=state["vocab"], merges=[tuple(merge) for merge in state["merges"]])
    made.add_special_tokens({"additional_special_tokens": list(MARKS)})
    return made


if __name__ == "__main__":
    main()
