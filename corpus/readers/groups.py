"""Records of the same text and image are brought together on the disk, so that their number does not matter."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvlm2vec.common.columns import LANG, TEXT

from .records import ImageBytes

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE groups (number INTEGER PRIMARY KEY, key BLOB UNIQUE, id TEXT, english TEXT, source TEXT, place TEXT,
                     image TEXT, content BLOB, records INTEGER DEFAULT 1);
CREATE TABLE texts (number INTEGER, lang TEXT, text TEXT, others TEXT, PRIMARY KEY (number, lang));
"""


@dataclass(frozen=True)
class Group:
    """A row of the corpus in the making.

    Attributes:
        english: The English text, if any record brought it.
        source: Name of the data set or file of its first record.
        place: Where its first record stands.
        image: The image's name or the image itself.
        id: Name of the row, if its first record has one.
        records: Number of its records.
        translations: The first text of each language, in the order in which they came.
    """

    english: str | None
    source: str
    place: Mapping[str, Any]
    image: str | ImageBytes | None
    id: str
    records: int = 1
    translations: Sequence[Mapping[str, Any]] = ()


class DiskGroups:
    """Groups in a temporary file, in the order of their first records; to be closed after use."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="xvlm2vec-rows-")
        self._db = sqlite3.connect(Path(self._folder.name) / "rows.sqlite", isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Removes the file."""
        self._db.close()
        self._folder.cleanup()

    def add(self, key: str | None, group: Group) -> list[str]:
        """Adds a record as a group of one.

        Args:
            key: What tells which records are one row; None for the English text and the image.
            group: The record.

        Returns:
            The languages, English among them, in which the row has another text already, which stays.
        """
        digest = _digest(key, group)
        found = self._db.execute("SELECT number, english FROM groups WHERE key = ?", (digest,)).fetchone()
        if found is None:
            number = self._insert(digest, group)
            different = []
        else:
            number, english = found
            self._db.execute("UPDATE groups SET records = records + 1, english = coalesce(english, ?) WHERE number = ?",
                             (group.english, number))  # fmt: skip
            different = ["en"] if group.english is not None and english not in {None, group.english} else []
        return different + [item[LANG] for item in group.translations if not self._add_text(number, item)]

    def fields(self) -> list[str]:
        """The further fields that any translation has."""
        query = "SELECT DISTINCT json_each.key FROM texts, json_each(texts.others) WHERE texts.others != '{}'"
        return sorted(name for (name,) in self._db.execute(query))

    def rows(self) -> Iterator[Group]:
        """The groups."""
        for number, *fields, records in self._db.execute(
            "SELECT number, english, source, place, id, image, content, records FROM groups ORDER BY number"
        ):
            english, source, place, row_id, name, content = fields
            image = name if content is None else ImageBytes(name, content)
            texts = self._db.execute("SELECT lang, text, others FROM texts WHERE number = ? ORDER BY rowid", (number,))
            items = [{LANG: code, TEXT: text, **json.loads(others)} for code, text, others in texts]
            yield Group(english, source, json.loads(place), image, row_id, records, items)

    def _insert(self, digest: bytes, group: Group) -> int:
        image = group.image
        name, content = (image.name, image.content) if isinstance(image, ImageBytes) else (image, None)
        values = (digest, group.id, group.english, group.source, json.dumps(dict(group.place)), name, content)
        cursor = self._db.execute(
            "INSERT INTO groups (key, id, english, source, place, image, content) VALUES (?, ?, ?, ?, ?, ?, ?)", values
        )
        return int(cursor.lastrowid or 0)

    def _add_text(self, number: int, item: Mapping[str, Any]) -> bool:
        """Whether a text is the row's in its language, now or since before."""
        others = {name: value for name, value in item.items() if name not in (LANG, TEXT) and value is not None}
        there = self._db.execute("SELECT text, others FROM texts WHERE number = ? AND lang = ?", (number, item[LANG]))
        found = there.fetchone()
        if found is None:
            self._db.execute("INSERT INTO texts VALUES (?, ?, ?, ?)",
                             (number, item[LANG], item[TEXT], json.dumps(others)))  # fmt: skip
            return True
        if found[0] == item[TEXT] and others:  # the first one may lack its alignment
            self._db.execute("UPDATE texts SET others = ? WHERE number = ? AND lang = ?",
                             (json.dumps(others | json.loads(found[1])), number, item[LANG]))  # fmt: skip
        return bool(found[0] == item[TEXT])


def _digest(key: str | None, group: Group) -> bytes:
    image = group.image
    what: Any = image.name if isinstance(image, ImageBytes) else image
    if isinstance(image, ImageBytes):
        what = hashlib.blake2b(image.content, digest_size=16).hexdigest()
    parts = ["key", key] if key is not None else ["content", group.english, type(image).__name__, what]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


class Ids:
    """The ids that are given out, in a temporary file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="xvlm2vec-ids-")
        self._db = sqlite3.connect(Path(self._folder.name) / "ids.sqlite", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                               "CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID;")  # fmt: skip
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Removes the file."""
        self._db.close()
        self._folder.cleanup()

    def take(self, name: str) -> bool:
        """Whether a row can have an id: no earlier one has it."""
        return self._db.execute("INSERT OR IGNORE INTO ids VALUES (?)", (name,)).rowcount == 1
