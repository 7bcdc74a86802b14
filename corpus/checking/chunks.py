"""Rows between a file and the rules: read in chunks, each row with what is needed to write it again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from xvlm2vec.common.languages import normal_or_same
from xvlm2vec.corpus.rows import RejectedRow
from xvlm2vec.corpus.rules.batch import Batch, Column

CHUNK = 4_096
"""Rows that are judged at once."""


@dataclass
class Chunk:
    """Rows of a file that follow each other.

    Attributes:
        first: Number of the first row, counted over the whole file.
        places: Line or number of each row.
        ids: Their ids; empty where there is none.
        english: Their English texts.
        texts: Their translations.
        codes: Codes of their languages as the file has them.
        images: What names or holds their images.
        items: What the file's writer needs to write each row.
        unreadable: Rows that could not be read; they are none of the others.
        start: From where the source reads this chunk again.
    """

    first: int = 0
    places: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    english: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    unreadable: list[RejectedRow] = field(default_factory=list)
    start: Any = None

    def __len__(self) -> int:
        return len(self.places)

    def add(self, place: int, name: str, english: str, text: str, code: str, image: Any, item: Any) -> None:
        """Adds a row."""
        self.places.append(place)
        self.ids.append(name)
        self.english.append(english)
        self.texts.append(text)
        self.codes.append(code)
        self.images.append(image)
        self.items.append(item)

    def row(self, number: int) -> Chunk:
        """A row alone."""
        row = Chunk(self.first + number)
        texts = self.english[number], self.texts[number], self.codes[number]
        row.add(self.places[number], self.ids[number], *texts, self.images[number], self.items[number])
        return row

    def digest(self) -> int:
        """Tells the texts of this chunk from others."""
        texts = "\0".join((*self.english, *self.texts, *self.codes))
        return zlib.crc32(texts.encode("utf-8", "surrogatepass"))

    def batch(self) -> Batch:
        """The rows as rules take them."""
        normal = {code: normal_or_same(code) if code else "" for code in set(self.codes)}
        return Batch(
            Column(self.english),
            Column(self.texts),
            [normal[code] for code in self.codes],
            list(self.codes),
            list(self.images),
            list(range(self.first, self.first + len(self))),
            list(self.places),
        )


@dataclass(frozen=True)
class Judged:
    """A chunk after its judgement.

    Attributes:
        chunk: The rows as they were read.
        batch: The same rows, repaired.
        kept: Whether each is kept.
    """

    chunk: Chunk
    batch: Batch
    kept: Sequence[bool]

    def is_changed(self, row: int) -> bool:
        """Whether a row is repaired."""
        chunk, batch = self.chunk, self.batch
        texts = (batch.english.texts[row], batch.text.texts[row], batch.codes[row])
        return texts != (chunk.english[row], chunk.texts[row], chunk.codes[row])


class Writer(Protocol):
    """Writes the rows of a source that are kept, in the form in which they came."""

    def add(self, judged: Judged) -> None:
        """Takes the next chunk."""


class Source(Protocol):
    """A file or folder of rows, which can be gone through more than once; pickled, it is read anew elsewhere.

    Attributes:
        name: Its path, as people know it.
        unit: What a place is: "line" or "row".
    """

    name: str
    unit: str

    def chunks(self, survey: bool = False, start: Any = None) -> Iterator[Chunk]:
        """The rows, always the same ones in the same order.

        Args:
            survey: Whether only texts are wanted; an image is then whatever tells it from others.
            start: The `start` of the first chunk that is wanted, from which rows are then numbered; None for all.
        """

    def image_problem(self, image: Any) -> str | None:
        """What is wrong with an image of a chunk, if anything is."""

    def writer(self, folder: Path) -> AbstractContextManager[Writer]:
        """Writes into a folder; what is written appears whole when the block ends without an error."""
