r"""Names of emoji in 14 languages, as tokens and as pixels: how many tokens each takes, and how much time.

    python benchmarks/text_as_pixels.py --json benchmarks/results/text_as_pixels.json \
        --fonts DejaVuSans.ttf,wqy-microhei.ttc

The model is tiny and untrained, which costs do not depend on; its tokenizer has learned from English names. What either
road teaches is measured by `text_as_pixels_quality.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec import XVLM2VecModel
from xvlm2vec.corpus.emoji.text import LANGUAGES
from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig, build_tiny_model, train_tokenizer
from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig
from xvlm2vec.modeling.text_pixels import TextPixels

CONCEPTS, SIDE, FONT_SIZE, MARGIN, WORDS = 64, 64, 9, 1, 600
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--fonts", required=True, help="font files, with commas between them")
    parser.add_argument("--beside", default="nothing", help="what else ran on the machine")
    flags = parser.parse_args()
    fonts = flags.fonts.split(",")
    pixels = TextPixels(fonts, size=FONT_SIZE, side=SIDE, margin=MARGIN)
    world = EmojiWorld.load(EmojiWorldConfig(concepts=CONCEPTS))
    config = TinyModelConfig(image_size=SIDE, vision_layers=2, text_layers=2, vocab_size=WORDS)
    model, _ = build_tiny_model(config, world.names("en"))
    of_all = train_tokenizer([name for code in LANGUAGES for name in world.names(code)], WORDS)
    content = {
        "name": "text_as_pixels",
        "settings": {"concepts": CONCEPTS, "side": SIDE, "font_size": FONT_SIZE, "words_of_a_tokenizer": WORDS},
        "fonts": [Path(font).name for font in fonts],
        "beside": flags.beside,
        "costs": {code: costs(world.names(code), model, pixels, of_all) for code in LANGUAGES},
    }
    print(json.dumps(content, indent=1))
    flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def costs(names: Sequence[str], model: XVLM2VecModel, pixels: TextPixels, of_all: Any) -> dict[str, float]:
    """Tokens and milliseconds of a name by each road."""
    drawn = model.processor(images=[pixels.draw(names[0])])["input_ids"].shape[1]
    ms = times(
        lambda: model.encode(text=names),
        lambda: model.encode(text=names, text_as_pixels=pixels),
        lambda: [pixels.draw(name) for name in names],
    )
    return {
        "tokens_by_english_tokenizer": mean_tokens(model.processor.tokenizer, names),
        "tokens_by_tokenizer_of_all": mean_tokens(of_all, names),
        "tokens_drawn": drawn,
        **dict(zip(("ms_tokens", "ms_pixels", "ms_drawing_alone"), ms, strict=True)),
    }


def mean_tokens(tokenizer: Any, names: Sequence[str]) -> float:
    return round(statistics.mean(len(tokenizer(name)["input_ids"]) for name in names), 1)


def times(*ways: Callable[[], object]) -> list[float]:
    """Milliseconds of processor time a name, medians of interleaved repeats."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(REPEATS):
        for way, seconds in zip(ways, taken, strict=True):
            started = time.process_time()
            way()
            seconds.append(time.process_time() - started)
    return [round(1000 * statistics.median(seconds) / CONCEPTS, 3) for seconds in taken]


if __name__ == "__main__":
    main()
