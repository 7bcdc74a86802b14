"""What a run in stages has done so far, kept on disk so that the same command goes on after any interruption."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .files import write_json

logger = logging.getLogger(__name__)

STATE_FILE = "state.json"


class RunStateError(ValueError):
    """A run folder cannot be used: it holds something else, is damaged, or its disk is full."""


class RunState:
    """The stages of a run and how long each took, in `state.json`.

    Args:
        folder: The run's folder, made if it is missing.
        settings: What decides the outcome; another run's folder is refused.
        needs_mb: Free disk space, in megabytes, that the run needs.
        writes: Whether this process keeps the file; of several processes one does.
        renamed: Brings settings that an earlier version stored to the names of today.
        extendable: Settings, such as the number of steps, that may change: all stages are then run again, and are to
            go on from what they left.

    Raises:
        RunStateError: The folder holds other files, another run, or a damaged state, or its disk is too full.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: dict[str, Any],
        needs_mb: int = 0,
        writes: bool = True,
        renamed: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        extendable: Collection[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self.writes, self.extendable = writes, extendable
        self.settings = json.loads(json.dumps(settings))
        self._stages: dict[str, dict[str, Any]] = {}
        self._renamed = renamed
        self._open()
        if self._free_mb() < needs_mb:
            free = f"{self._free_mb()} MB are free and the run needs {needs_mb} MB"
            raise RunStateError(f"{self.folder}: {free}; make room.")

    def run(self, name: str, stage: Callable[[], None]) -> None:
        """Runs a stage, unless an earlier call finished it; its outcome must be on disk when it returns."""
        if name in self._stages:
            logger.info("%s: done before, in %.0f s", name, self._stages[name]["seconds"])
            return
        started = time.perf_counter()
        try:
            stage()
        except (OSError, SafetensorError) as error:
            raise RunStateError(
                f"{name}: {error}. The stages before are kept in {self.folder} ({self._free_mb()} MB are free there); "
                "the same command goes on from here."
            ) from error
        self._stages[name] = {"seconds": round(time.perf_counter() - started, 2), "peak_rss_mb": peak_memory_mb()}
        self._write()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each finished stage; of a resumed one, since it was resumed."""
        return {name: stage["seconds"] for name, stage in self._stages.items()}

    @property
    def peak_rss_mb(self) -> int:
        """Largest resident size, in megabytes, of this process and of those that finished the stages before."""
        return max([peak_memory_mb(), *(stage.get("peak_rss_mb", 0) for stage in self._stages.values())])

    def _open(self) -> None:
        path = self.folder / STATE_FILE
        if not path.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise RunStateError(
                    f"{self.folder} holds files but no run of this command; pass another --output, or empty it."
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write()
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            settings, self._stages = self._renamed(content["settings"]), content["stages"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunStateError(f"{path} is damaged ({error}); remove {self.folder} to start anew.") from error
        self._check_settings(settings)

    def _check_settings(self, settings: dict[str, Any]) -> None:
        names = sorted(settings.keys() | self.settings.keys())
        changed = [name for name in names if settings.get(name) != self.settings.get(name)]
        if changed and set(changed) <= set(self.extendable):
            self._stages = {}
            self._write()
        elif changed:
            both = "; ".join(
                f"{name}: there {settings.get(name)!r}, now {self.settings.get(name)!r}" for name in changed
            )
            raise RunStateError(f"{self.folder} holds another run ({both}). Pass another --output, or the same flags.")

    def _free_mb(self) -> int:
        return shutil.disk_usage(self.folder).free // 1_000_000

    def _write(self) -> None:
        if self.writes:
            write_json(self.folder / STATE_FILE, {"settings": self.settings, "stages": self._stages})


def same_run(folder: str | Path, settings: dict[str, Any], **options: Any) -> bool:
    """Whether a folder holds the run with these settings, finished or not.

    Args:
        folder: The folder.
        settings: As of `RunState`.
        **options: As of `RunState`.
    """
    if not (Path(folder) / STATE_FILE).is_file():
        return False
    try:
        RunState(folder, settings, writes=False, **options)
    except RunStateError:
        return False
    return True


def peak_memory_mb() -> int:
    """Largest resident size so far of this process, in megabytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset) // 1_000_000
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest // (1_000_000 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux kilobytes
