"""Images with captions in several languages, as what training and evaluation take."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .rows import ENGLISH, TextRow

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

TASKS = ("t2i", "i2t")
# Captions and images are searched as they are, in any language, so there is no instruction to translate.
TEMPLATES = {"t2i": {"query": "{text}", "target": ""}, "i2t": {"query": "", "target": "{text}"}}


@dataclass(frozen=True)
class CaptionBenchmark:
    """Held-out images and captions as two search tasks in MMMEB's row form.

    Attributes:
        tasks: `t2i` and `i2t`, a data set per language; row i shows the same image in each.
        images: `path`, as the rows name them, and `image`.
        templates: `{task: {language: {"query", "target"}}}`.
    """

    tasks: dict[str, DatasetDict]
    images: Dataset
    templates: dict[str, dict[str, dict[str, str]]]


def hold_out(
    rows: Sequence[TextRow], languages: Sequence[str], count: int, seed: int
) -> tuple[list[TextRow], list[TextRow]]:
    """Draws rows for a test; the rest is for training.

    A row can be drawn if it has an image and all languages, and if neither its image nor any of its texts occurs in
    another row: nothing of the test is then seen in training, and each query has one right answer.

    Args:
        rows: All rows.
        languages: Codes that a test row must have.
        count: How many rows to draw; fewer are drawn if there are not so many.
        seed: Of the draw.

    Returns:
        Training rows and test rows, in their order.
    """
    images = Counter(row.image for row in rows if row.image is not None)
    texts = Counter((code, text.casefold()) for row in rows for code, text in row.texts.items())
    fit = [
        row.id
        for row in rows
        if row.image is not None
        and images[row.image] == 1
        and all(code in row.texts for code in languages)
        and all(texts[code, text.casefold()] == 1 for code, text in row.texts.items())
    ]
    drawn = set(random.Random(f"hold-out/{seed}").sample(fit, min(count, len(fit))))
    return [row for row in rows if row.id not in drawn], [row for row in rows if row.id in drawn]


def parallel_examples(rows: Sequence[TextRow]) -> Iterator[dict[str, Any]]:
    """Examples of a parallel corpus: each text without an image, as it is searched, and once more with its image."""
    for row in rows:
        yield replace(row, image=None).example()
        if row.image is not None:
            yield replace(row, id=f"{row.id}/image", source=f"{row.source}/image").example()


def pair_examples(rows: Sequence[TextRow]) -> Iterator[dict[str, Any]]:
    """Contrastive pairs: the English caption and its image."""
    for row in rows:
        if row.image is not None:
            yield {"qry": row.texts[ENGLISH], "qry_image": None, "pos_text": "", "pos_image": row.stored_image()}


def pair_features() -> Features:
    """Columns of contrastive pairs, as in MMEB's training sets."""
    from datasets import Features, Image, Value

    return Features({"qry": Value("string"), "qry_image": Image(), "pos_text": Value("string"), "pos_image": Image()})


def caption_benchmark(rows: Sequence[TextRow], languages: Sequence[str]) -> CaptionBenchmark:
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
    return CaptionBenchmark({task: DatasetDict(splits) for task, splits in written.items()}, images, templates)


def _gold_first(pool: list[str]) -> list[list[str]]:
    return [[gold, *pool[:place], *pool[place + 1 :]] for place, gold in enumerate(pool)]
