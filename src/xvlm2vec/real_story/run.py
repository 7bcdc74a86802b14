"""The real story from packages to a verified release, in stages that an interruption does not undo."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.run_state import RunState

from .config import RealStoryConfig
from .parts import check_libraries

if TYPE_CHECKING:
    from .plan import Stage

logger = logging.getLogger(__name__)

NEEDS_MB = 6_000


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
    from .plan import REPORT, stages_of

    state = RunState(config.output, config.settings(), NEEDS_MB)
    plan = stages_of(config, state)
    started = time.perf_counter()
    for number, stage in enumerate(plan):
        logger.info("[%d/%d] %s%s", number + 1, len(plan), stage.title, time_left(plan, number, state, started))
        state.run(stage.name, stage.call)
    report: dict[str, Any] = json.loads((Path(config.output) / REPORT).read_text(encoding="utf-8"))
    return report


def time_left(plan: Sequence[Stage], number: int, state: RunState, started: float) -> str:
    """Minutes that a run has taken, and about how many are left; nothing before there is something to go by."""
    done = [stage for stage in plan[:number] if stage.name in state.seconds]
    seconds, share = sum(state.seconds[stage.name] for stage in done), sum(stage.share for stage in done)
    if seconds < 60:
        return ""
    left = seconds / share * sum(stage.share for stage in plan[number:])
    return f" ({(time.perf_counter() - started) / 60:.0f} min so far, about {left / 60:.0f} min left)"
