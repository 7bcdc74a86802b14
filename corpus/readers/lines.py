"""Lines of files, packed ones too; what is torn, far too long or damaged is named, and the rest goes on."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator
from pathlib import Path

from xvlm2vec.corpus.rows import RowFault

LONGEST = 1 << 24
"""Bytes of a line: a packed file may hold one that fills the memory."""


def read_lines(path: Path, blank: bool = False) -> Generator[tuple[int, bytes | RowFault]]:
    """The lines of a file with their numbers from 1; a fault in the place of what cannot be read.

    Args:
        path: The file, packed by gzip if its name ends in `.gz`.
        blank: Whether blank lines are given, too.
    """
    number, cut = 0, False
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        while True:
            try:
                line = file.readline(LONGEST)
            except (OSError, EOFError, zlib.error) as error:
                problem = f"{path} is damaged behind line {number} ({error}); download it again"
                yield number + 1, RowFault("damaged file", problem)
                return
            if not line:
                return
            starts = not cut
            number += starts
            cut = not line.endswith(b"\n") and len(line) == LONGEST
            if starts and cut:
                yield number, RowFault("too long", f"the line has more than {LONGEST:,} bytes; refused")
            elif starts and (blank or line.strip()):
                yield number, line


def decoded(line: bytes, number: int) -> str:
    """A line's text without its end.

    Raises:
        RowFault: It is not UTF-8.
    """
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RowFault("not UTF-8", f"not UTF-8 ({error.reason})") from error


def stem_of(path: Path) -> str:
    """A file's name without all its suffixes that tell its kind, as the source of its rows."""
    name = path.name.removesuffix(".gz")
    return name.rpartition(".")[0] or name
