"""Files that run code when they are loaded, which must not be published."""

from __future__ import annotations

import glob
import re
from pathlib import Path

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".dill", ".distcp")
_START_BYTES = 4_096
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
_ARCHIVE_START = b"PK\x03\x04"
_PICKLE_IN_ARCHIVE = b"data.pkl"


def is_named_pickle(path: Path) -> bool:
    """Whether a file's name, in capitals or not, is one that pickles have."""
    return path.suffix.lower() in PICKLES


def holds_pickle(path: Path) -> bool:
    """Whether a file begins as pickles do, or is an archive with one, as PyTorch writes them."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    return bool(_PICKLE_START.match(start)) or (start.startswith(_ARCHIVE_START) and _PICKLE_IN_ARCHIVE in start)


def pickle_patterns(folder: Path) -> list[str]:
    """Patterns, as the Hub's client takes them, of all pickles in a folder: by their names, and by what they hold."""
    patterns = ["*" + "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in suffix) for suffix in PICKLES]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not is_named_pickle(path)]
    return [*patterns, *(glob.escape(path.relative_to(folder).as_posix()) for path in files if holds_pickle(path))]
