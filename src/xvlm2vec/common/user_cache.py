"""What this package keeps in the user's cache: which entries there are, how large and how old, and their removal."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .store import DRAFT_SECONDS, META_FILE, rows_of_shard

DEMO = "xvlm2vec-demo"
"""Where the app of a Space keeps the vectors of its images, beside our own folder: it runs without this package."""


@dataclass(frozen=True)
class CacheEntry:
    """A folder of the cache with files in it, such as the store of one teacher.

    Attributes:
        key: Its path below the cache, such as `teacher/0123456789abcdef`.
        path: The folder.
        model: Whose vectors it holds; empty where that was not written down.
        rows: How many vectors; `None` of what is no store.
        num_bytes: Size of its files.
        used: When it was last opened, in seconds since 1970.
    """

    key: str
    path: Path
    model: str
    rows: int | None
    num_bytes: int
    used: float


def cache_folder() -> Path:
    """`$XVLM2VEC_CACHE`, else `xvlm2vec` in the user's cache."""
    folder = os.environ.get("XVLM2VEC_CACHE")
    return Path(folder) if folder else _user_cache() / "xvlm2vec"


def cache_entries(folder: Path | None = None) -> list[CacheEntry]:
    """All entries, sorted by key.

    Args:
        folder: Holds the stores; by default the cache of this package and that of the demo.
    """
    demo = _user_cache() / DEMO
    roots = [(folder, folder)] if folder is not None else [(cache_folder(), cache_folder()), (demo, demo.parent)]
    return sorted((entry for root in roots for entry in _entries(*root)), key=lambda entry: entry.key)


def remove(entry: CacheEntry) -> None:
    """Removes the folder of an entry."""
    shutil.rmtree(entry.path)


def is_unreadable(entry: CacheEntry) -> bool:
    """Whether an entry is a store of which nothing can be read: it lacks its description, or holds no vector."""
    shards = any(entry.path.glob("*.npy"))
    return entry.rows is not None and not ((entry.path / META_FILE).is_file() and shards)


def old_drafts(entry: CacheEntry) -> list[Path]:
    """What killed processes were writing; what a living one writes is younger."""
    drafts = [path for path in entry.path.glob("*.tmp") if path.is_file()]
    return [path for path in drafts if time.time() - path.stat().st_mtime > DRAFT_SECONDS]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _entries(folder: Path, root: Path) -> Iterator[CacheEntry]:
    for name, _, names in os.walk(folder):
        files = [path for path in (Path(name) / file for file in names) if path.is_file()]
        if not files:
            continue
        meta = Path(name) / META_FILE
        shards = [count for count in map(rows_of_shard, files) if count is not None]
        yield CacheEntry(
            key=Path(name).relative_to(root).as_posix(),
            path=Path(name),
            model=_model_of(meta),
            rows=sum(shards) if shards or meta in files else None,
            num_bytes=sum(path.stat().st_size for path in files),
            used=max(path.stat().st_mtime for path in files),
        )


def _model_of(meta: Path) -> str:
    try:
        return str(json.loads(meta.read_text(encoding="utf-8")).get("model") or "")
    except (OSError, ValueError, AttributeError):
        return ""
