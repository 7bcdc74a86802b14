"""Images with captions in several languages, as what training and evaluation take."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .benchmark import Benchmark
from .disk_rows import DiskRows, RowsWithout, sharing_rows
from .rows import ENGLISH, TextRow
from .texts import content_key

if TYPE_CHECKING:
    from datasets import Features

TASKS = ("t2i", "i2t")
# Captions and images are searched as they are, in any language, so there is no instruction to translate.
TEMPLATES = {"t2i": {"query": "{text}", "target": ""}, "i2t": {"query": "", "target": "{text}"}}


def hold_out(rows: DiskRows, languages: Sequence[str], count: int, seed: int) -> tuple[RowsWithout, list[TextRow], int]:
    """Draws rows for a test; the rest is for training.

    Rows that share an image or a text stay together in training, so that nothing of the test is seen there and each
    query has one right answer. Images are the same if their pixels are, under any name; texts in one language are if
    they differ only in Unicode form, case or spaces. A row can be drawn if it has an image and all languages.

    Args:
        rows: All rows.
        languages: Codes that a test row must have.
        count: How many rows to draw, if so many can be drawn.
        seed: Decides which rows are drawn.

    Returns:
        Training rows and test rows, in their order, and how many rows share an image or a text with another one.
    """
    sharing = sharing_rows(map(_contents, rows))
    fit = array("q")
    for number, row in enumerate(rows):
        if row.image is not None and not sharing[number] and all(code in row.texts for code in languages):
            fit.append(number)
    places = random.Random(f"hold-out/{seed}").sample(range(len(fit)), min(count, len(fit)))
    drawn = sorted(fit[place] for place in places)
    return rows.without(drawn), [rows[number] for number in drawn], sum(sharing)


def _contents(row: TextRow) -> set[tuple[str, Any]]:
    """What tells whether a row has something in common with another one."""
    texts = {(code, content_key(text)) for code, text in row.texts.items()}
    return texts | ({("image", row.image_digest or row.image)} if row.image is not None else set())


def parallel_examples(rows: Iterable[TextRow]) -> Iterator[dict[str, Any]]:
    """Examples of a parallel corpus: each text without an image, as it is searched, and once more with its image."""
    for row in rows:
        yield replace(row, image=None).example()
        if row.image is not None:
            yield replace(row, id=f"{row.id}/image", source=f"{row.source}/image").example()


def pair_examples(rows: Iterable[TextRow]) -> Iterator[dict[str, Any]]:
    """Contrastive pairs: the English caption and its image."""
    for row in rows:
        if row.image is not None:
            yield {"qry": row.texts[ENGLISH], "qry_image": None, "pos_text": "", "pos_image": row.stored_image()}


def pair_features() -> Features:
    """Columns of contrastive pairs, as in MMEB's training sets."""
    from datasets import Features, Image, Value

    return Features({"qry": Value("string"), "qry_image": Image(), "pos_text": Value("string"), "pos_image": Image()})


def caption_benchmark(rows: Sequence[TextRow], languages: Sequence[str]) -> Benchmark:
    """Search both ways among held-out rows: each text against all images, each image against all texts."""
    from datasets import Dataset, DatasetDict, Features, Image, List, Value

    text, texts = Value("string"), List(Value("string"))
    paths = [f"images/{row.image_name}" for row in rows]
    written: dict[str, dict[str, Dataset]] = {task: {} for task in TASKS}
    for code in languages:
        captions = [row.texts[code] for row in rows]
        written["t2i"][code] = Dataset.from_dict(
            {"text": captions, "images": _gold_first(paths)}, features=Features({"text": text, "images": texts})
        )
        written["i2t"][code] = Dataset.from_dict(
            {"img": paths, "captions": _gold_first(captions)}, features=Features({"img": text, "captions": texts})
        )
    images = Dataset.from_dict(
        {"path": paths, "image": [row.stored_image() for row in rows]},
        features=Features({"path": text, "image": Image()}),
    )
    templates = {task: {code: dict(TEMPLATES[task]) for code in languages} for task in TASKS}
    return Benchmark({task: DatasetDict(splits) for task, splits in written.items()}, images, templates)


def _gold_first(pool: list[str]) -> list[list[str]]:
    return [[gold, *pool[:place], *pool[place + 1 :]] for place, gold in enumerate(pool)]
