"""The rows of the real story: images with captions in many languages, from three sources, each image as a file."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xvlm2vec.common.store import content_digest
from xvlm2vec.corpus.emoji.specs import Spec, SpecSampler, draw
from xvlm2vec.corpus.emoji.text import all_languages
from xvlm2vec.corpus.emoji.world import EmojiWorld, EmojiWorldConfig
from xvlm2vec.corpus.rows import ENGLISH, TextRow
from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS
from xvlm2vec.eval.benchmarks.reading import read_benchmark
from xvlm2vec.eval.ranking import RankingTask
from xvlm2vec.modeling.images import load_image

logger = logging.getLogger(__name__)

EMOJI, WORDS, SENTENCES = "emoji", "gcompris-words", "gcompris-sentences"
STAMPS = ("stamps", "symbols", "drawings")
CONCEPTS, PIXELS = 1_039, 48
"""All emoji that have a name in every language, at the size of the emoji benchmark's images."""


def benchmark_rows(name: str, folder: Path, images: Path, sources: Mapping[str, str]) -> list[TextRow]:
    """The images of a benchmark with all their captions.

    Args:
        name: Of the benchmark.
        folder: Its data.
        images: Where images go that lie in archives or are drawn.
        sources: What the rows of its data sets are called; others are not read.
    """
    tasks = read_benchmark(name, folder, datasets=list(sources), tasks=["i2t"], templates=NO_INSTRUCTIONS)
    texts: dict[tuple[str, str], dict[str, str]] = {}
    stored: dict[str, Mapping[str, Any]] = {}
    for task in tasks:
        stored[task.dataset] = task.images
        for image, text in captions(task):
            texts.setdefault((task.dataset, image), {})[task.language] = text
    rows = []
    for (dataset, image), found in texts.items():
        if ENGLISH in found:
            path = image_file(stored[dataset][image], images / name / image)
            rows.append(text_row(sources[dataset], image, found, path))
    return rows


def captions(task: RankingTask) -> Iterable[tuple[str, str]]:
    """Image and caption of each row of a task that looks for captions."""
    for query, places in zip(task.queries, task.candidate_index, strict=True):
        yield str(query.image), str(task.candidates[int(places[0])].text)


def emoji_rows(images: Path, every: int) -> list[TextRow]:
    """Every emoji, or every so many, alone in a scene of Noto's style, with its names.

    Scenes are drawn as those of the training split, of which no benchmark has any.
    """
    languages = all_languages()
    world = EmojiWorld.load(
        EmojiWorldConfig(
            concepts=CONCEPTS, image_size=PIXELS, languages=languages, taught_languages=languages[1:],
            control_languages=(),
        )
    )  # fmt: skip
    sampler, rows = SpecSampler(world, "train", "real-story"), []
    for concept in range(0, len(world), every):
        buffer = io.BytesIO()
        draw(world, Spec((concept,), sampler.seed()))[1].save(buffer, format="PNG")
        name = f"{world.ids[concept]}.png"
        path = image_file({"bytes": buffer.getvalue(), "path": name}, images / EMOJI / name)
        texts = {code: world.name(concept, code) for code in languages}
        rows.append(text_row(EMOJI, name, texts, path))
    return rows


def image_file(image: Any, path: Path) -> Path:
    """The file of an image, written if there is none."""
    if not isinstance(image, Mapping):
        return Path(image)
    path = path.with_suffix(".png") if path.suffix == ".svg" else path  # which has been drawn
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image["bytes"])
    return path


def text_row(source: str, name: str, texts: Mapping[str, str], path: Path) -> TextRow:
    """A row, with what tells whether another one has the same image."""
    digest = content_digest(load_image(path, name=str(path)))
    return TextRow(f"{source}/{name}", texts, path, f"{source}/{name}", source, digest)


def without(rows: Sequence[TextRow], languages: Sequence[str], only: Sequence[str] = ()) -> list[TextRow]:
    """Rows without some languages and, if any are named, with those only; English stays, regions do not count."""

    def stays(code: str) -> bool:
        base = code.split("-")[0]
        return base == ENGLISH or (base not in languages and (not only or base in only))

    return [
        TextRow(
            row.id, {code: text for code, text in row.texts.items() if stays(code) and code.split("-")[0] != ENGLISH}
            | {ENGLISH: row.texts[ENGLISH]}, row.image, row.image_name, row.source, row.image_digest,
        )
        for row in rows
    ]  # fmt: skip
