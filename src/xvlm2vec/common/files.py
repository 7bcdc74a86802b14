"""Files that appear whole or not at all: a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
