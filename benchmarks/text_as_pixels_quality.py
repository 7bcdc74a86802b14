r"""What an English model learns from names in 14 languages, read as tokens or drawn, on a world of 64 emoji.

    python benchmarks/text_as_pixels_quality.py runs/pixels --json benchmarks/results/text_as_pixels_quality.json \
        --fonts DejaVuSans.ttf,wqy-microhei.ttc --arms tokens,drawn

For each seed a tiny model learns English names as tokens. From there it learns names in all languages, as tokens or
drawn; rows, order and rates are the same. The arm "drawn tight four times" has smaller letters in a smaller square,
which the model's image processor enlarges, and four times the steps; "tokens of all" has a tokenizer of all languages
from the start. Held out are images (other scenes, and another artist's emoji) and, in each language but English, the
names of eight concepts, which only their spelling can tell. One thread. What is done is not done again, and the result
has all arms that are done.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from losses_emoji import BATCH, contrast_config, once, parse, read, spread
from text_as_pixels import CONCEPTS, FONT_SIZE, MARGIN, SIDE, WORDS

from xvlm2vec import XVLM2VecModel
from xvlm2vec.common.files import write_json
from xvlm2vec.corpus.emoji.specs import Spec, SpecSampler, draw
from xvlm2vec.corpus.emoji.text import LANGUAGES
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model
from xvlm2vec.corpus.emoji.world import STYLES, EmojiWorld
from xvlm2vec.modeling.text_pixels import TextPixels
from xvlm2vec.quickstart.config import SMALL, QuickstartConfig
from xvlm2vec.quickstart.run_folder import RunFolder
from xvlm2vec.trainer.contrastive_trainer import train_contrastive
from xvlm2vec.trainer.progress import StageBar

SIZES = replace(SMALL, concepts=CONCEPTS, image_size=SIDE, vocab_size=WORDS, teacher_batch=BATCH)
START_STEPS, STEPS = 80, 160
HIDDEN = 8
RENDERINGS = 2
TOKENS, DRAWN, TIGHT, OF_ALL = "tokens", "drawn", "drawn tight four times", "tokens of all"
ARMS = (TOKENS, DRAWN, TIGHT, OF_ALL)
TIMES = {TIGHT: 4}
TIGHT_DRAWING = {"size": 6, "side": 40, "margin": 0}
KIND = "pixels"
GROUPS = {"Latin script": LANGUAGES[:8], "other scripts": LANGUAGES[8:]}


@dataclass(frozen=True)
class Names:
    """Turns concepts, languages and seeds of scenes into pairs of a name and an image.

    Args:
        world: The world.
        pixels: Draws the names; without it they are texts.
    """

    world: EmojiWorld
    pixels: TextPixels | None = None

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """The columns of pairs for rows of `concept`, `language` and `seed`."""
        named = zip(batch["concept"], batch["language"], strict=True)
        names = [self.world.name(concept, language) for concept, language in named]
        scenes = zip(batch["concept"], batch["seed"], strict=True)
        images = [draw(self.world, Spec((concept,), seed))[1] for concept, seed in scenes]
        blank = [""] * len(names)
        drawn = [None if self.pixels is None else self.pixels.draw(name) for name in names]
        texts = names if self.pixels is None else blank
        return {"qry": texts, "qry_image": drawn, "pos_text": blank, "pos_image": images}


def main() -> None:
    flags = parse(__doc__, fonts="font files, with commas between them", arms=f"of {', '.join(ARMS)}")
    pixels = TextPixels(flags.fonts.split(","), size=FONT_SIZE, side=SIDE, margin=MARGIN)
    folders = [QuickstartConfig(str(flags.output / f"seed{seed}"), seed=seed, sizes=SIZES) for seed in flags.seeds]
    for arm in flags.arms.split(","):
        for run in map(RunFolder, folders):
            once(run, KIND, arm, partial(learn, run, arm, pixels))
    found = read(flags.output)
    done = {arm: [run for run in found if run["name"] == arm] for arm in ARMS}
    summary = {arm: summarise(runs) for arm, runs in done.items() if runs}
    settings = {
        "concepts": CONCEPTS, "side": SIDE, "font_size": FONT_SIZE, "words_of_a_tokenizer": WORDS, "batch": BATCH,
        "steps_in_english": START_STEPS, "steps": STEPS, "hidden_names_per_language": HIDDEN, "renderings": RENDERINGS,
        "tight": TIGHT_DRAWING, "fonts": [Path(font).name for font in pixels.fonts],
    }  # fmt: skip
    content = {"name": "text_as_pixels_quality", "beside": flags.beside, "settings": settings, "summary": summary}
    write_json(flags.json, {**content, "runs": found})
    print(json.dumps(summary, indent=1))


def learn(run: RunFolder, arm: str, pixels: TextPixels) -> dict[str, Any]:
    """Trains one arm from its English model, and scores it."""
    hidden = hidden_names(run.world, run.config.seed)
    steps = STEPS * TIMES.get(arm, 1)
    start, output = english(run, "all" if arm == OF_ALL else "en"), run.path(arm.replace(" ", "-"))
    drawing = {DRAWN: pixels, TIGHT: replace(pixels, **TIGHT_DRAWING)}.get(arm)
    rows = pairs(run.world, steps, f"{run.config.seed}/all", LANGUAGES, hidden)
    seconds = train(run, start, output, rows.with_transform(Names(run.world, drawing)))
    found = {"steps": steps, "training_seconds": round(seconds, 1), **scores(run, output, hidden, drawing)}
    shutil.rmtree(output)
    return found


def english(run: RunFolder, tokenizer: str) -> Path:
    """The model that knows English names, as tokens of one of two tokenizers; trained where it is missing."""
    output = run.path(f"english-{tokenizer}")
    run.state.run(output.name, lambda: teach_english(run, tokenizer, output))
    return output


def teach_english(run: RunFolder, tokenizer: str, output: Path) -> None:
    world, untrained = run.world, run.path(f"untrained-{tokenizer}")
    languages = ("en",) if tokenizer == "en" else LANGUAGES
    config = TinyModelConfig(
        image_size=SIDE, vision_layers=2, text_layers=2, vocab_size=WORDS, seed=run.config.seed
    )  # the sizes of which `text_as_pixels.py` measures the costs
    model, processor = build_tiny_model(config, [name for code in languages for name in world.names(code)])
    model.save_pretrained(untrained)
    processor.save_pretrained(untrained)
    rows = pairs(world, START_STEPS, f"{run.config.seed}/en", ("en",))
    train(run, untrained, output, rows.with_transform(Names(world)))


def hidden_names(world: EmojiWorld, seed: int) -> set[tuple[int, str]]:
    """Of each language but English, the concepts whose names are not shown."""
    draw_from = random.Random(f"hidden/{seed}")
    others = [language for language in LANGUAGES if language != "en"]
    return {(concept, language) for language in others for concept in draw_from.sample(range(len(world)), HIDDEN)}


def pairs(
    world: EmojiWorld,
    steps: int,
    stream: str,
    languages: Sequence[str],
    hidden: Collection[tuple[int, str]] = (),
) -> Dataset:
    """Batches of different concepts, each in a scene of its own and in a language that its name is shown in."""
    sampler, choose = SpecSampler(world, "train", f"names/{stream}"), random.Random(f"names/{stream}")
    rows = []
    for spec in (spec for _ in range(steps) for spec in sampler.block("c", BATCH)):
        concept = spec.answer
        shown = [language for language in languages if (concept, language) not in hidden]
        rows.append({"concept": concept, "language": choose.choice(shown), "seed": spec.seed})
    return Dataset.from_list(rows)


def train(run: RunFolder, model: Path, output: Path, rows: Dataset) -> float:
    """Trains on all rows, and returns the processor seconds that it took."""
    before = time.process_time()
    args = contrast_config(output, run.config.seed, sharing="off")
    train_contrastive(args, rows, [StageBar(f"{output.name} {run.config.seed}")], model=str(model))
    return time.process_time() - before


def scores(
    run: RunFolder, folder: Path, hidden: Collection[tuple[int, str]], pixels: TextPixels | None
) -> dict[str, Any]:
    """P@1 of names among the images of all concepts, by language, artist and whether the name was shown.

    A hidden name that another language writes alike, and shows, counts in neither. Beside it stands how alike the names
    of a language are to the model: the mean cosine of two of them.
    """
    world, model = run.world, XVLM2VecModel.from_pretrained(folder)
    keys = [(concept, language) for language in LANGUAGES for concept in range(len(world))]
    texts = [world.name(*key) for key in keys]
    shown = {text for key, text in zip(keys, texts, strict=True) if key not in hidden}
    queries = model.encode(text=texts, text_as_pixels=pixels)
    starts = {language: place * len(world) for place, language in enumerate(LANGUAGES)}
    found = []
    for style in STYLES:
        right = hits(model, queries, drawn_by(world, style))
        for language in LANGUAGES:
            for is_hidden in (False, True):
                chosen = [
                    right[place]
                    for place, key in enumerate(keys)
                    if key[1] == language and (key in hidden) == is_hidden and not (is_hidden and texts[place] in shown)
                ]
                if chosen:
                    row = {"language": language, "style": style, "hidden": is_hidden, "names": len(chosen)}
                    found.append({**row, "p_at_1": float(np.mean(chosen))})
    alike = {language: mean_cosine(queries[start : start + len(world)]) for language, start in starts.items()}
    return {"scores": found, "alike": alike}


def mean_cosine(units: np.ndarray) -> float:
    """Of two different rows, the mean over all pairs."""
    count = len(units)
    return round(float(((units @ units.T).sum() - count) / (count * (count - 1))), 4)


def hits(model: XVLM2VecModel, queries: np.ndarray, world: EmojiWorld) -> np.ndarray:
    """Of each name (names of all concepts, again and again) how often it finds its image."""
    sampler = SpecSampler(world, "test", "names")
    right = []
    for _ in range(RENDERINGS):
        images = [draw(world, Spec((concept,), sampler.seed()))[1] for concept in range(len(world))]
        best = (queries @ model.encode(images=images).T).argmax(axis=1)
        right.append(best == np.arange(len(queries)) % len(world))
    return np.mean(right, axis=0)


def drawn_by(world: EmojiWorld, style: str) -> EmojiWorld:
    """The same world in the style of an artist."""
    other = EmojiWorld.load(replace(world.config, style=style))
    if other.ids != world.ids:
        raise RuntimeError(f"{style} draws other concepts")
    return other


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """P@1 in percent over seeds: of shown names by language and by script, of hidden names by script."""
    of = partial(over_seeds, runs)
    noto, other = STYLES
    return {
        "seeds": [run["seed"] for run in runs],
        "steps": [run["steps"] for run in runs],
        "training_seconds": spread([run["training_seconds"] for run in runs], digits=0),
        "languages": {language: of((language,), noto) for language in LANGUAGES},
        "scripts": {name: of(languages, noto) for name, languages in GROUPS.items()},
        "scripts, another artist": {name: of(languages, other) for name, languages in GROUPS.items()},
        "scripts, hidden names": {name: of(languages, noto, hidden=True) for name, languages in GROUPS.items()},
    }


def over_seeds(
    runs: Sequence[dict[str, Any]], languages: Collection[str], style: str, hidden: bool = False
) -> dict[str, Any]:
    """The mean over names, and its spread over seeds."""
    values = []
    for run in runs:
        rows = [
            row
            for row in run["scores"]
            if row["language"] in languages and (row["style"], row["hidden"]) == (style, hidden)
        ]
        names = sum(row["names"] for row in rows)
        values.append(100 * sum(row["p_at_1"] * row["names"] for row in rows) / names)
    return spread(values, digits=1)


if __name__ == "__main__":
    main()
