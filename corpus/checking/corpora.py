"""Stored parallel corpora for the check."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from xvlm2vec.common.columns import LANG, TEXT, TRANSLATIONS
from xvlm2vec.corpus.stored import load_parallel, write_dataset
from xvlm2vec.modeling.images import ImageError, load_image

from .chunks import Chunk, Judged

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS = 512
"""Rows of a corpus, each with all its translations, that are read at once."""


class CorpusSource:
    """A stored parallel corpus: a row is an English text with one of its translations.

    Args:
        path_or_id: Its folder, a parquet file, or a Hub id.
        split: Which part, where there are several.
    """

    unit = "row"

    def __init__(self, path_or_id: str | Path, split: str = "train") -> None:
        from datasets import Image

        self.name, self._split = str(path_or_id), split
        corpus = load_parallel(path_or_id, split)
        self.features = corpus.features
        self.corpus: Dataset = corpus.cast_column("image", Image(decode=False))
        self._problem = lru_cache(1)(_image_problem)  # translations of a row follow each other

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self._split)

    def chunks(self, survey: bool = False, start: int | None = None) -> Iterator[Chunk]:
        """The rows; one without a translation counts once."""
        first = 0
        for place in range(start or 0, len(self.corpus), _ROWS):
            chunk = Chunk(first, start=place)
            self._fill(chunk, survey)
            yield chunk
            first += len(chunk)

    def _fill(self, chunk: Chunk, survey: bool) -> None:
        columns: dict[str, list[Any]] = self.corpus[chunk.start : chunk.start + _ROWS]
        for row, (name, image, english, items) in enumerate(
            zip(columns["id"], columns["image"], columns["text_en"], columns[TRANSLATIONS], strict=True), chunk.start
        ):
            key: Any = None if image is None else _digest(image) if survey else _Held(image)
            for place, item in enumerate(items or [{}]):
                code, text = str(item.get(LANG) or ""), str(item.get(TEXT) or "")
                chunk.add(row, name or "", english or "", text, code, key, place)

    def image_problem(self, image: _Held) -> str | None:
        """What is wrong with an image, if anything is."""
        return self._problem(image)

    @contextmanager
    def writer(self, folder: Path) -> Iterator[CorpusWriter]:
        """Writes `parallel/`; changes are kept in a file until all are known, and then put into the rows.

        Raises:
            ValueError: No row is kept.
        """
        with tempfile.TemporaryFile("w+", encoding="utf-8") as changes:
            writer = CorpusWriter(changes)
            yield writer
            write_dataset(lambda: writer.rows(self.corpus), self.features, folder / "parallel")


class _Held:
    """An image of a row as it is stored; equal to itself alone."""

    def __init__(self, image: dict[str, Any]) -> None:
        self.image = image


def _digest(image: dict[str, Any]) -> int:
    return hash(image["bytes"] if image.get("bytes") is not None else image.get("path"))


def _image_problem(held: _Held) -> str | None:
    try:
        load_image(held.image, name="the image")
    except ImageError as error:
        return str(error)
    return None


class CorpusWriter:
    """Notes what changes in a corpus.

    Args:
        changes: The file that takes the notes.
    """

    def __init__(self, changes: IO[str]) -> None:
        self._changes = changes

    def add(self, judged: Judged) -> None:
        """Takes the next chunk, which holds whole rows of the corpus."""
        chunk, batch = judged.chunk, judged.batch
        changed: dict[int, dict[str, Any]] = {}
        for row, place in enumerate(chunk.places):
            if not judged.kept[row] or judged.is_changed(row):
                changed[place] = {"row": place, "english": None, "items": {}}
        for row, place in enumerate(chunk.places):
            if place in changed and judged.kept[row]:
                changed[place]["english"] = batch.english.texts[row]
                changed[place]["items"][chunk.items[row]] = (batch.codes[row], batch.text.texts[row])
        self._changes.writelines(json.dumps(change) + "\n" for change in changed.values())

    def rows(self, corpus: Dataset) -> Iterator[dict[str, Any]]:
        """The rows of the corpus that are kept, as they are now."""
        self._changes.seek(0)
        changes = map(json.loads, iter(self._changes.readline, ""))
        change = next(changes, None)
        for number, row in enumerate(corpus):
            if change is None or change["row"] != number:
                yield row
                continue
            if change["items"]:
                yield {**row, "text_en": change["english"], TRANSLATIONS: _items(row[TRANSLATIONS], change["items"])}
            change = next(changes, None)


def _items(items: list[dict[str, Any]], kept: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """The translations that are kept, repaired, with their other fields; of each language the first."""
    first: dict[str, dict[str, Any]] = {}
    for place, (code, text) in kept.items():
        first.setdefault(code, {**items[int(place)], LANG: code, TEXT: text})
    return list(first.values())
