"""`xvlm2vec corpus contamination`: which changes of an image are seen through, false alarms, and time.

    python benchmarks/corpus_contamination.py --json benchmarks/results/corpus_contamination.json

The images are made (`made_images.py`), as no photographs can be shipped here: 300 of them are the benchmark. Each case
changes all of them, at places and by amounts that are drawn; recall is the share whose source is named. 3,000 other
images are the corpus that has nothing in common with it. For the time, squares of greys are compared that are noise of
low frequencies: 100,000 beside 10,000, in processor time on one thread, reading and shrinking of files apart. Texts are
sentences of `corpus_texts.py`, changed by a word, by case and punctuation, or not at all.

    python benchmarks/corpus_contamination.py --only stretches --json benchmarks/results/corpus_contamination.json

measures how much longer it takes to compare 2,048 images in the stretches of 512 rows that the command and its workers
take, with the benchmark's hashes made once, and leaves the other numbers of the file as they are.

    python benchmarks/corpus_contamination.py --only command --work runs/contamination --workers 2 --json ...

measures the command itself, on the clock: JPEG files of 640 x 480 for both sides (17 GB, made once, with the corpus),
of which one of the benchmark in a hundred is in the corpus, too, mirrored and compressed anew.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from corpus_texts import LANGUAGES, choose, joined, sentence
from datasets import Dataset
from made_images import made_image
from PIL import Image, ImageEnhance, ImageOps

from xvlm2vec.common.files import write_json
from xvlm2vec.corpus.contamination.hashes import SIDE, greys
from xvlm2vec.corpus.contamination.images import Hashed, match_images
from xvlm2vec.corpus.contamination.texts import TextIndex
from xvlm2vec.corpus.schema import parallel_features

IMAGES, OTHERS = 300, 3_000
OFFSET = 1_000_000
"""Seeds from here on are of images that the benchmark has not."""
WIDTH, HEIGHT, COPIED = 640, 480, 100
"""The files that the command reads, and of how many images of the benchmark one is in the corpus."""
CHANGES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "compressed (JPEG quality 20)": lambda image, _: compressed(image, 20),
    "half the size": lambda image, _: image.resize((image.width // 2, image.height // 2)),
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "30% lighter": lambda image, _: ImageEnhance.Brightness(image).enhance(1.3),
    "grey": lambda image, _: image.convert("L").convert("RGB"),
    "95% of both sides": lambda image, draw: cropped(image, 0.95, draw),
    "90% of both sides": lambda image, draw: cropped(image, 0.9, draw),
    "80% of both sides": lambda image, draw: cropped(image, 0.8, draw),
    "70% of both sides": lambda image, draw: cropped(image, 0.7, draw),
    "60% of both sides": lambda image, draw: cropped(image, 0.6, draw),
    "90%, mirrored, quality 50": lambda image, draw: compressed(ImageOps.mirror(cropped(image, 0.9, draw)), 50),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--sizes", type=int, nargs=2, default=(100_000, 10_000), metavar="N", help="of the time's sets")
    parser.add_argument("--only", choices=tuple(ALONE), help="measure that alone; the file keeps the others")
    parser.add_argument("--work", type=Path, default=Path("runs/contamination"), help="files that the command reads")
    parser.add_argument("--workers", type=int, default=2, help="the command's --num-proc")
    parser.add_argument("--beside", default="nothing that was started with it", help="what else the machine did")
    flags = parser.parse_args()
    content = json.loads(flags.json.read_text(encoding="utf-8")) if flags.json and flags.json.exists() else {}
    if flags.only is None:
        content |= {"name": "corpus_contamination", "benchmark_images": IMAGES, **images(), "texts": texts()}
        print(json.dumps(content, indent=1), flush=True)
    wanted = (flags.only,) if flags.only else ("time", "stretches")
    measured = {name: ALONE[name](flags) for name in wanted}
    print(json.dumps(measured, indent=1))
    if flags.json:
        write_json(flags.json, content | measured)


def images() -> dict[str, Any]:
    made = [made_image(seed) for seed in range(IMAGES)]
    benchmark = np.stack([greys(image) for image in made])
    cases = {}
    for name, change in CHANGES.items():
        draw = np.random.default_rng(0)
        matches = match_images(np.stack([greys(change(image, draw)) for image in made]), benchmark)
        right = sum(match.first == match.second for match in matches)
        cases[name] = {"recall": round(right / IMAGES, 3), "wrong": len(matches) - right}
    others = np.stack([greys(made_image(OFFSET + seed)) for seed in range(OTHERS)])
    return {"cases": cases, "others": OTHERS, "false_alarms": len(match_images(others, benchmark))}


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image: Image.Image, share: float, draw: np.random.Generator) -> Image.Image:
    width, height = int(image.width * share), int(image.height * share)
    left, top = draw.integers(0, image.width - width + 1), draw.integers(0, image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def texts() -> dict[str, Any]:
    draw = random.Random(0)
    pairs = [(code, [choose(draw) for _ in range(2)]) for code in ("en", *LANGUAGES) for _ in range(200)]
    known = [joined(code, [sentence(code, choice) for choice in choices]) for code, choices in pairs]
    index = TextIndex(known)
    others = {joined(code, [sentence(code, choose(draw)) for _ in range(2)]) for code, _ in pairs} - set(known)
    changes = {
        "case, blanks and punctuation": lambda text: text.upper().replace(".", " !"),
        "a word more at the end": lambda text: f"{text} OK",
    }
    recall = {name: round(sum(found(index, change(text), text) for text in known) / len(known), 3)
              for name, change in changes.items()}  # fmt: skip
    return {"texts": len(known), "recall": recall, "others": len(others),
            "others_found_as_nearly_the_same": sum(index.find(text) is not None for text in others)}  # fmt: skip


def found(index: TextIndex, text: str, source: str) -> bool:
    match = index.find(text)
    return match is not None and match.text == source


def squares(size: int, draw: np.random.Generator) -> np.ndarray:
    made = np.empty((size, SIDE, SIDE), np.uint8)
    for start in range(0, size, 1000):
        part = draw.integers(0, 256, (len(made[start : start + 1000]), 8, 8), np.uint8)
        made[start : start + 1000] = part.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)
    return made


def stretches(benchmark: int, count: int = 2_048, rows: int = 512) -> dict[str, Any]:
    draw = np.random.default_rng(1)
    corpus, others = squares(count, draw), Hashed(squares(benchmark, draw))
    match_images(corpus[:1], others)  # makes the hashes
    seconds = []
    for size in (count, rows):
        start = time.process_time()
        for place in range(0, count, size):
            match_images(corpus[place : place + size], others)
        seconds.append(time.process_time() - start)
    return {"images": count, "rows": rows, "over_at_once": round(seconds[1] / seconds[0], 3)}


def speed(count: int, benchmark: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    corpus, others = squares(count, draw), squares(benchmark, draw)
    start = time.process_time()
    matches = match_images(corpus, others)
    taken = time.process_time() - start
    photos = [compressed(made_image(seed, 640, 480), 90) for seed in range(20)]
    files = []
    for photo in photos:
        files.append(io.BytesIO())
        photo.save(files[-1], "JPEG", quality=90)
    start = time.process_time()
    for file in files:
        greys(Image.open(file))
    each = (time.process_time() - start) / len(files)
    return {"corpus_images": count, "benchmark_images": benchmark, "compare_cpu_s": round(taken, 1),
            "matches": len(matches), "read_and_shrink_640x480_cpu_ms": round(1000 * each, 2)}  # fmt: skip


def command(flags: argparse.Namespace) -> dict[str, Any]:
    """Seconds on the clock, with nothing kept from an earlier run."""
    corpus, benchmark = flags.sizes
    names = write_photos(flags.work, corpus, benchmark)
    found, expected = flags.work / "found.json", benchmark // COPIED
    arguments = ["corpus", "contamination", str(names), "--folder", str(flags.work / "benchmark")]
    arguments += ["--num-proc", str(flags.workers), "--json", str(found)]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "xvlm2vec", *arguments], check=False)
    seconds = time.perf_counter() - start
    rows = {match["row"] for match in json.loads(found.read_text(encoding="utf-8"))["matches"]}
    if done.returncode != 1 or len(rows) != expected:
        raise RuntimeError(f"exit code {done.returncode}, {len(rows)} rows found where {expected} are copies")
    return {
        "corpus_images": corpus,
        "benchmark_images": benchmark,
        "workers": flags.workers,
        "copies": expected,
        "found": len(rows),
        "seconds": round(seconds, 1),
        "cores": os.cpu_count(),
        "beside": flags.beside,
    }


def write_photos(work: Path, corpus: int, benchmark: int) -> Path:
    """Files of both sides; the folder of the corpus that names its own."""
    names = work / "parallel"
    if not names.exists():
        for side in ("benchmark", "corpus"):
            (work / side).mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(write_photo, work / "benchmark"), range(benchmark), chunksize=200))
            list(pool.map(partial(write_photo, work / "corpus"), corpus_seeds(corpus, benchmark), chunksize=200))
        rows = [
            {"id": str(seed), "image": str(photo_file(work / "corpus", seed)), "text_en": None, "translations": [],
             "source": "made"}
            for seed in corpus_seeds(corpus, benchmark)
        ]  # fmt: skip
        Dataset.from_list(rows, features=parallel_features()).save_to_disk(str(work / "draft"))
        (work / "draft").rename(names)
    return names


def corpus_seeds(corpus: int, benchmark: int) -> list[int]:
    """Seeds of the images of the corpus; those below `OFFSET` are copies of the benchmark's."""
    copies = range(0, benchmark, COPIED)
    return [*copies, *range(OFFSET, OFFSET + corpus - len(copies))]


def photo_file(folder: Path, seed: int) -> Path:
    return folder / f"{seed}.jpg"


def write_photo(folder: Path, seed: int) -> None:
    """A photograph's stand-in: smooth colours with a sensor's noise, at the size of a JPEG from a camera."""
    file = photo_file(folder, seed)
    if file.exists():
        return
    draw = np.random.default_rng(seed)
    colours = Image.fromarray(draw.integers(0, 256, (18, 24, 3), np.uint8))
    smooth = np.asarray(colours.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    photo = Image.fromarray((smooth + grain()).clip(0, 255).astype(np.uint8))
    is_copy = folder.name == "corpus" and seed < OFFSET
    part = file.with_suffix(".part")
    (ImageOps.mirror(photo) if is_copy else photo).save(part, "JPEG", quality=60 if is_copy else 85)
    part.rename(file)


@cache
def grain() -> np.ndarray:
    """The noise, the same for all."""
    return np.random.default_rng(0).normal(0, 6, (HEIGHT, WIDTH, 1)).astype(np.int16)


ALONE: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "time": lambda flags: speed(*flags.sizes),
    "stretches": lambda flags: stretches(flags.sizes[1]),
    "command": command,
}

if __name__ == "__main__":
    main()
