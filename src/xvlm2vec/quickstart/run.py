"""The whole story on a laptop: an English embedder that becomes multilingual, measured and released."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.run_state import RunState, write_json
from xvlm2vec.common.tasks import TASK_TITLES

if TYPE_CHECKING:
    from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig
    from xvlm2vec.corpus.emoji.world import EmojiWorld

logger = logging.getLogger(__name__)

TASKS = {task: TASK_TITLES[task] for task in ("c", "i2t", "t2i", "vqa", "vg")}
NEEDS_MB = 500


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
        lora: Train an adapter (and the token embeddings) instead of all weights.
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


class Quickstart:
    """One run: its world, its folders and its stages.

    Args:
        config: Flags.

    Raises:
        ValueError: A language is unknown, or the output folder cannot be used.
    """

    def __init__(self, config: QuickstartConfig) -> None:
        self.config = config
        self.world = make_world(config)
        self.folder = Path(config.output)
        self.state = RunState(self.folder, config.settings(), NEEDS_MB)

    @property
    def trained_languages(self) -> tuple[str, ...]:
        """Codes of the languages that are taught."""
        return self.world.config.taught_languages

    @property
    def control_languages(self) -> tuple[str, ...]:
        """Codes of the languages that are measured and never taught."""
        return self.world.config.control_languages

    def path(self, name: str) -> Path:
        """A file or folder of the run."""
        return self.folder / name

    def run(self) -> dict[str, Any]:
        """Runs every stage that is not done yet.

        Returns:
            The content of `report.json`.
        """
        from . import stages
        from .report import write_outcome

        plan = (
            ("world", "Making the world and an untrained model", stages.make_model),
            ("teacher", "Teaching English", stages.teach_english),
            ("teacher scores", "Measuring the English teacher", stages.measure_teacher),
            ("student", f"Distilling into {len(self.trained_languages)} languages", stages.distil),
            ("student scores", "Measuring the multilingual student", stages.measure_student),
            ("release", "Releasing the student and proving that it loads", stages.release),
        )
        for number, (name, title, stage) in enumerate(plan, start=1):
            logger.info("[%d/%d] %s", number, len(plan) + 1, title)
            self.state.run(name, lambda stage=stage: stage(self))  # type: ignore[misc]
        logger.info("[%d/%d] Writing the report", len(plan) + 1, len(plan) + 1)
        self.state.run("report", lambda: write_outcome(self))
        return finish_report(self)


def run_quickstart(config: QuickstartConfig) -> dict[str, Any]:
    """Runs the story, or the rest of it, and returns the content of `report.json`."""
    return Quickstart(config).run()


def finish_report(run: Quickstart) -> dict[str, Any]:
    """Adds to `report.json` the seconds of the last stage, which could not know its own."""
    import json

    path = run.path("report.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    report["seconds"] = run.state.seconds
    write_json(path, report)
    return report


def make_world(config: QuickstartConfig) -> EmojiWorld:
    """The emoji world of a run: English, the languages to teach, and the controls.

    Raises:
        ValueError: A language is unknown, or English is to be taught.
    """
    from xvlm2vec.corpus.emoji.text import check_languages
    from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig

    defaults = EmojiWorldConfig()
    taught = check_languages(
        config.languages or (SMALL_LANGUAGES if config.small else defaults.taught_languages), defaults.languages
    )
    if "en" in taught:
        raise ValueError("English is what the teacher knows; leave it out of --languages.")
    controls = SMALL_CONTROLS if config.small else defaults.control_languages
    controls = tuple(code for code in controls if code not in taught)
    return EmojiWorld.load(
        EmojiWorldConfig(
            concepts=config.sizes.concepts,
            image_size=config.sizes.image_size,
            seed=config.seed,
            languages=("en", *taught, *controls),
            taught_languages=taught,
            control_languages=controls,
        )
    )


def tiny_model_config(config: QuickstartConfig) -> TinyModelConfig:
    """Sizes of the run's model."""
    from xvlm2vec.corpus.emoji.tiny_model import TinyModelConfig

    sizes = config.sizes
    return TinyModelConfig(
        image_size=sizes.image_size,
        vision_layers=sizes.layers,
        text_layers=sizes.layers,
        vocab_size=sizes.vocab_size,
        seed=config.seed,
    )


def languages_of(text: str | Sequence[str]) -> tuple[str, ...]:
    """`"de,fr"`, `["de", "fr"]` or `["de,fr"]` as a tuple of codes."""
    parts = [text] if isinstance(text, str) else text
    return tuple(code.strip() for part in parts for code in part.split(",") if code.strip())
