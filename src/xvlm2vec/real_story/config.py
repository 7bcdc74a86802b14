"""Settings of the real story: what a run does, and how much of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

CONTROLS = ("hu", "ka")
"""Never taught: one language in Latin letters, one in a script that no other language shares."""


@dataclass(frozen=True)
class Student:
    """One distillation.

    Args:
        adapter: `activated` or `lora`.
        seed: Of its first weights and the order of the rows.
    """

    adapter: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.adapter}-{self.seed}"


@dataclass(frozen=True)
class Sizes:
    """How much a run does.

    Args:
        every: Of the rows of each part every so many are used: 1 for all, 10 for a tenth.
        languages: Languages that are taught, without regions; none for all that there are.
        pair_epochs: Passes over the English pairs.
        pair_batch: Pairs of a contrastive step.
        distill_epochs: Passes over the parallel rows.
        distill_batch: English rows of a distillation step.
        translations_per_row: Translations drawn for each of them.
        students: The distillations.
        sentence_languages: Languages in which GCompris' sentences are measured; none for all.
        emoji_languages: Languages in which names of emoji are measured, in the other drawing style; none for all.
        time: What training and measuring take of the time of a full run, for telling how long it will last.
    """

    every: int
    languages: tuple[str, ...]
    pair_epochs: int
    pair_batch: int
    distill_epochs: int
    distill_batch: int
    translations_per_row: int
    students: tuple[Student, ...]
    sentence_languages: tuple[str, ...]
    emoji_languages: tuple[str, ...]
    time: float


FULL = Sizes(
    every=1,
    languages=(),
    pair_epochs=6,
    pair_batch=32,
    distill_epochs=12,
    distill_batch=64,
    translations_per_row=2,
    students=(Student("activated", 0), Student("lora", 0), Student("activated", 1), Student("activated", 2)),
    sentence_languages=(),
    emoji_languages=(),
    time=1,
)
SMOKE = Sizes(
    every=10,
    languages=("de", "ja", "hi", "km"),
    pair_epochs=1,
    pair_batch=32,
    distill_epochs=2,
    distill_batch=32,
    translations_per_row=2,
    students=(Student("activated", 0), Student("lora", 0)),
    sentence_languages=("en", "de"),
    emoji_languages=("en", "de"),
    time=0.03,
)


@dataclass(frozen=True)
class RealStoryConfig:
    """Flags of `xvlm2vec real-story`.

    Args:
        output: The run's folder.
        packages: Where packages lie, or are put.
        smoke: A tenth of the rows, in four languages and once: shows that all works, and measures nothing.
        sizes: How much is done; by default `FULL`, or `SMOKE` with `smoke`.
    """

    output: str
    packages: str
    smoke: bool = False
    sizes: Sizes = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.sizes is None:
            object.__setattr__(self, "sizes", SMOKE if self.smoke else FULL)

    def settings(self) -> dict[str, Any]:
        """What decides the outcome of a run: all but where things lie."""
        return {key: value for key, value in asdict(self).items() if key not in {"output", "packages"}}
