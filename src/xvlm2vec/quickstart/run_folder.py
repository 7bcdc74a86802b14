"""The folder of a quickstart run: its settings, its world, and what its stages have left in it."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.run_state import STATE_FILE, RunState

from .config import SMALL_CONTROLS, SMALL_LANGUAGES, QuickstartConfig, Sizes

if TYPE_CHECKING:
    from xvlm2vec.corpus.benchmark import Benchmark
    from xvlm2vec.corpus.emoji.world import EmojiWorld
    from xvlm2vec.eval.results import Results
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
    from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

NEEDS_MB = 500


class RunFolder:
    """One run: its world, the places of its parts, and the stages that are done.

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

    @classmethod
    def open(cls, folder: str | Path) -> RunFolder:
        """The run of a folder, with the settings that it was begun with.

        Raises:
            ValueError: The settings are damaged.
        """
        path = Path(folder) / STATE_FILE
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
            sizes = settings["sizes"]
            sizes["lessons"] = tuple((steps, shares) for steps, shares in sizes["lessons"])
            values = {item.name: settings[item.name] for item in fields(QuickstartConfig) if item.name in settings}
            values |= {"sizes": Sizes(**sizes), "languages": tuple(settings["languages"])}
            config = QuickstartConfig(output=str(folder), **values)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold the settings of a run ({error}).") from error
        return cls(config)

    @property
    def trained_languages(self) -> tuple[str, ...]:
        """Codes of the languages that are taught."""
        return self.world.config.taught_languages

    @property
    def control_languages(self) -> tuple[str, ...]:
        """Codes of the languages that are measured and never taught."""
        return self.world.config.control_languages

    @property
    def student(self) -> str:
        """The name of the folder that the distillation writes: a whole model, or an adapter."""
        return "adapter" if self.config.lora else "student"

    def path(self, name: str) -> Path:
        """A file or folder of the run."""
        return self.folder / name

    def load(self, name: str) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
        """A model of the run and its processor."""
        from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
        from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

        folder = self.path(name)
        return XVLM2VecModel.from_pretrained(folder), XVLM2VecProcessor.from_pretrained(folder)

    @property
    def is_activated(self) -> bool:
        """Whether the student is an adapter beside the teacher; runs of older versions have one that is merged."""
        from xvlm2vec.flags.models import holds_activated

        return self.config.lora and holds_activated(str(self.path(self.student)))

    def load_merged(self) -> Any:
        """The teacher with the student's adapter on it, if it has one that is merged."""
        from xvlm2vec.trainer.adapters import load_adapter

        if not self.config.lora or self.is_activated:
            return None
        return load_adapter(self.load("teacher")[0], self.path("adapter"))

    def load_student(self) -> tuple[XVLM2VecModel, XVLM2VecProcessor]:
        """The student; an adapter lies beside the teacher, or is merged into it."""
        if not self.config.lora:
            return self.load("student")
        if not self.is_activated:
            return self.load_merged().merge_and_unload(), self.load("teacher")[1]
        from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

        model = XVLM2VecModel.from_pretrained(self.path("adapter"), base=str(self.path("teacher")))
        return model, self.load("teacher")[1]

    @cached_property
    def benchmark(self) -> Benchmark:
        """The test split in all languages of the run."""
        from xvlm2vec.corpus.emoji.benchmark import emoji_benchmark

        return emoji_benchmark(self.world, "test", rows=self.config.sizes.test_rows)

    def scores(self) -> dict[str, Results]:
        """The results of both models."""
        from xvlm2vec.eval.results import Results

        return {name: Results.load(self.path("scores") / name) for name in ("teacher", "student")}


def make_world(config: QuickstartConfig) -> EmojiWorld:
    """The emoji world of a run: English, the languages to teach, and the controls.

    Raises:
        ValueError: A language is unknown, or English is to be taught.
    """
    from xvlm2vec.corpus.emoji.world import teaching_world

    return teaching_world(
        config.languages or (SMALL_LANGUAGES if config.small else None),
        SMALL_CONTROLS if config.small else None,
        concepts=config.sizes.concepts,
        image_size=config.sizes.image_size,
        seed=config.seed,
    )
