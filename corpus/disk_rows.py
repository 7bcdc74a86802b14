"""Rows that were read and wait on the disk, so that their number does not matter."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from .rows import TextRow

_TEMPORARY = ""
"""The name of a database that SQLite keeps in a temporary file, and removes when it is closed."""
_SETTINGS = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"


class DiskRows(Sequence[TextRow]):
    """Rows in a temporary file, in the order in which they are added."""

    def __init__(self) -> None:
        self._db = _database("CREATE TABLE rows (number INTEGER PRIMARY KEY, id TEXT, content TEXT)")
        self._count = 0

    def add(self, row: TextRow) -> None:
        """Adds a row at the end."""
        image, digest = (None if row.image is None else str(row.image)), (row.image_digest or b"").hex()
        content = json.dumps([dict(row.texts), image, row.image_name, row.source, digest])
        self._db.execute("INSERT INTO rows VALUES (?, ?, ?)", (self._count, row.id, content))
        self._count += 1

    def repeated_ids(self) -> list[tuple[str, int]]:
        """The ids that several rows have, with their numbers, in the order of the alphabet."""
        return self._db.execute("SELECT id, COUNT(*) FROM rows GROUP BY id HAVING COUNT(*) > 1 ORDER BY id").fetchall()

    def without(self, numbers: Collection[int]) -> RowsWithout:
        """The rows but for some."""
        return RowsWithout(self, numbers)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[TextRow]:
        return (_row(*found) for found in self._db.execute("SELECT id, content FROM rows ORDER BY number"))

    @overload
    def __getitem__(self, number: int) -> TextRow: ...
    @overload
    def __getitem__(self, number: slice) -> list[TextRow]: ...
    def __getitem__(self, number: int | slice) -> TextRow | list[TextRow]:
        places = range(self._count)[number]
        if isinstance(places, range):
            return [self[place] for place in places]
        found = self._db.execute("SELECT id, content FROM rows WHERE number = ?", (places,)).fetchone()
        return _row(*found)


class RowsWithout(Collection[TextRow]):
    """Rows on the disk but for some.

    Args:
        rows: All rows.
        numbers: Those that are left out.
    """

    def __init__(self, rows: DiskRows, numbers: Collection[int]) -> None:
        self._rows, self._left_out = rows, frozenset(numbers)

    def __len__(self) -> int:
        return len(self._rows) - len(self._left_out)

    def __iter__(self) -> Iterator[TextRow]:
        return (row for number, row in enumerate(self._rows) if number not in self._left_out)

    def __contains__(self, row: object) -> bool:
        return any(row == other for other in self)


def sharing_rows(rows: Iterable[Collection[tuple[str, Any]]]) -> bytearray:
    """For each row 1 if it shares something with another one, else 0.

    Args:
        rows: What each row holds, each thing once.
    """
    db, count = _database("CREATE TABLE held (digest BLOB, number INTEGER)"), 0
    for number, contents in enumerate(rows):
        db.executemany("INSERT INTO held VALUES (?, ?)", ((_digest(content), number) for content in contents))
        count = number + 1
    sharing = bytearray(count)
    db.execute("CREATE INDEX by_digest ON held (digest, number)")
    again = "SELECT digest FROM held GROUP BY digest HAVING COUNT(*) > 1"
    for (number,) in db.execute(f"SELECT number FROM held WHERE digest IN ({again})"):
        sharing[number] = 1
    return sharing


def _database(schema: str) -> sqlite3.Connection:
    db = sqlite3.connect(_TEMPORARY, isolation_level=None)
    db.executescript(f"{_SETTINGS} {schema};")
    db.execute("BEGIN")
    return db


def _row(name: str, content: str) -> TextRow:
    texts, image, image_name, source, digest = json.loads(content)
    return TextRow(name, texts, Path(image) if image else None, image_name, source, bytes.fromhex(digest) or None)


def _digest(content: tuple[str, Any]) -> bytes:
    kind, what = content
    value = what if isinstance(what, bytes) else str(what).encode()
    return hashlib.blake2b(kind.encode() + b"\0" + value, digest_size=16).digest()
