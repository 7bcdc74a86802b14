"""A made data set of XM3600's shape, its two tasks in mteb, and what it costs to score a model on them.

36 languages, both directions, 150 images of 256 tokens in every language, two captions of some 23 tokens for each
image and language. mteb's own loaders read it from the layout of the published files. Instructions are left away, so
that an image is one row in all languages and both directions.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mteb.models import CachedEmbeddingWrapper
from PIL import Image

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS
from xvlm2vec.eval.encoders import Encoder, ModelEncoder
from xvlm2vec.eval.mteb.models import EncoderForMteb
from xvlm2vec.eval.mteb.reading import read_mteb
from xvlm2vec.eval.ranking import Row
from xvlm2vec.eval.runner import evaluate

TASKS = ("XM3600T2IRetrieval", "XM3600I2TRetrieval")
CAPTIONS, WORDS = 2, 9
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]

Scores = dict[tuple[str, str], float]


def measure_xm3600(folder: Path, languages: int, images: int) -> dict[str, Any]:
    """Processor seconds of mteb without and with its cache of embeddings, and of the runner, on one model."""
    spoken = sorted(type(mteb.get_task(TASKS[0])).metadata.eval_langs)[:languages]
    texts = make_xm3600(folder / "data", spoken, images)
    encoder = made_encoder(texts)
    tokens = [len(ids) for ids in encoder.processor.tokenizer(texts[:500])["input_ids"]]
    encoder.encode_rows([Row(texts[0])], {})
    read_mteb(made_tasks(folder, spoken))  # libraries keep what they have read once: all three find it
    beside = os.getloadavg()[0]
    rows, scores = [], []
    for name, run in (
        ("runner", lambda counted: of_runner(counted, folder, spoken)),
        ("mteb with its cache of embeddings", lambda counted: of_mteb(counted, folder, spoken, folder / "cache")),
        ("mteb", lambda counted: of_mteb(counted, folder, spoken, None)),
    ):
        counted = CountedEncoder(encoder)
        seconds, found = processor_seconds(lambda run=run, counted=counted: run(counted))
        rows.append({"way": name, "cpu_seconds": round(seconds, 2), "rows_embedded": counted.rows})
        scores.append(found)
    ours, cached, theirs = scores
    seconds = [row["cpu_seconds"] for row in rows]
    return {
        "shape": {
            **{"languages": len(spoken), "directions": len(TASKS), "images": images, "captions": CAPTIONS},
            **{"image_tokens": 256, "caption_tokens": round(float(np.mean(tokens)), 1), "instructions": "none"},
        },
        "beside": f"load of 1 minute at the start: {beside:.1f} on {os.cpu_count()} cores (other programs included)",
        "rows": rows,
        "largest_difference_in_ndcg_at_10": round(max(abs(ours[key] - theirs[key]) for key in theirs), 6),
        "largest_difference_of_mteb_from_itself": round(max(abs(cached[key] - theirs[key]) for key in theirs), 6),
        "ratios": {
            "runner_over_mteb": round(seconds[2] / seconds[0], 1),
            "runner_over_mteb_cached": round(seconds[1] / seconds[0], 1),
        },
    }


class CountedEncoder:
    """An encoder that counts what it embeds."""

    def __init__(self, encoder: ModelEncoder) -> None:
        self.encoder, self.rows = encoder, 0
        self.name, self.fingerprint = encoder.name, encoder.fingerprint

    def encode_rows(self, rows: Any, images: Any) -> Any:
        """Embeds what it counts."""
        self.rows += len(rows)
        return self.encoder.encode_rows(rows, images)


def processor_seconds(run: Callable[[], Scores]) -> tuple[float, Scores]:
    started = time.process_time()
    found = run()
    return time.process_time() - started, found


def of_runner(encoder: Encoder, folder: Path, languages: list[str]) -> Scores:
    tasks = read_mteb(made_tasks(folder, languages), NO_INSTRUCTIONS)
    results = evaluate(encoder, tasks, store=folder / "store", progress=False)
    return {(row["task"], row["language"]): row["ndcg_at_10"] for row in results.rows}


def of_mteb(encoder: Encoder, folder: Path, languages: list[str], cache: Path | None) -> Scores:
    model: Any = EncoderForMteb(encoder, NO_INSTRUCTIONS)
    model = model if cache is None else CachedEmbeddingWrapper(model, cache)
    found = mteb.evaluate(
        model, made_tasks(folder, languages), cache=None, show_progress_bar=False, co2_tracker=False,
        encode_kwargs={"show_progress_bar": False},
    )  # fmt: skip
    return {
        ("t2i" if "T2I" in result.task_name else "i2t", row["hf_subset"]): row["ndcg_at_10"]
        for result in found.task_results
        for row in result.scores["test"]
    }


def made_tasks(folder: Path, languages: list[str]) -> list[Any]:
    """Tasks of mteb, whose data set is the folder."""
    tasks = []
    for name in TASKS:
        real = type(mteb.get_task(name))
        changes = {
            "dataset": {"path": str(folder / "data"), "revision": "1"},
            "eval_langs": {language: real.metadata.eval_langs[language] for language in languages},
        }
        tasks.append(type(name, (real,), {"metadata": real.metadata.model_copy(update=changes)})())
    return tasks


def make_xm3600(folder: Path, languages: list[str], count: int) -> list[str]:
    """Writes the published layout, a split for each language, and returns the captions."""
    rng = np.random.default_rng(0)
    images = [encoded(rng) for _ in range(count)]
    (folder / "data").mkdir(parents=True)
    captions: list[str] = []
    for language in languages:
        some = [[caption(rng) for _ in range(CAPTIONS)] for _ in range(count)]
        columns = {
            "image_id": [f"{number:04}" for number in range(count)], "image": images, "image_locale": ["xx"] * count,
            "captions": some, "captions_tokenized": some, "captions_tokenized_lowercase": some,
        }  # fmt: skip
        pq.write_table(pa.table(columns), folder / "data" / f"{language}-00000-of-00001.parquet")
        captions += [text for group in some for text in group]
    return captions


def encoded(rng: np.random.Generator) -> dict[str, Any]:
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((256, 256)).save(buffer, "JPEG", quality=90)
    return {"bytes": buffer.getvalue(), "path": "made.jpg"}


def caption(rng: np.random.Generator) -> str:
    return " ".join("".join(rng.choice(SYLLABLES, size=4)) for _ in range(WORDS))


def made_encoder(texts: list[str]) -> ModelEncoder:
    """A small untrained Idefics3 with 256 tokens an image: what it finds does not matter here, what it costs does."""
    config = TinyModelConfig(image_size=256, vocab_size=3_000)
    model, processor = build_tiny_model(config, texts[:4000])
    return ModelEncoder(model, processor, name="made", max_tokens_per_batch=4_096)
