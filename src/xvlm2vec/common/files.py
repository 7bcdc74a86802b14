"""Files that appear whole or not at all: a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LEFTOVERS = frozenset({".ipynb_checkpoints", "__macosx", ".ds_store", "thumbs.db", "desktop.ini"})


def is_leftover(name: str) -> bool:
    """Whether a file or folder is one that a system or a tool leaves behind, such as `.DS_Store` or `._photo.jpg`."""
    return name.casefold() in _LEFTOVERS or name.startswith("._")


def files_below(folder: str | os.PathLike[str], pattern: str) -> list[Path]:
    """The files below a folder that match a pattern, in the order of their names, without leftovers.

    Args:
        folder: The folder.
        pattern: What `Path.glob` takes, such as `**/*.parquet`.
    """
    root = Path(folder)
    files = (path for path in root.glob(pattern) if path.is_file())
    return sorted(path for path in files if not any(map(is_leftover, path.relative_to(root).parts)))


@contextmanager
def replaced_file(path: str | os.PathLike[str], flush: bool = True) -> Iterator[Path]:
    """Yields the path of a draft beside a file, which takes the file's place when the block ends without an error.

    Args:
        path: The file; it may be missing, its folder must be there.
        flush: Whether the file is on the disk before it takes its name; not needed where it can be made anew.

    Raises:
        OSError: The draft cannot be written. The file is then as it was, and no draft is left.
    """
    target = Path(path)
    draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        yield draft
        if flush:
            with open(draft, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file as a whole, with the line ends of the text."""
    with replaced_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes a JSON file as a whole.

    Raises:
        ValueError: The content holds NaN or infinity, which JSON lacks.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def readable_size(count: int) -> str:
    """A number of bytes for people, such as `1.5 kB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
