"""The commands of docs/remote-sensing.md on made tiles: captioned, translated, checked, distilled, scored.

    python benchmarks/remote_sensing.py --folder runs/remote-sensing --json benchmarks/results/remote_sensing.json

A tile shows two things on a ground from above, as its caption says: "a pond and red roofs in the forest". A quarter of
the combinations is held out for the test. What is done is not run again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from xvlm2vec.cli import main as xvlm2vec
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model

SIDE, DRAWN = 32, 96
TILES, LANGUAGES = 1_000, ("en", "de", "fr")
RECIPE = Path(__file__).resolve().parents[1] / "configs" / "recipes" / "remote-sensing.yaml"
Brush = ImageDraw.ImageDraw
Box = tuple[float, float, float, float]

# Each in English, German, French.
GROUNDS = {
    "field": ("between fields", "zwischen Feldern", "entre des champs"),
    "forest": ("in the forest", "im Wald", "dans la forêt"),
    "desert": ("in the desert", "in der Wüste", "dans le désert"),
    "meadow": ("on a meadow", "auf einer Wiese", "dans un pré"),
}
THINGS = {
    "river": ("a river", "ein Fluss", "une rivière"),
    "pond": ("a pond", "ein Teich", "un étang"),
    "runway": ("a runway", "eine Landebahn", "une piste d'atterrissage"),
    "crossing": ("a road crossing", "eine Straßenkreuzung", "un carrefour"),
    "roofs": ("red roofs", "rote Dächer", "des toits rouges"),
    "tanks": ("white tanks", "weiße Tanks", "des réservoirs blancs"),
    "stadium": ("a stadium", "ein Stadion", "un stade"),
    "greenhouses": ("greenhouses", "Gewächshäuser", "des serres"),
}
AND = (" and ", " und ", " et ")
COLORS = {"field": (176, 158, 92), "forest": (42, 84, 44), "desert": (214, 184, 136), "meadow": (112, 160, 78)}
Scene = tuple[str, str, str]
"""Two things, in the order of `THINGS`, and the ground."""

STEPS = "--per-device-train-batch-size 40 --learning-rate 4e-3 --muon-learning-rate 2e-3"
COMMANDS = (
    "corpus csv tiles/train.csv --images tiles/images --output data --test-rows 0",
    "corpus csv tiles/test.csv --images tiles/images --output test --test-rows 28",
    "translate data/parallel --words tiles/words.csv --languages de,fr --output translated",
    "corpus check translated/parallel --output checked",
    f"contrast --model tiny --data data/pairs --output runs/teacher {STEPS} --max-steps 120 --save-steps 120",
    f"distill --config {RECIPE} --model runs/teacher --data checked/parallel --output runs/student"
    " --per-device-train-batch-size 40 --gradient-accumulation-steps 1 --learning-rate 1e-3 --num-train-epochs 1"
    " --max-steps 50 --bf16 false --activation-checkpointing false",
    "evaluate runs/teacher --benchmark folder --data test/benchmark --templates none --output scores/teacher",
    "evaluate runs/student --benchmark folder --data test/benchmark --templates none --output scores/student",
    "report scores/teacher scores/student --output report.md",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where data and runs go")
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    flags = parser.parse_args()
    target = flags.json.resolve()
    flags.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(flags.folder)
    train, test = split_scenes()
    make_tiles(Path("tiles"), train, test)
    make_model(Path("tiny"), train)
    for command in COMMANDS:
        if xvlm2vec(command.split()):
            raise SystemExit(f"failed: xvlm2vec {command}")
    content = {
        "name": "remote_sensing",
        "commands": [command.replace(f"{RECIPE.parents[2]}/", "") for command in COMMANDS],
        "combinations": {"train": len(train), "test": len(test)},
        "tiles": TILES,
        "scores": {model: scores(model) for model in ("teacher", "student")},
    }
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def split_scenes() -> tuple[list[Scene], list[Scene]]:
    """All combinations, three quarters of them for the training, in an order drawn once."""
    scenes = [(*pair, ground) for pair in itertools.combinations(THINGS, 2) for ground in GROUNDS]
    order = np.random.default_rng(0).permutation(len(scenes))
    cut = 3 * len(scenes) // 4
    return [scenes[place] for place in order[:cut]], [scenes[place] for place in order[cut:]]


def caption(scene: Scene, language: str) -> str:
    place = LANGUAGES.index(language)
    first, second, ground = scene
    return f"{THINGS[first][place]}{AND[place]}{THINGS[second][place]} {GROUNDS[ground][place]}"


def make_tiles(folder: Path, train: Sequence[Scene], test: Sequence[Scene]) -> None:
    """Tiles with English captions to train on, those of the test in all languages, and the list of translations."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(1)
    drawn = [train[draw.integers(len(train))] for _ in range(TILES)]
    write_table(folder / "train.csv", ["image", "en"], tile_rows(folder, "train", drawn, ("en",)))
    twice = [train[0]] * 2  # rows that share a text are never held out, and a corpus must not be empty
    write_table(folder / "test.csv", ["image", *LANGUAGES], tile_rows(folder, "test", [*test, *twice], LANGUAGES))
    write_table(folder / "words.csv", LANGUAGES, ([caption(scene, code) for code in LANGUAGES] for scene in train))


def tile_rows(folder: Path, part: str, scenes: Sequence[Scene], languages: Sequence[str]) -> Iterator[list[str]]:
    for number, scene in enumerate(scenes):
        name = f"{part}-{number:04}.png"
        tile(scene, [number, part == "test"]).save(folder / "images" / name)
        yield [name, *(caption(scene, language) for language in languages)]


def write_table(path: Path, header: Sequence[str], rows: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def make_model(folder: Path, train: Sequence[Scene]) -> None:
    """A tiny untrained embedder, which knows the letters of all languages."""
    if (folder / "model.safetensors").is_file():
        return
    config = TinyModelConfig(image_size=SIDE, vision_layers=2, text_layers=2, vocab_size=600)
    model, processor = build_tiny_model(config, [caption(scene, code) for scene in train for code in LANGUAGES])
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def tile(scene: Scene, seed: Sequence[int]) -> Image.Image:
    """A square from above, turned by quarters at random, with one thing in each half."""
    draw = np.random.default_rng(seed)
    *things, ground = scene
    image = ground_image(ground, draw)
    brush = ImageDraw.Draw(image)
    halves: list[Box] = [(4, 4, DRAWN - 4, DRAWN / 2 - 4), (4, DRAWN / 2 + 4, DRAWN - 4, DRAWN - 4)]
    for thing, place in zip(things, draw.permutation(2), strict=True):
        PAINTERS[thing](brush, halves[place], draw)
    image = image.rotate(90 * int(draw.integers(4)))
    pixels = np.asarray(image, dtype=np.float32) + draw.normal(0, 5, (DRAWN, DRAWN, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BOX)


def ground_image(ground: str, draw: np.random.Generator) -> Image.Image:
    """Its color; fields have stripes and the forest has crowns of trees."""
    color = np.array(COLORS[ground], dtype=np.float32) + draw.normal(0, 8, 3)
    plane = np.tile(color, (DRAWN, DRAWN, 1))
    if ground == "field":
        width = int(draw.integers(6, 12))
        plane[(np.arange(DRAWN) // width) % 2 == 0] *= 0.8
    if ground == "forest":
        crowns = draw.uniform(0.6, 1.2, (DRAWN // 6, DRAWN // 6, 1))
        plane *= np.kron(crowns, np.ones((6, 6, 1)))
    return Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))


def river(brush: Brush, box: Box, draw: np.random.Generator) -> None:
    left, top, right, bottom = box
    middle = (top + bottom) / 2
    points = [(x, middle + 9 * np.sin(x / 14 + draw.uniform(0, 0.4))) for x in np.linspace(left - 4, right + 4, 14)]
    brush.line(points, fill=(52, 96, 150), width=10, joint="curve")


def pond(brush: Brush, box: Box, draw: np.random.Generator) -> None:
    x, y = center(box, draw)
    brush.ellipse((x - 17, y - 13, x + 17, y + 13), fill=(48, 90, 148))


def runway(brush: Brush, box: Box, draw: np.random.Generator) -> None:
    left, _, right, _ = box
    y = center(box, draw)[1]
    brush.rectangle((left, y - 7, right, y + 7), fill=(92, 92, 96))
    for x in range(int(left) + 6, int(right) - 6, 12):
        brush.rectangle((x, y - 1, x + 6, y + 1), fill=(240, 240, 240))


def crossing(brush: Brush, box: Box, draw: np.random.Generator) -> None:
    left, top, right, bottom = box
    x, y = center(box, draw)
    brush.rectangle((left, y - 3, right, y + 3), fill=(128, 124, 120))
    brush.rectangle((x - 3, top, x + 3, bottom), fill=(128, 124, 120))


def roofs(brush: Brush, box: Box, draw: np.random.Generator) -> None:
    for x, y in grid(box, 22, 20):
        brush.rectangle((x, y, x + 12, y + 10), fill=(186, 62, 48))


def tanks(brush: Brush, box: Box, draw: np.random.Generator) -> None:
    for x, y in grid(box, 28, 21):
        brush.ellipse((x, y, x + 16, y + 16), fill=(238, 238, 240))


def stadium(brush: Brush, box: Box, draw: np.random.Generator) -> None:
    x, y = center(box, draw)
    brush.ellipse((x - 22, y - 15, x + 22, y + 15), fill=(196, 98, 66))
    brush.ellipse((x - 15, y - 9, x + 15, y + 9), fill=(84, 176, 84))


def greenhouses(brush: Brush, box: Box, draw: np.random.Generator) -> None:
    for x, _ in grid(box, 14, 60):
        brush.rectangle((x, box[1] + 4, x + 8, box[3] - 4), fill=(206, 222, 232))


def center(box: Box, draw: np.random.Generator) -> tuple[float, float]:
    left, top, right, bottom = box
    return (left + right) / 2 + draw.uniform(-14, 14), (top + bottom) / 2 + draw.uniform(-4, 4)


def grid(box: Box, across: int, down: int) -> Iterator[tuple[int, int]]:
    left, top, right, bottom = map(int, box)
    yield from itertools.product(range(left + 2, right - across // 2, across), range(top + 2, bottom - down // 2, down))


PAINTERS: dict[str, Callable[[Brush, Box, np.random.Generator], None]] = {
    "river": river, "pond": pond, "runway": runway, "crossing": crossing, "roofs": roofs, "tanks": tanks,
    "stadium": stadium, "greenhouses": greenhouses,
}  # fmt: skip


def scores(model: str) -> dict[str, dict[str, float]]:
    """Precision at 1 by language and task."""
    rows: list[dict[str, Any]] = json.loads(Path(f"scores/{model}/results.json").read_text(encoding="utf-8"))["rows"]
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["language"], {})[row["task"]] = round(float(row["p_at_1"]), 4)
    return found


if __name__ == "__main__":
    main()
