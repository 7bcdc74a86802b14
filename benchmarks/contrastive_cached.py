"""What the cached in-batch-negatives loss costs where the batch fits in memory, on the quickstart's model.

    python benchmarks/contrastive_cached.py --json benchmarks/results/contrastive_cached.json

One process, interleaved: a step of the plain loss, then of the cached ones on the same 64 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.emoji.training import contrastive_rows, tokenizer_texts
from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig
from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
from xvlm2vec.trainer.contrastive_trainer import make_loss
from xvlm2vec.trainer.pair_collator import PairCollator
from xvlm2vec.trainer.precision import has_fast_bf16, training_attention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--steps", type=int, default=20, help="steps of each kind (default 20)")
    parser.add_argument("--batch", type=int, default=64, help="rows of a step (default 64)")
    flags = parser.parse_args()
    content = measure(flags.steps, flags.batch)
    print(json.dumps(content, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(steps: int, batch: int) -> dict[str, Any]:
    """Medians of both kinds of steps, and their ratio."""
    from sentence_transformers import SentenceTransformer

    world = EmojiWorld.load(EmojiWorldConfig())
    model, processor = build_tiny_model(TinyModelConfig(), tokenizer_texts(world))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        st_model = SentenceTransformer(folder)
    training_attention(st_model.transformers_model)
    rows = contrastive_rows(world, {"i2t": 1.0}, batch, batch, seed=0)
    inputs = PairCollator(preprocess_fn=st_model.preprocess)([rows[index] for index in range(batch)])
    sides = [side_of(inputs, "anchor"), side_of(inputs, "positive")]
    losses = {
        name: make_loss(st_model, ContrastiveConfig(mini_batch_size=size))
        for name, size in (("plain", None), ("cached, one mini-batch", batch), ("cached, mini-batches of 16", 16))
    }
    times: dict[str, list[float]] = {name: [] for name in losses}
    for number in range(steps + 2):
        for name, loss in losses.items():
            seconds = step(st_model, loss, sides)
            if number >= 2:
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "name": "contrastive_cached",
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "python": platform.python_version()},
        "rows": [{"loss": name, "batch": batch, "seconds": round(value, 4)} for name, value in medians.items()],
        "ratios": {f"{name} / plain": round(value / medians["plain"], 3) for name, value in medians.items()},
    }


def side_of(inputs: dict[str, Any], side: str) -> dict[str, Any]:
    """One column's features, as the trainer hands them to the loss."""
    return {key.removeprefix(f"{side}_"): value for key, value in inputs.items() if key.startswith(f"{side}_")}


def step(model: Any, loss: Any, sides: list[dict[str, Any]]) -> float:
    """Seconds of one forward and backward pass."""
    model.train()
    model.zero_grad()
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16()):
        value = loss([dict(side) for side in sides], None)
    value.backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
