"""Corpora with a row per language: JSONL files, and data sets whose rows repeat an English text and its image."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from xvlm2vec.common.store import content_digest

from .readers import ENGLISH, LANGUAGE_CODE, RowFault, TextRow, image_below

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LineFields:
    """Names of a line's fields.

    Attributes:
        english: The English text.
        text: The same text in another language.
        language: That language's code.
        image: The image's path; may be missing, empty or null.
    """

    english: str = "text_en"
    text: str = "text"
    language: str = "lang"
    image: str = "image"


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be used.

    Attributes:
        file: The file.
        line: Counted from 1.
        kind: The sort of fault, for counting.
        problem: What is wrong.
    """

    file: str
    line: int
    kind: str
    problem: str


@dataclass
class JsonlCorpus:
    """What JSONL files hold.

    Attributes:
        rows: A row for each English text with its image, with all its translations.
        sources: Of each row, the name of the file that has it first, without its suffix.
        bad: Lines that are left out.
    """

    rows: list[TextRow] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes, English first, then in the order of their numbers of texts."""
        counts = Counter(code for row in self.rows for code in row.texts if code != ENGLISH)
        return (ENGLISH, *(code for code, _ in counts.most_common()))

    def report(self) -> dict[str, Any]:
        """How many rows are made, and what is wrong with the lines that are left out, as JSON takes it."""
        return {
            "languages": list(self.languages),
            "kept": len(self.rows),
            "bad": len(self.bad),
            "faults": dict(Counter(line.kind for line in self.bad)),
            "bad_rows": [asdict(line) for line in self.bad],
        }

    def examples(self) -> Iterator[dict[str, Any]]:
        """The rows as a parallel corpus has them; images as their files are."""
        for row, source in zip(self.rows, self.sources, strict=True):
            image = None if row.image is None else {"bytes": row.image.read_bytes(), "path": row.image_name}
            items = [{"lang": code, "text": text} for code, text in row.texts.items() if code != ENGLISH]
            english = row.texts[ENGLISH]
            yield {"id": row.id, "image": image, "text_en": english, "translations": items, "source": source}


class _Groups:
    """Translations by English text and image, in the order in which these come.

    Attributes:
        texts: By English text and what names its image, and then by language.
    """

    def __init__(self) -> None:
        self.texts: dict[tuple[str, Any], dict[str, str]] = {}

    def add(self, english: str, image: Any, items: Iterable[tuple[str, str]]) -> list[str]:
        """Adds translations, and gives the languages that have another one already, which stays."""
        texts = self.texts.setdefault((english, image), {})
        return [code for code, text in items if text and texts.setdefault(code, text) != text]

    def translations(self) -> list[list[dict[str, str]]]:
        """Of each group."""
        return [[{"lang": code, "text": text} for code, text in texts.items()] for texts in self.texts.values()]


def read_jsonl(
    files: Sequence[str | Path],
    images: str | Path | None = None,
    fields: LineFields | None = None,
    progress: bool = False,
) -> JsonlCorpus:
    """Reads JSONL files whose lines hold an English text, the same in another language, and perhaps an image's path.

    Lines with the same English text and the same image become one row with all their translations. Of two different
    ones in one language the first stays, and the other is a bad line. Every image is decoded once.

    Args:
        files: The files, UTF-8.
        images: The folder of image_files.
        fields: Names of the fields.
        progress: Whether to show a bar for each file.

    Raises:
        FileNotFoundError: A file or the folder of images is missing.
    """
    missing = [str(path) for path in files if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"there is no file {missing[0]}")
    folder = Path(images) if images is not None else None
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder of images {folder}")
    groups, image_files = _Groups(), _Images(folder)
    sources: list[str] = []
    bad: list[BadLine] = []
    for path in map(Path, files):
        for number, line in _lines(path, progress):
            try:
                _add_line(groups, line, fields or LineFields(), image_files)
            except RowFault as fault:
                bad.append(BadLine(str(path), number, *fault.args))
            if len(groups.texts) > len(sources):
                sources.append(path.stem)
    rows = [
        TextRow(f"row-{number:06d}", {ENGLISH: english, **texts}, image_files.paths.get(name), name)
        for number, ((english, name), texts) in enumerate(groups.texts.items())
    ]
    return JsonlCorpus(rows, sources, bad)


def group_parallel(rows: Dataset | Iterable[Mapping[str, Any]]) -> Any:
    """Brings rows of the same English text and image together: one row with all their translations.

    Distillation passes a row's image and English text once for all its translations, so that corpora with a row per
    language cost several times the work. The first row of each group gives the other columns, and the first text of a
    language stays; others that differ are counted in a warning.

    Args:
        rows: A stored parallel corpus, or any rows with `text_en`, `image` (may be missing), and either `translations`,
            or a `text` and its `lang`.

    Returns:
        For a `datasets.Dataset` another one; else a list of rows of a parallel corpus.

    Raises:
        ValueError: A row lacks a column; names it, counted from 0.
    """
    from datasets import Dataset, Image

    if not isinstance(rows, Dataset):
        kept, groups = _gather(rows)
        return [
            _parallel_row(row, place, items)
            for place, ((_, row), items) in enumerate(zip(kept, groups.translations(), strict=True))
        ]
    encoded = rows.cast_column("image", Image(decode=False))
    kept, groups = _gather(encoded, keep_rows=False)
    if len(kept) == len(rows):
        return rows
    found = groups.translations()
    brought = encoded.select([place for place, _ in kept]).map(
        lambda _, place: {"translations": found[place]},
        with_indices=True,
        input_columns=["id"],
        features=encoded.features,
        new_fingerprint=os.urandom(8).hex(),  # hashing all the texts would take longer
        desc="Grouping",
    )
    return brought.cast_column("image", rows.features["image"])


class _Images:
    """The images of a folder by their names, each decoded once.

    Attributes:
        paths: Of the images that can be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.paths: dict[str, Path] = {}
        self._faults: dict[str, RowFault] = {}

    def check(self, name: str) -> None:
        """Raises if there is no such image, each time alike."""
        if self.folder is None:
            raise RowFault("no folder of images", f"the image {name!r} lies somewhere; name the folder (--images)")
        if name in self._faults:
            raise RowFault(*self._faults[name].args)
        if name in self.paths:
            return
        try:
            self.paths[name] = image_below(name, self.folder)
        except RowFault as fault:
            self._faults[name] = fault
            raise


def _lines(path: Path, progress: bool) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers, counted from 1."""
    with open(path, "rb") as file:
        lines = tqdm(file, desc=f"Reading {path.name}", unit="line", disable=not progress)
        yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _add_line(groups: _Groups, line: bytes, fields: LineFields, images: _Images) -> None:
    """Adds the translation of a line to its group."""
    values = _parse(line)
    english, text = _text(values, fields.english, "English text"), _text(values, fields.text, "translation")
    language = _text(values, fields.language, "language")
    if not LANGUAGE_CODE.match(language) or language == ENGLISH:
        raise RowFault("no other language", f"{language!r:.40} is not the code of a language beside English")
    image = _text(values, fields.image, "image") if values.get(fields.image) not in (None, "") else ""
    if image:
        images.check(image)
    if groups.add(english, image, [(language, text)]):
        raise RowFault("another translation", f"an earlier line translates the same text into {language!r} otherwise")


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowFault("not UTF-8", f"not UTF-8 ({error.reason})") from error
    except (ValueError, RecursionError) as error:
        raise RowFault("no JSON", f"no JSON ({error})") from error
    if not isinstance(values, Mapping):
        raise RowFault("no JSON", f"no JSON object: {values!r:.80}")
    return values


def _text(values: Mapping[str, Any], name: str, what: str) -> str:
    """A field's text without the space around it, which can be stored."""
    if name not in values:
        raise RowFault("missing field", f"no field {name!r} ({what}); there are {', '.join(values) or 'none'}"[:300])
    text = values[name]
    if not isinstance(text, str):
        raise RowFault("no text", f"{name!r} ({what}) holds {text!r:.80}, which is no text")
    if not text.strip():
        raise RowFault(f"empty {what}", f"the {what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a pair of surrogates, which JSON can write
        raise RowFault("not UTF-8", f"{name!r} ({what}) holds a character that does not exist") from error
    return text.strip()


def _gather(
    rows: Iterable[Mapping[str, Any]], keep_rows: bool = True
) -> tuple[list[tuple[int, Mapping[str, Any]]], _Groups]:
    """Places of the first row of each group, with the row if asked for, and the groups."""
    groups, others = _Groups(), 0
    kept: list[tuple[int, Mapping[str, Any]]] = []
    for place, row in enumerate(rows):
        try:
            image = row.get("image")
            digest = None if image is None else content_digest(image)
            others += len(groups.add(row["text_en"], digest, _items(row)))
        except KeyError as error:
            raise ValueError(f"row {place} lacks the column {error}") from error
        if len(groups.texts) > len(kept):
            kept.append((place, row if keep_rows else {}))
    if others:
        logger.warning("%d translations are left out: a row before has another one of the same text", others)
    return kept, groups


def _items(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A row's translations: several, or its one."""
    if "translations" in row:
        return [(item["lang"], item["text"]) for item in row["translations"] or ()]
    return [(row["lang"], row["text"])]


def _parallel_row(row: Mapping[str, Any], place: int, items: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "id": str(row.get("id", f"row-{place:06d}")),
        "image": row.get("image"),
        "text_en": row["text_en"],
        "translations": items,
        "source": row.get("source", "grouped"),
    }
