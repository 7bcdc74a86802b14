"""The runner against a loop in the reference's manner, on a made MMMEB of five languages, and against mteb.

    python benchmarks/evaluate.py --json benchmarks/results/evaluate.json
    python benchmarks/evaluate.py --shape xm3600 --json benchmarks/results/evaluate.json

Each writes its part of the file. `--shape xm3600` is described in `xm3600_shape.py`; what follows is the other.

The benchmark has MMMEB's files (five data sets, five tasks, three styles, five languages where the published one has
them), with made images and texts and fewer rows. An image takes 144 tokens of a small untrained Idefics3, a fifth
of what Phi-3.5-V gives it. The loop goes through every file once per style: it embeds the candidates of the file, then
one query at a time, and ranks its list. It is given what helps it: candidates in batches, and each distinct one once
per file and style. Both use the same model, one thread, and CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.eval.benchmarks.instructions import STYLES
from xvlm2vec.eval.benchmarks.list_rows import TASKS
from xvlm2vec.eval.benchmarks.mmmeb import DATASETS, read_mmmeb_folder
from xvlm2vec.eval.encoders import ModelEncoder
from xvlm2vec.eval.metrics import hit_at_1
from xvlm2vec.eval.ranking import RankingTask, Row, score_task
from xvlm2vec.eval.row_images import open_image
from xvlm2vec.eval.runner import Extras, evaluate

LANGUAGES = ("en", "it", "es", "fr", "de")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go, beside those of the other shape")
    parser.add_argument("--shape", choices=("mmmeb", "xm3600"), default="mmmeb", help="what is made (default mmmeb)")
    parser.add_argument("--rows", type=int, default=12, help="rows of each file of mmmeb (default 12)")
    parser.add_argument("--small", action="store_true", help="xm3600 with 6 languages and 20 images, to try it")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    earlier = json.loads(flags.json.read_text(encoding="utf-8")) if flags.json and flags.json.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        if flags.shape == "mmmeb":
            content = measure(Path(folder), flags.rows)
            ratios = earlier.get("ratios", {}) | content["ratios"]
        else:
            from xm3600_shape import measure_xm3600

            measured = measure_xm3600(Path(folder), *((6, 20) if flags.small else (36, 150)))
            ratios = earlier.get("ratios", {}) | measured.pop("ratios")
            content = {"xm3600": measured}
    content = earlier | content | {"ratios": ratios}
    print(json.dumps(content, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, count: int) -> dict[str, Any]:
    """CPU seconds of the loop, of the runner, and of the runner with a store that has everything."""
    texts = make_mmmeb(folder / "data", count)
    encoder = made_encoder(texts)
    tasks = read_mmmeb_folder(folder / "data", styles=STYLES)
    encoder.encode_rows([Row(texts[0])], {})
    rows, scores = [], {}
    for name, run in (
        ("loop in the reference's manner", lambda: reference_loop(encoder, tasks)),
        ("runner", lambda: runner(encoder, tasks, folder / "store")),
        ("runner again, from the store", lambda: runner(encoder, tasks, folder / "store")),
    ):
        started = time.process_time()
        scores[name], embedded = run()
        rows.append({"way": name, "cpu_seconds": round(time.process_time() - started, 2), "rows_embedded": embedded})
    loop, once, again = scores.values()
    assert once == again
    worst = max(abs(once[name] - loop[name]) for name in loop)
    seconds = [row["cpu_seconds"] for row in rows]
    return {
        "name": "evaluate",
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "python": platform.python_version()},
        "benchmark": {"tasks": len(tasks), "rows_per_task": count, "languages": LANGUAGES, "styles": STYLES},
        "rows": rows,
        "largest_difference_in_p_at_1": worst,
        "ratios": {
            "loop / runner": round(seconds[0] / seconds[1], 1),
            "loop / runner again, from the store": round(seconds[0] / seconds[2], 1),
        },
    }


def runner(encoder: ModelEncoder, tasks: list[RankingTask], store: Path) -> tuple[dict[str, float], int]:
    """P@1 by task, and how many rows were embedded."""
    before = sum(int(path.name.split("-")[0]) for path in store.glob("*/*.npy"))
    results = evaluate(encoder, tasks, store=store, progress=False, extras=Extras(examples=0, alignment=False))
    after = sum(int(path.name.split("-")[0]) for path in store.glob("*/*.npy"))
    names = ("benchmark", "dataset", "task", "language", "style")
    return {"/".join(row[name] for name in names): row["p_at_1"] for row in results.rows}, after - before


def reference_loop(encoder: ModelEncoder, tasks: list[RankingTask]) -> tuple[dict[str, float], int]:
    """The same scores, file by file and style by style: candidates in batches, queries one at a time."""
    scores, embedded = {}, 0
    for task in tasks:
        candidates = embed(encoder, task, task.candidates)
        queries = np.concatenate([embed(encoder, task, [row]) for row in task.queries])
        scores[task.name] = float(hit_at_1(score_task(task, queries, candidates)).mean())
        embedded += len(task.candidates) + len(task.queries)
    return scores, embedded


def embed(encoder: ModelEncoder, task: RankingTask, rows: list[Row], batch: int = 32) -> np.ndarray:
    """Padded batches of a fixed size, each row's image decoded for it; `(len(rows), D)`."""
    processor, model = encoder.processor, encoder.model
    parts = []
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        images = [open_image(task.images[str(row.image)]) if row.image else None for row in some]
        with torch.inference_mode():
            inputs = processor(text=[row.text for row in some], images=images)
            parts.append(model(**inputs).embeddings.float().numpy())
    return np.concatenate(parts)


def made_encoder(texts: list[str]) -> ModelEncoder:
    """A small untrained Idefics3: what it finds does not matter here, what it costs does."""
    config = TinyModelConfig(image_size=192, hidden_size=192, intermediate_size=512, vision_layers=4, text_layers=4)
    model, processor = build_tiny_model(config, texts)
    return ModelEncoder(model, processor, name="made", max_tokens_per_batch=2_048)


def make_mmmeb(folder: Path, count: int) -> list[str]:
    """Writes a folder in the published layout and returns some of its texts."""
    rng = np.random.default_rng(0)
    texts: list[str] = []
    for dataset, (tasks, languages) in DATASETS.items():
        (folder / f"{dataset}_images").mkdir(parents=True)
        images = [f"{number}.jpg" for number in range(count)]
        for name in images:
            pixels = rng.integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((96, 96)).save(folder / f"{dataset}_images" / name)
        for task in tasks:
            for language in languages:
                length = 3 if task in {"c", "vqa"} else 10
                captions = [" ".join(rng.choice(made_words(language), size=length)) for _ in range(count)]
                texts += captions
                write_file(folder / f"{dataset}_{language}_{count}_formatted_{task}.jsonl", task, images, captions)
    return texts


def write_file(path: Path, task: str, images: list[str], captions: list[str]) -> None:
    form = TASKS[task]
    lines = []
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        pool = images if form.image_candidates else captions
        row: dict[str, Any] = {form.candidates: pool[number:] + pool[:number]}
        if form.image:
            row[form.image] = image
        if form.text:
            row[form.text] = caption
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def made_words(language: str, count: int = 400) -> list[str]:
    """A vocabulary of made words in Latin letters."""
    rng, letters = np.random.default_rng(LANGUAGES.index(language)), list("abdefgiklmnoprstu")
    return ["".join(rng.choice(letters, size=int(rng.integers(2, 9)))) for _ in range(count)]


if __name__ == "__main__":
    main()
