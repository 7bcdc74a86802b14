"""The few forms that rows of published benchmarks have, each turned into queries with right and wrong candidates.

A reader reads the files of one `Layout` and yields `TaskRows` per data set, task and language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xvlm2vec.common.image_marks import strip_marks

from .faults import SHARED_LABEL
from .files import find_files, needed, plain_rows, read_json, read_parquet
from .gcompris import gcompris
from .images import ColumnImages, class_folders
from .source import Source
from .task_rows import Content, TaskRows
from .tuxpaint import stamps


def lists(source: Source) -> Iterator[TaskRows]:
    """Each row has a list of candidates of its own; the right one is the first, or the one with a given number."""
    layout, columns = source.layout, source.layout.columns
    for dataset in layout.datasets:
        if not source.selection.takes(dataset=dataset, task=layout.task):
            continue
        table, where, rows = source.table(dataset=dataset)
        in_table = "image" in columns
        images = ColumnImages(table, columns["image"], where) if in_table else source.file_images()
        by_language: dict[str, TaskRows] = {}
        for number, row in enumerate(rows):
            language = source.code(row["language"]) if "language" in columns else "en"
            if source.selection.takes(language=language):
                task = by_language.setdefault(language, source.rows(dataset, language, where, images))
                candidates, gold = _candidates(number, row, columns, where)
                image = str(number) if in_table else row.get("image_path") or None
                others = [candidate for place, candidate in enumerate(candidates) if place != gold]
                task.add(number, strip_marks(row["text"]), image, [candidates[gold]], others)
        yield from by_language.values()


def _candidates(
    number: int, row: Mapping[str, Any], columns: Mapping[str, str], where: str
) -> tuple[list[Content], int]:
    """The candidates of a row, and which is right."""
    texts = row.get("texts")
    images = row.get("images") or [None] * len(texts or ())
    texts = texts if texts is not None else [None] * len(images)
    if len(texts) != len(images):
        raise ValueError(f"{where}: row {number} has {len(texts)} candidate texts and {len(images)} images")
    candidates = [(strip_marks(text), image or None) for text, image in zip(texts, images, strict=True)]
    if not candidates:
        raise ValueError(f"{where}: row {number} has an empty candidate list")
    gold = row.get("gold", 0)
    if gold is None or not 0 <= gold < len(candidates):
        withheld = "; a label below zero is one that the publisher withholds" if gold is not None and gold < 0 else ""
        raise ValueError(
            f"{where}: row {number} has no gold candidate: {columns['gold']} is {gold}, for {len(candidates)} "
            f"candidates{withheld}"
        )
    return candidates, gold


def answers(source: Source) -> Iterator[TaskRows]:
    """Each row has its right answers; the answers to all questions in its language compete."""
    layout = source.layout
    for dataset in layout.datasets:
        for spelling in layout.languages:
            language = source.code(spelling)
            if not source.selection.takes(dataset=dataset, task=layout.task, language=language):
                continue
            table, where, rows = source.table(dataset=dataset, language=spelling)
            images = ColumnImages(table, layout.columns["image"], where)
            task = source.rows(dataset, language, where, images, whole_pool=True)
            for number, row in enumerate(rows):
                golds = [(text, None) for text in dict.fromkeys(row["answers"] or ())]
                task.add(number, row["text"], str(number), golds)
            yield task


def captions(source: Source) -> Iterator[TaskRows]:
    """Each row has an image and its captions; both ways, everything competes."""
    for dataset in source.layout.datasets:
        if source.selection.takes(dataset=dataset, language="en"):
            table, where, rows = source.table(dataset=dataset)
            images = ColumnImages(table, source.layout.columns["image"], where)
            texts = [row["captions"] or [] for row in rows]
            width = max(map(len, texts), default=0)
            yield from _both_ways(source, dataset, "en", where, images, list(images), texts, width)


def parallel_captions(source: Source) -> Iterator[TaskRows]:
    """One file has the names of the images, and by language a list of captions for each."""
    columns = source.layout.columns
    for dataset in source.layout.datasets:
        if not source.selection.takes(dataset=dataset):
            continue
        (path,) = source.files(dataset=dataset)
        content = read_json(path, dict)
        names = needed(content, columns["images"], path)
        images = source.file_images()
        captions_by_language = needed(content, columns["captions"], path)
        width = max((len(group) for texts in captions_by_language.values() for group in texts), default=0)
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
) -> Iterator[TaskRows]:
    """Retrieval from image to caption and back. A caption that several images bear is right for all of them.

    `width` is the largest number of captions that an image has in any language: rows of one number are parallel.
    """
    bearers: dict[str, list[Content]] = {}
    for number, (name, group) in enumerate(zip(names, texts, strict=True)):
        if not group or any(not text for text in group):
            raise ValueError(f"{where}: image {number} ({name}) has no caption in {language!r}, or an empty one")
        for text in dict.fromkeys(group):
            bearers.setdefault(text, []).append((None, name))
    if source.selection.takes(task="i2t"):
        task = source.rows(dataset, language, where, images, task="i2t", whole_pool=True)
        for number, (name, group) in enumerate(zip(names, texts, strict=True)):
            task.add(number, None, name, [(text, None) for text in dict.fromkeys(group)])
        yield task
    if source.selection.takes(task="t2i"):
        task = source.rows(dataset, language, where, images, task="t2i", whole_pool=True)
        for number, group in enumerate(texts):
            for place, text in enumerate(group):
                task.add(number * width + place, text, None, bearers[text])
        yield task


def classes(source: Source) -> Iterator[TaskRows]:
    """By language, numbers of classes and their names; each class has a folder of images, sorted by number."""
    layout = source.layout
    (path,) = source.files()
    folder = source.folder / layout.images[0]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with a folder of images for each class")
    images = source.file_images()
    by_class = class_folders(folder)
    first = [0]
    for names in by_class:
        first.append(first[-1] + len(names))
    for dataset in layout.datasets:
        for spelling, entry in read_json(path, dict).items():
            language, where = source.code(spelling), f"{path}: {spelling}"
            if not source.selection.takes(dataset=dataset, task=layout.task, language=language):
                continue
            task = source.rows(dataset, language, where, images, whole_pool=True)
            numbers, labels = _class_names(entry, where, len(by_class))
            for number, label in zip(numbers, labels, strict=True):
                if labels.count(label) > 1:
                    shared = range(len(task.texts), len(task.texts) + len(by_class[number]))
                    task.faults.setdefault(SHARED_LABEL, []).extend(shared)
                for place, name in enumerate(by_class[number]):
                    task.add(first[number] + place, None, name, [(label, None)])
            yield task


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


def pages(source: Source) -> Iterator[TaskRows]:
    """Each entry is a document with its pages and questions; a question's candidates are the pages of its document."""
    layout, columns = source.layout, source.layout.columns
    for dataset in layout.datasets:
        if not source.selection.takes(dataset=dataset, task=layout.task):
            continue
        (path,) = source.files(dataset=dataset)
        images = source.file_images()
        by_language: dict[str, TaskRows] = {}
        number = 0
        for place, document in enumerate(read_json(path, list)):
            where = f"{path}: document {place}"
            below = needed(document, columns["document"], where)
            shelf: list[Content] = [(None, f"{below}/{name}") for name in needed(document, columns["pages"], where)]
            for question in needed(document, columns["questions"], where):
                spelling = question.get(columns["language"]) or document.get(columns["language"]) or "en"
                language = source.code(spelling)
                if source.selection.takes(language=language):
                    task = by_language.setdefault(language, source.rows(dataset, language, str(path), images))
                    text, gold = (needed(question, columns[name], where) for name in ("text", "gold"))
                    if not isinstance(gold, int) or not 0 <= gold < len(shelf):
                        raise ValueError(
                            f"{where}: the gold page of the question {text!r:.80} is {gold!r}, for {len(shelf)} pages"
                        )
                    task.add(number, text, None, [shelf[gold]], [*shelf[:gold], *shelf[gold + 1 :]])
                number += 1
        yield from by_language.values()


def products(source: Source) -> Iterator[TaskRows]:
    """A query is an instruction with several products of a catalogue; all products of the catalogue compete."""
    layout, columns = source.layout, source.layout.columns
    for dataset in layout.datasets:
        if not source.selection.takes(dataset=dataset, task=layout.task):
            continue
        (path,) = source.files(dataset=dataset)
        paths = find_files(source.folder, [columns["catalogue"]], source.benchmark.name)
        kept = {name: columns[name] for name in ("id", "image", "title", "language")}
        table, where = read_parquet(paths, kept)
        catalogue = _catalogue(plain_rows(table, kept), where)
        images = ColumnImages(table, columns["image"], where)
        by_language: dict[str, TaskRows] = {}
        for number, query in enumerate(read_json(path, list)):
            here = f"{path}: query {number}"
            shown = [_product(catalogue, name, here) for name in needed(query, columns["query"], here)]
            golds = [_product(catalogue, name, here) for name in needed(query, columns["golds"], here)]
            if not shown:
                raise ValueError(f"{here} names no product")
            language = source.code(shown[0]["language"])
            if not source.selection.takes(language=language):
                continue
            if language not in by_language:
                by_language[language] = source.rows(dataset, language, str(path), images, whole_pool=True)
            titles = [row["title"] for row in shown if row["title"]]
            text = "\n".join([needed(query, columns["text"], here), *titles])
            names = tuple(str(row["number"]) for row in shown)
            by_language[language].add(number, text, names, list(map(_product_content, golds)))
        for task in by_language.values():
            task.number(map(_product_content, catalogue.values()))
        yield from by_language.values()


def _catalogue(rows: Sequence[dict[str, Any]], where: str) -> dict[str, dict[str, Any]]:
    catalogue: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        earlier = catalogue.setdefault(str(row["id"]), row)
        if earlier is not row:
            raise ValueError(f"{where}: rows {earlier['number']} and {number} have the same id {row['id']!r}")
        row["number"] = number
    return catalogue


def _product(catalogue: Mapping[str, dict[str, Any]], name: Any, where: str) -> dict[str, Any]:
    try:
        return catalogue[str(name)]
    except KeyError:
        raise ValueError(f"{where} names the product {name!r}, which the catalogue does not have") from None


def _product_content(row: Mapping[str, Any]) -> Content:
    return row["title"], str(row["number"])


Reader = Callable[[Source], Iterator[TaskRows]]
READERS: Mapping[str, Reader] = {
    reader.__name__: reader
    for reader in (lists, answers, captions, parallel_captions, classes, pages, products, stamps, gcompris)
}
