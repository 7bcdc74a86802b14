"""Texts alone, before and after distillation: mteb's task classes on held-out captions of the emoji world.

    xvlm2vec quickstart --small --output runs/small
    python benchmarks/text_tasks.py runs/small/teacher runs/small/student --folder runs/texts \
        --json benchmarks/results/text_tasks.json

Captions are "A and B" of pairs that training held out. `similarity`: two captions, scored by how many things they
share. `search`: a caption asks for the one with the same things in the other order, or for the English one.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from xvlm2vec.cli import main as xvlm2vec
from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig

LANGUAGES = ("en", "de", "ja", "ko")
TAUGHT = ("de", "ja")
PAIRS = 600
Pair = tuple[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs=2, help="before and after")
    parser.add_argument("--folder", type=Path, required=True, help="where texts and scores go")
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--beside", default="nothing", help="what else ran on the machine")
    flags = parser.parse_args()
    world = EmojiWorld.load(EmojiWorldConfig(concepts=64, image_size=32, languages=LANGUAGES))
    held_out = [(a, b) for a in range(len(world)) for b in range(a) if world.split_of(a, b) == "test"]
    data = flags.folder / "data"
    for languages in [*LANGUAGES, *(f"{code}+en" for code in TAUGHT)]:
        write_similarity(data / "similarity" / f"{languages}.csv", world, held_out, languages)
        write_search(data / "search" / languages, world, held_out, languages)
    if xvlm2vec(["evaluate-texts", *flags.models, "--data", str(data), "--output", str(flags.folder / "scores")]):
        raise SystemExit("failed: xvlm2vec evaluate-texts")
    content = json.loads((flags.folder / "scores" / "texts.json").read_text(encoding="utf-8"))
    result = {"name": "text_tasks", "pairs_held_out": len(held_out), "beside": flags.beside, **content}
    flags.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def sides(languages: str) -> tuple[str, str]:
    """The languages of the first texts and of the others."""
    first, _, second = languages.partition("+")
    return first, second or first


def write_similarity(path: Path, world: EmojiWorld, held_out: list[Pair], languages: str) -> None:
    """Pairs of captions with two, one or no thing in common, equally many of each."""
    first, second = sides(languages)
    draw = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sentence1", "sentence2", "score"])
        for number in range(PAIRS):
            pair = held_out[draw.integers(len(held_out))]
            shared = number % 3
            options = [other for other in held_out if len({*pair} & {*other}) == shared]
            other = options[draw.integers(len(options))][::-1]
            table.writerow([world.caption(pair, first), world.caption(other, second), shared])


def write_search(folder: Path, world: EmojiWorld, held_out: list[Pair], languages: str) -> None:
    """Queries and texts in BEIR's layout."""
    first, second = sides(languages)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    queries = [world.caption(pair[::-1] if first == second else pair, first) for pair in held_out]
    texts = [world.caption(pair, second) for pair in held_out]
    write_lines(folder / "queries.jsonl", queries)
    write_lines(folder / "corpus.jsonl", texts)
    lines = ["query-id\tcorpus-id\tscore", *(f"{number}\t{number}\t1" for number in range(len(held_out)))]
    (folder / "qrels" / "test.tsv").write_text("\n".join([*lines, ""]), encoding="utf-8")


def write_lines(path: Path, texts: list[str]) -> None:
    rows: list[dict[str, Any]] = [{"_id": str(number), "text": text} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
