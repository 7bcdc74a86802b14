"""The whole story on a laptop: an English embedder that becomes multilingual, measured and released."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from xvlm2vec.common.files import write_json

from .config import QuickstartConfig
from .run_folder import RunFolder

logger = logging.getLogger(__name__)


def run_quickstart(run: RunFolder | QuickstartConfig) -> dict[str, Any]:
    """Runs every stage that is not done yet.

    Args:
        run: The run's folder, or the settings of one.

    Returns:
        The content of `report.json`.
    """
    if isinstance(run, QuickstartConfig):
        run = RunFolder(run)
    plan = stages_of(run)
    for number, (name, title, stage) in enumerate(plan, start=1):
        logger.info("[%d/%d] %s", number, len(plan), title)
        run.state.run(name, stage)
    return _with_all_seconds(run)


def stages_of(run: RunFolder) -> list[tuple[str, str, Callable[[], None]]]:
    """The stages in their order: a name, what is told, and the call with its inputs."""
    from . import stages
    from .release import release_student
    from .report import write_outcome

    config, world, path = run.config, run.world, run.path

    def measure(name: str, load: Callable[[], tuple[Any, Any]]) -> Callable[[], None]:
        return lambda: stages.measure(name, load(), run.benchmark, config.seed, path("scores") / name)

    return [
        (
            "world",
            "Making the world and an untrained model",
            partial(stages.make_model, world, config, path("untrained")),
        ),
        (
            "teacher",
            "Teaching English",
            partial(stages.teach_english, world, config, path("untrained"), path("teacher")),
        ),
        ("teacher scores", "Measuring the English teacher", measure("teacher", partial(run.load, "teacher"))),
        (
            "student",
            f"Distilling into {len(run.trained_languages)} languages",
            lambda: stages.distil(world, config, run.load("teacher"), path(run.student)),
        ),
        ("student scores", "Measuring the multilingual student", measure("student", run.load_student)),
        ("release", "Releasing the student and proving that it loads", partial(release_student, run)),
        ("report", "Writing the report", partial(write_outcome, run)),
    ]


def _with_all_seconds(run: RunFolder) -> dict[str, Any]:
    """Adds to `report.json` the seconds of the last stage, which could not know its own."""
    path = run.path("report.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    report["seconds"] = run.state.seconds
    write_json(path, report)
    return report
