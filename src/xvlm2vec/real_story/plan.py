"""What a run of the real story does, and in which order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xvlm2vec.common.files import write_json, write_text
from xvlm2vec.common.run_state import RunState
from xvlm2vec.corpus.stored import load_parallel
from xvlm2vec.trainer.activated import languages_of_rows

from . import stages
from .checkpoint import make_checkpoint
from .comparison import compare
from .config import CONTROLS, RealStoryConfig, Student
from .data import PARALLEL, TEST, make_data
from .figures import draw_languages, draw_tokens, token_correlation
from .parts import fetch_parts
from .report import by_kind, story_report
from .table import language_tables

TEACHER = "teacher"
COMPARISON = "comparison.json"
REPORT = "report.json"
MEASURING = {"stamps": 6, "sentences": 11, "emoji": 8}
"""Minutes of a model's turn on each benchmark of a full run."""


@dataclass(frozen=True)
class Stage:
    """A step of the story.

    Attributes:
        name: In `state.json`.
        title: What is told.
        share: Minutes of a full run on two idle cores of an AMD EPYC; only their ratios count.
        call: Does it.
    """

    name: str
    title: str
    share: float
    call: Callable[[], None]


def stages_of(config: RealStoryConfig, state: RunState) -> list[Stage]:
    """The stages in their order: a seed is distilled, measured and told before the next one begins."""
    story, students = _Story(config, state), config.sizes.students
    plan = [*story.english(), *story.measured(TEACHER, story.teacher)]
    for seed in sorted({student.seed for student in students}):
        for student in students:
            if student.seed == seed:
                plan += [story.distilled(student), *story.measured(student.name, story.models[student.name])]
        if seed == students[0].seed:
            plan.append(story.released())
        plan += story.told(seed)
    return plan


class _Story:
    """Where a run keeps what it makes, and the stages that make it."""

    def __init__(self, config: RealStoryConfig, state: RunState) -> None:
        self.config, self.state, self.sizes = config, state, config.sizes
        self.folder, self.packages = Path(config.output), Path(config.packages)
        self.data, self.scores, self.store = (self.folder / name for name in ("data", "scores", "embeddings"))
        self.teacher = self.folder / TEACHER / stages.MERGED
        self.models = {student.name: stages.model_of(self.folder, student) for student in self.sizes.students}
        self.benchmarks = stages.benchmarks_of(self.data, self.packages / "unpacked" / "gcompris", self.sizes)

    def english(self) -> list[Stage]:
        """From the packages to the teacher."""
        checkpoint = self.folder / "checkpoint"
        return [
            Stage("packages", "Getting the packages", 1, partial(fetch_parts, self.packages)),
            Stage(
                "checkpoint", "Putting both parts together and comparing them", 1,
                partial(make_checkpoint, self.packages, checkpoint, self.folder / "checkpoint.json"),
            ),
            Stage("data", "Reading and parting the rows", 1, partial(make_data, self.packages, self.sizes, self.data)),
            Stage(
                TEACHER, "Teaching English", 28 * self.sizes.time,
                partial(stages.teach_english, checkpoint, self.data, self.sizes, self.folder / TEACHER),
            ),
        ]  # fmt: skip

    def measured(self, name: str, model: Path) -> list[Stage]:
        """Measuring a model, a stage for each benchmark."""
        return [
            Stage(
                f"{name} {benchmark}", f"Measuring {name} ({benchmark})", MEASURING[benchmark] * self.sizes.time,
                partial(stages.measure, model, flags, self.store, self.scores / name / benchmark),
            )
            for benchmark, flags in self.benchmarks.items()
        ]  # fmt: skip

    def distilled(self, student: Student) -> Stage:
        """Distilling a student."""
        call = partial(stages.distil, self.teacher, self.data, self.sizes, student, self.folder / student.name)
        title = f"Distilling ({student.adapter}, seed {student.seed})"
        return Stage(student.name, title, 24 * self.sizes.time, call)

    def released(self) -> Stage:
        """Releasing the first student."""
        return Stage("release", "Releasing the first student and verifying it", 3, self._release)

    def _release(self) -> None:
        first = self.sizes.students[0].name
        stages.release(
            self.teacher, self.models[first], taught(self.data), self.scores / first, self.scores / TEACHER,
            self.folder / "release",
        )  # fmt: skip

    def told(self, seed: int) -> list[Stage]:
        """What stands at the end of a seed: the comparison and the report, of all students so far."""
        so_far = {student.name: self.models[student.name] for student in self.sizes.students if student.seed <= seed}
        stamps, languages = self.data / TEST / "tuxpaint", stages.languages_of(self.sizes)
        call = partial(compare, stamps, languages, self.teacher, so_far, self.store, self.folder / COMPARISON)
        title = "Comparing with a sentence encoder and with Apertium"
        return [
            Stage(f"comparison {seed}", title, 3 * self.sizes.time, call),
            Stage(f"report {seed}", "Writing the report", 0.1, partial(write_report, self.config, self.state)),
        ]


def taught(data: Path) -> list[str]:
    """Codes of the languages that distillation has taught."""
    return languages_of_rows(load_parallel(data / PARALLEL))


def write_report(config: RealStoryConfig, state: RunState) -> None:
    """Writes `report.json` with the seconds of the stages so far, `languages.md` with the tables, and both figures."""
    folder = Path(config.output)
    names = [student.name for student in config.sizes.students]
    report = story_report(
        folder / "scores",
        TEACHER,
        names,
        taught(folder / "data"),
        smoke=config.smoke,
        settings=config.settings(),
        controls=list(CONTROLS),
        rows=json.loads((folder / "data" / "counts.json").read_text(encoding="utf-8")),
        checkpoint=json.loads((folder / "checkpoint.json").read_text(encoding="utf-8")),
        comparison=json.loads((folder / COMPARISON).read_text(encoding="utf-8")),
    )
    kinds = list(by_kind(names))
    report |= {"seconds": state.seconds, "peak_rss_mb": state.peak_rss_mb}
    report["gain and tokens per character"] = {kind: token_correlation(report, kind) for kind in kinds}
    write_json(folder / REPORT, report)
    write_text(folder / "languages.md", language_tables(report, kinds))
    draw_languages(report, kinds[0], folder / "languages.svg")
    draw_tokens(report, kinds[0], folder / "tokens.svg")
