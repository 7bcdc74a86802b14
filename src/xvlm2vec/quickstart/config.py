"""Settings of the quickstart: what a run does, and how much of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """How much a run does.

    Args:
        concepts: Emoji of the world.
        image_size: Side of the images in pixels.
        layers: Layers of each tower.
        vocab_size: Of the tokenizer.
        lessons: The teacher's curriculum: steps, and shares of the tasks.
        teacher_batch: Rows of a contrastive step.
        distill_steps: Steps of the distillation.
        distill_batch: English rows of a distillation step.
        translations_per_row: Translations drawn for each of them.
        test_rows: Rows of each task, at most.
    """

    concepts: int
    image_size: int
    layers: int
    vocab_size: int
    lessons: tuple[tuple[int, dict[str, float]], ...]
    teacher_batch: int
    distill_steps: int
    distill_batch: int
    translations_per_row: int
    test_rows: int


DEFAULT = Sizes(
    concepts=300,
    image_size=48,
    layers=3,
    vocab_size=6_000,
    lessons=(
        (350, {"c": 1.0}),
        (550, {"c": 0.2, "i2t": 0.4, "t2i": 0.4}),
        (1_200, {"c": 0.1, "i2t": 0.1, "t2i": 0.1, "vqa": 0.55, "vg": 0.15}),
    ),
    teacher_batch=64,
    distill_steps=1_200,
    distill_batch=40,
    translations_per_row=4,
    test_rows=1_000,
)
SMALL = Sizes(
    concepts=64,
    image_size=32,
    layers=2,
    vocab_size=2_000,
    lessons=((220, {"c": 1.0}), (130, {"c": 0.3, "i2t": 0.3, "t2i": 0.2, "vqa": 0.1, "vg": 0.1})),
    teacher_batch=40,
    distill_steps=220,
    distill_batch=40,
    translations_per_row=2,
    test_rows=250,
)
SMALL_LANGUAGES = ("de", "ja")
SMALL_CONTROLS = ("ko",)


@dataclass(frozen=True)
class QuickstartConfig:
    """Flags of `xvlm2vec quickstart`.

    Args:
        output: The run's folder.
        small: Under two minutes: fewer concepts, smaller images, two languages and one control.
        languages: Codes of the languages to teach; by default eleven, or two with `small`.
        lora: Train an activated adapter (and the token embeddings) instead of all weights: English and images stay.
        seed: Of the world, the weights and the order of the rows.
        sizes: How much is done; by default `DEFAULT`, or `SMALL` with `small`.
    """

    output: str
    small: bool = False
    languages: tuple[str, ...] = ()
    lora: bool = False
    seed: int = 0
    sizes: Sizes = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.sizes is None:
            object.__setattr__(self, "sizes", SMALL if self.small else DEFAULT)

    def settings(self) -> dict[str, Any]:
        """What decides the outcome of a run: all but where it goes."""
        return {key: value for key, value in asdict(self).items() if key != "output"}


def languages_of(text: str | Sequence[str]) -> tuple[str, ...]:
    """`"de,fr"`, `["de", "fr"]` or `["de,fr"]` as a tuple of codes."""
    parts = [text] if isinstance(text, str) else text
    return tuple(code.strip() for part in parts for code in part.split(",") if code.strip())
