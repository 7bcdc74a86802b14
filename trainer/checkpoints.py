"""Which checkpoint a killed run can go on from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

logger = logging.getLogger(__name__)

# transformers.Trainer writes this file last: where it is whole, so is the checkpoint.
LAST_FILE = "trainer_state.json"


def newest_complete_checkpoint(folder: str | Path) -> str | None:
    """Path of the newest `checkpoint-<step>` below a folder that was written to its end, or `None`.

    Torn checkpoints, left by a process that was killed while writing, are passed over with a warning.
    """
    found = sorted(Path(folder).glob("checkpoint-*"), key=_step, reverse=True)
    for checkpoint in found:
        if _is_complete(checkpoint):
            return str(checkpoint)
        logger.warning("Passing over %s: it was not written to its end.", checkpoint.name)
    return None


def _step(checkpoint: Path) -> int:
    suffix = checkpoint.name.rpartition("-")[2]
    return int(suffix) if suffix.isdigit() else -1


def _is_complete(checkpoint: Path) -> bool:
    try:
        return json.loads((checkpoint / LAST_FILE).read_text(encoding="utf-8"))["global_step"] == _step(checkpoint)
    except (OSError, ValueError, KeyError):
        return False
