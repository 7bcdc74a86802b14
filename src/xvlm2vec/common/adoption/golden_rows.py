"""Rows on which an embedder and its copy must agree: texts in many scripts, images, both, and the ends of the scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from xvlm2vec.modeling.rows import TextImageRow

TEXTS = (
    "a red bicycle leans against the wall",
    "Ein rotes Fahrrad lehnt an der Wand.",
    "Una bicicletta rossa è appoggiata al muro, vicino alla fontana!",
    "красный велосипед стоит у стены",
    "一辆红色的自行车靠在墙上",
    "壁に赤い自転車が立てかけてある",
    "빨간 자전거가 벽에 기대어 있다",
    "دراجة حمراء متكئة على الجدار",
    "दीवार से टिकी एक लाल साइकिल",
    "จักรยานสีแดงพิงกำแพง",
    "  Outer  blanks, TWO  inside\nand a line  ",
    "🚲 x² ½ <b>&amp;</b>",
)
LONG = "the quick brown fox jumps over the lazy dog while it rains "
CHARACTERS_A_TOKEN = 8
"""More than a token has in the long row, so that it is beyond a limit of tokens."""
LONGEST = 24_000
"""Characters of the long row at most: models without a limit would need minutes for more."""


@dataclass(frozen=True)
class GoldenRow:
    """A row, and what a report calls it."""

    name: str
    row: TextImageRow


def golden_rows(
    kinds: frozenset[str], prompts: dict[str, str], instructions: bool, limit: int | None
) -> list[GoldenRow]:
    """Rows of the kinds that an embedder takes.

    Args:
        kinds: Any of `text`, `image` and `image+text`.
        prompts: The embedder's named prompts.
        instructions: Whether it takes any instruction of a user's.
        limit: Tokens beyond which it cuts; the long row is longer.
    """
    rows: list[GoldenRow] = []
    chosen = {name: prompt for name, prompt in prompts.items() if prompt}
    if instructions:
        chosen["an instruction"] = "Find the image that shows this"
        chosen["an instruction with a full stop"] = "Find the image that shows this. "
    if "text" in kinds:
        rows += [GoldenRow(f"text {number}", TextImageRow(text)) for number, text in enumerate(TEXTS)]
        rows.append(GoldenRow("empty text", TextImageRow("")))
        rows.append(GoldenRow("long text", TextImageRow(long_text(limit))))
        rows.append(GoldenRow("text, no prompt", TextImageRow(TEXTS[0], (), "")))
        rows += [GoldenRow(f"text, {name}", TextImageRow(TEXTS[1], (), prompt)) for name, prompt in chosen.items()]
    if "image" in kinds:
        rows += [GoldenRow(f"image {number}", TextImageRow("", (picture,))) for number, picture in enumerate(images())]
    if "image+text" in kinds:
        first, second, _ = images()
        rows.append(GoldenRow("image and text", TextImageRow(TEXTS[0], (first,))))
        rows.append(GoldenRow("image and text in another script", TextImageRow(TEXTS[4], (second,))))
        rows.append(GoldenRow("two images and text", TextImageRow(TEXTS[2], (first, second))))
        rows += [
            GoldenRow(f"image and text, {name}", TextImageRow(TEXTS[1], (first,), prompt))
            for name, prompt in chosen.items()
        ]
    return rows


def long_text(limit: int | None) -> str:
    """A text of more tokens than the limit, as far as that is reasonable."""
    characters = min((limit or 512) * CHARACTERS_A_TOKEN, LONGEST)
    return LONG * (characters // len(LONG) + 1)


def images() -> tuple[Image.Image, Image.Image, Image.Image]:
    """Three images, wide, high and square."""
    return _waves(96, 64, 1.0), _waves(60, 100, 2.0), _waves(72, 72, 3.0)


def _waves(width: int, height: int, pitch: float) -> Image.Image:
    """An image of colour waves: smooth, so that it resizes alike everywhere, and with something in every corner."""
    across, down = np.meshgrid(np.linspace(0, pitch, width), np.linspace(0, pitch, height))
    waves = [np.sin(2 * np.pi * (across + down * turn)) for turn in (0.5, 1.0, -0.7)]
    return Image.fromarray(np.stack([(wave * 0.5 + 0.5) * 255 for wave in waves], axis=-1).astype("uint8"))
