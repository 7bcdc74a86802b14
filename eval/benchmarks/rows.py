"""The few forms that rows of published benchmarks have, each turned into queries with right and wrong candidates.

A form reads the files of one `Part` and yields a `Sheet` per data set, task and language.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xvlm2vec.common.files import files_below
from xvlm2vec.common.languages import is_among

from .entries import Benchmark, Part
from .images import ColumnImages, PathImages, class_folders

Images = str | tuple[str, ...] | None
Candidate = tuple[str | None, Images]
"""Text and image of a candidate; either may be None."""

_MEMORY = 1 << 30  # parquet files below this size are read into memory, larger ones are mapped from the disk
IMAGE_TOKEN = "<|image_1|>\n"  # stands for the image in MMEB's texts; models here are given the image itself


@dataclass(frozen=True, slots=True)
class Item:
    """A query.

    Attributes:
        row: Number of its row in the file, or of the item that it is about.
        text: Its text, without any instruction.
        image: Its image, or its images in order.
        golds: The right candidates.
        others: The wrong ones, if the row has a list of its own.
    """

    row: int
    text: str | None
    image: Images
    golds: Sequence[Candidate]
    others: Sequence[Candidate] = ()


@dataclass
class Sheet:
    """The queries of one data set, task and language.

    Attributes:
        dataset: Name of the data set.
        task: Name of the task.
        language: Code of the language.
        where: The files, for messages.
        images: The images by the names that the items use.
        items: The queries.
        whole_pool: Whether everything that is right for any query competes for all of them.
        pool: Further candidates that then compete.
    """

    dataset: str
    task: str
    language: str
    where: str
    images: Mapping[str, Any]
    items: list[Item] = field(default_factory=list)
    whole_pool: bool = False
    pool: list[Candidate] = field(default_factory=list)


class Selection:
    """The data sets, tasks and languages that were asked for, and those that there are."""

    def __init__(self, **wanted: Sequence[str] | None) -> None:
        self.wanted = wanted
        self.known: dict[str, dict[str, None]] = {kind: {} for kind in wanted}

    def takes(self, **names: str) -> bool:
        """Whether something of these names is wanted; a language also goes by its code without a region."""
        for kind, name in names.items():
            self.known[kind].setdefault(name)
        return all(self._is_wanted(kind, name) for kind, name in names.items())

    def check(self, where: str) -> None:
        """Raise a `ValueError` for a name that does not exist."""
        for kind, names in self.wanted.items():
            unknown = [name for name in names or () if not self._exists(kind, name)]
            if unknown:
                raise ValueError(f"{where} has no {kind} {', '.join(unknown)}; it has {', '.join(self.known[kind])}.")

    def _is_wanted(self, kind: str, name: str) -> bool:
        wanted = self.wanted[kind]
        return wanted is None or name in wanted or (kind == "language" and is_among(name, wanted))

    def _exists(self, kind: str, name: str) -> bool:
        return any(name == known or (kind == "language" and is_among(known, [name])) for known in self.known[kind])


@dataclass
class Source:
    """Where a part is read from, and what is wanted of it."""

    folder: Path
    benchmark: Benchmark
    part: Part
    selection: Selection

    def files(self, **names: str) -> list[Path]:
        """The files of the first pattern that has any.

        Raises:
            FileNotFoundError: None has; names what was looked for.
        """
        patterns = [pattern.format(**names) for pattern in self.part.files]
        return find_files(self.folder, patterns, self.benchmark.name)

    def code(self, spelling: str) -> str:
        """The code of a language that the files spell in some way; a second name after a comma is a region."""
        parts = [part.strip("'\" ") for part in spelling.strip("()").split(",")]
        known = self.benchmark.codes
        code = known.get(parts[0]) or known.get(parts[0].title()) or known.get(parts[0].lower()) or parts[0].lower()
        return "-".join([code, *(part.replace(" ", "") for part in parts[1:])])

    def sheet(self, dataset: str, task: str, language: str, where: str, images: Mapping[str, Any]) -> Sheet:
        """An empty sheet."""
        return Sheet(dataset, task, language, where, images)


def lists(source: Source) -> Iterator[Sheet]:
    """Each row has a list of candidates of its own; the right one is the first, or the one with a given number."""
    part, columns = source.part, source.part.columns
    for dataset in part.datasets:
        if not source.selection.takes(**{"data set": dataset}, task=part.task):
            continue
        rows, where = read_parquet(source.files(dataset=dataset), columns)
        images: Mapping[str, Any] = (
            ColumnImages(rows, columns["image"], where)
            if "image" in columns
            else PathImages(source.folder, part.images)
        )
        sheets: dict[str, Sheet] = {}
        for number, row in enumerate(plain_rows(rows, columns)):
            language = source.code(row["language"]) if "language" in columns else "en"
            if source.selection.takes(language=language):
                sheet = sheets.setdefault(language, source.sheet(dataset, part.task, language, where, images))
                sheet.items.append(_listed(number, row, columns, where))
        yield from sheets.values()


def _listed(number: int, row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Item:
    texts = row.get("texts")
    images = row.get("images") or [None] * len(texts or ())
    texts = texts if texts is not None else [None] * len(images)
    if len(texts) != len(images):
        raise ValueError(f"{where}: row {number} has {len(texts)} candidate texts and {len(images)} images")
    candidates = [(_without_token(text), image or None) for text, image in zip(texts, images, strict=True)]
    if not candidates:
        raise ValueError(f"{where}: row {number} has an empty candidate list")
    gold = row.get("gold", 0)
    if gold is None or not 0 <= gold < len(candidates):
        withheld = "; a label below zero is one that the publisher withholds" if gold is not None and gold < 0 else ""
        raise ValueError(
            f"{where}: row {number} has no gold candidate: {columns['gold']} is {gold}, for {len(candidates)} "
            f"candidates{withheld}"
        )
    image = str(number) if "image" in columns else row.get("image_path") or None
    others = [candidate for place, candidate in enumerate(candidates) if place != gold]
    return Item(number, _without_token(row["text"]), image, [candidates[gold]], others)


def answers(source: Source) -> Iterator[Sheet]:
    """Each row has its right answers; the answers to all questions in its language compete."""
    part = source.part
    for dataset in part.datasets:
        for spelling in part.languages:
            language = source.code(spelling)
            if not source.selection.takes(**{"data set": dataset}, task=part.task, language=language):
                continue
            rows, where = read_parquet(source.files(dataset=dataset, language=spelling), part.columns)
            images = ColumnImages(rows, part.columns["image"], where)
            sheet = source.sheet(dataset, part.task, language, where, images)
            sheet.whole_pool = True
            for number, row in enumerate(plain_rows(rows, part.columns)):
                golds = [(text, None) for text in dict.fromkeys(row["answers"] or ())]
                sheet.items.append(Item(number, row["text"], str(number), golds))
            yield sheet


def captions(source: Source) -> Iterator[Sheet]:
    """Each row has an image and its captions; both ways, everything competes."""
    part = source.part
    for dataset in part.datasets:
        if source.selection.takes(**{"data set": dataset}, language="en"):
            rows, where = read_parquet(source.files(dataset=dataset), part.columns)
            images = ColumnImages(rows, part.columns["image"], where)
            texts = [row["captions"] or [] for row in plain_rows(rows, part.columns)]
            width = max(map(len, texts), default=0)
            yield from _both_ways(source, dataset, "en", where, images, list(images), texts, width)


def parallel_captions(source: Source) -> Iterator[Sheet]:
    """One file has the names of the images, and by language a list of captions for each."""
    part, columns = source.part, source.part.columns
    for dataset in part.datasets:
        if not source.selection.takes(**{"data set": dataset}):
            continue
        (path,) = source.files(dataset=dataset)
        content = read_json(path, dict)
        names = needed(content, columns["images"], path)
        images = PathImages(source.folder, part.images)
        captions_by_language = needed(content, columns["captions"], path)
        width = max((len(own) for texts in captions_by_language.values() for own in texts), default=0)
        for spelling, texts in captions_by_language.items():
            language = source.code(spelling)
            if source.selection.takes(language=language):
                if len(texts) != len(names):
                    raise ValueError(f"{path}: {len(texts)} captions in {spelling!r} for {len(names)} images")
                yield from _both_ways(source, dataset, language, str(path), images, names, texts, width)


def _both_ways(
    source: Source,
    dataset: str,
    language: str,
    where: str,
    images: Mapping[str, Any],
    names: Sequence[str],
    texts: Sequence[Sequence[str]],
    width: int,
) -> Iterator[Sheet]:
    """Retrieval from image to caption and back. A caption that several images bear is right for all of them.

    `width` is the largest number of captions that an image has in any language: rows of one number are parallel.
    """
    bearers: dict[str, list[Candidate]] = {}
    for number, (name, own) in enumerate(zip(names, texts, strict=True)):
        if not own or any(not text for text in own):
            raise ValueError(f"{where}: image {number} ({name}) has no caption in {language!r}, or an empty one")
        for text in dict.fromkeys(own):
            bearers.setdefault(text, []).append((None, name))
    if source.selection.takes(task="i2t"):
        sheet = source.sheet(dataset, "i2t", language, where, images)
        sheet.whole_pool = True
        for number, (name, own) in enumerate(zip(names, texts, strict=True)):
            sheet.items.append(Item(number, None, name, [(text, None) for text in dict.fromkeys(own)]))
        yield sheet
    if source.selection.takes(task="t2i"):
        sheet = source.sheet(dataset, "t2i", language, where, images)
        sheet.whole_pool = True
        for number, own in enumerate(texts):
            sheet.items += [Item(number * width + place, text, None, bearers[text]) for place, text in enumerate(own)]
        yield sheet


def classes(source: Source) -> Iterator[Sheet]:
    """By language, numbers of classes and their names; each class has a folder of images, sorted by number."""
    part = source.part
    (path,) = source.files()
    folder = source.folder / part.images[0]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with a folder of images for each class")
    images = PathImages(source.folder, part.images)
    by_class = class_folders(folder)
    first = [0]
    for names in by_class:
        first.append(first[-1] + len(names))
    for dataset in part.datasets:
        for spelling, entry in read_json(path, dict).items():
            language = source.code(spelling)
            if not source.selection.takes(**{"data set": dataset}, task=part.task, language=language):
                continue
            numbers, labels = _class_names(entry, f"{path}: {spelling}", len(by_class))
            sheet = source.sheet(dataset, part.task, language, f"{path}: {spelling}", images)
            sheet.whole_pool = True
            for number, label in zip(numbers, labels, strict=True):
                sheet.items += [
                    Item(first[number] + place, None, name, [(label, None)])
                    for place, name in enumerate(by_class[number])
                ]
            yield sheet


def _class_names(entry: Any, where: str, count: int) -> tuple[list[int], list[str]]:
    if not isinstance(entry, list) or len(entry) != 2 or len(entry[0]) != len(entry[1]):
        raise ValueError(f"{where}: expected a list of class numbers and one of as many names")
    doubled = sorted({number for number in entry[0] if entry[0].count(number) > 1}) if count else []
    if doubled:
        raise ValueError(f"{where}: class {doubled[0]} occurs twice")
    beyond = [number for number in entry[0] if not 0 <= number < count]
    if beyond:
        raise ValueError(f"{where}: class {beyond[0]} has no folder; there are {count} folders of images")
    return entry[0], entry[1]


def pages(source: Source) -> Iterator[Sheet]:
    """Each entry is a document with its pages and questions; a question's candidates are the pages of its document."""
    part, columns = source.part, source.part.columns
    for dataset in part.datasets:
        if not source.selection.takes(**{"data set": dataset}, task=part.task):
            continue
        (path,) = source.files(dataset=dataset)
        images = PathImages(source.folder, part.images)
        sheets: dict[str, Sheet] = {}
        number = 0
        for place, document in enumerate(read_json(path, list)):
            where = f"{path}: document {place}"
            shelf = [f"{needed(document, columns['document'], where)}/{name}"
                     for name in needed(document, columns["pages"], where)]  # fmt: skip
            for question in needed(document, columns["questions"], where):
                spelling = question.get(columns["language"]) or document.get(columns["language"]) or "en"
                language = source.code(spelling)
                if source.selection.takes(language=language):
                    sheet = sheets.setdefault(language, source.sheet(dataset, part.task, language, str(path), images))
                    gold = needed(question, columns["gold"], where)
                    sheet.items.append(_page(number, needed(question, columns["text"], where), gold, shelf, where))
                number += 1
        yield from sheets.values()


def _page(number: int, text: str, gold: int, shelf: Sequence[str], where: str) -> Item:
    if not isinstance(gold, int) or not 0 <= gold < len(shelf):
        raise ValueError(f"{where}: the gold page of the question {text!r:.80} is {gold!r}, for {len(shelf)} pages")
    others: list[Candidate] = [(None, name) for place, name in enumerate(shelf) if place != gold]
    return Item(number, text, None, [(None, shelf[gold])], others)


def products(source: Source) -> Iterator[Sheet]:
    """A query is an instruction with several products of a catalogue; all products of the catalogue compete."""
    part, columns = source.part, source.part.columns
    for dataset in part.datasets:
        if not source.selection.takes(**{"data set": dataset}, task=part.task):
            continue
        (path,) = source.files(dataset=dataset)
        paths = find_files(source.folder, [columns["catalogue"]], source.benchmark.name)
        kept = {name: columns[name] for name in ("id", "image", "title", "language")}
        rows, where = read_parquet(paths, kept)
        catalogue = _catalogue(plain_rows(rows, kept), where)
        images = ColumnImages(rows, columns["image"], where)
        candidates: list[Candidate] = [(row["title"], str(row["number"])) for row in catalogue.values()]
        sheets: dict[str, Sheet] = {}
        for number, query in enumerate(read_json(path, list)):
            here = f"{path}: query {number}"
            shown = [_product(catalogue, name, here) for name in needed(query, columns["query"], here)]
            golds = [_product(catalogue, name, here) for name in needed(query, columns["golds"], here)]
            if not shown:
                raise ValueError(f"{here} names no product")
            language = source.code(shown[0]["language"])
            if not source.selection.takes(language=language):
                continue
            if language not in sheets:
                sheets[language] = source.sheet(dataset, part.task, language, str(path), images)
                sheets[language].whole_pool, sheets[language].pool = True, candidates
            titles = [row["title"] for row in shown if row["title"]]
            text = "\n".join([needed(query, columns["text"], here), *titles])
            right: list[Candidate] = [(row["title"], str(row["number"])) for row in golds]
            sheets[language].items.append(Item(number, text, tuple(str(row["number"]) for row in shown), right))
        yield from sheets.values()


def _catalogue(rows: Sequence[dict[str, Any]], where: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        earlier = found.setdefault(str(row["id"]), row)
        if earlier is not row:
            raise ValueError(f"{where}: rows {earlier['number']} and {number} have the same id {row['id']!r}")
        row["number"] = number
    return found


def _product(catalogue: Mapping[str, dict[str, Any]], name: Any, where: str) -> dict[str, Any]:
    try:
        return catalogue[str(name)]
    except KeyError:
        raise ValueError(f"{where} names the product {name!r}, which the catalogue does not have") from None


FORMS: Mapping[str, Callable[[Source], Iterator[Sheet]]] = {
    form.__name__: form for form in (lists, answers, captions, parallel_captions, classes, pages, products)
}


def find_files(folder: Path, patterns: Sequence[str], name: str) -> list[Path]:
    """The files of the first pattern that has any.

    Raises:
        FileNotFoundError: None has; names what was looked for.
    """
    for pattern in patterns:
        found = files_below(folder, pattern)
        if found:
            return found
    tried = " or ".join(str(folder / pattern) for pattern in patterns)
    raise FileNotFoundError(f"{name}: there is no file {tried}; docs/benchmarks.md says where to get it")


def read_parquet(paths: Sequence[Path], columns: Mapping[str, str]) -> tuple[Any, str]:
    """A `datasets.Dataset` of some columns of parquet files, mapped from the disk if they are large, and their name.

    Raises:
        ValueError: A file is damaged, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    chosen = [column for name, column in columns.items() if name != "catalogue"]
    try:
        missing = [column for column in chosen if column not in pq.read_schema(paths[0]).names]
        if missing:
            names = ", ".join(pq.read_schema(paths[0]).names)
            raise ValueError(f"{where} has no column {', '.join(missing)}; it has {names}")
        if sum(path.stat().st_size for path in paths) < _MEMORY:
            return Dataset(pa.concat_tables([pq.read_table(path, columns=chosen) for path in paths])), where
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{where} cannot be read as parquet: {error}") from error
    return Dataset.from_parquet([str(path) for path in paths], columns=chosen), where


def plain_rows(rows: Any, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Everything but the images of a data set, under the names that the forms use."""
    kept = {name: column for name, column in columns.items() if name not in {"image", "catalogue"}}
    table = rows.select_columns(list(dict.fromkeys(kept.values()))).with_format("arrow")[:]
    values = {name: table.column(column).to_pylist() for name, column in kept.items()}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def read_json(path: Path, kind: type) -> Any:
    """A JSON file.

    Raises:
        ValueError: It is damaged, or holds something else than `kind`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a {kind.__name__}, not a {type(content).__name__}")
    return content


def needed(content: Any, name: str, where: Any) -> Any:
    """A field of a JSON object.

    Raises:
        ValueError: It is missing.
    """
    if not isinstance(content, dict) or content.get(name) is None:
        raise ValueError(f"{where} lacks the field {name!r}")
    return content[name]


def _without_token(text: str | None) -> str | None:
    return text.replace(IMAGE_TOKEN, "").replace(IMAGE_TOKEN.strip(), "") if text else text
