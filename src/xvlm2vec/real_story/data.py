"""What training and measuring read: parallel rows, English pairs, held-out stamps in the form of their package."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xvlm2vec.common.captioned.tuxpaint import stamps_folder
from xvlm2vec.common.files import write_json
from xvlm2vec.corpus.captions import caption_benchmark, pair_examples, pair_features
from xvlm2vec.corpus.rows import TextRow
from xvlm2vec.corpus.schema import parallel_features
from xvlm2vec.corpus.stored import write_dataset
from xvlm2vec.eval.benchmarks.debian import package_data
from xvlm2vec.eval.benchmarks.tuxpaint import VERSION as STAMPS_VERSION
from xvlm2vec.hub.dataset_export import BenchmarkCard, DataSource, export_benchmark

from .config import CONTROLS, Sizes
from .parts import GCOMPRIS
from .parts import STAMPS as STAMPS_PACKAGE
from .rows import EMOJI, SENTENCES, STAMPS, WORDS, benchmark_rows, emoji_rows, without
from .splits import Splits, split_rows

logger = logging.getLogger(__name__)

PARALLEL, PAIRS, VALIDATION, VALIDATION_PAIRS, TEST = "parallel", "pairs", "validation", "validation-pairs", "test"
GALLERY, COMMON = "gallery", 0.9
"""What the demo shows, and how many of its images must have a caption in a language that it offers."""


def make_data(packages: Path, sizes: Sizes, folder: Path) -> None:
    """Reads the packages and writes everything that is taught and measured, and `counts.json`."""
    unpacked = packages / "unpacked"
    stamps = package_data("tuxpaint", unpacked, packages / STAMPS_PACKAGE.file)
    gcompris = package_data("gcompris", unpacked, packages / GCOMPRIS.file)
    images = folder / "images"
    rows = [
        *benchmark_rows("tuxpaint", stamps, images, {name: name for name in STAMPS}),
        *benchmark_rows("gcompris", gcompris, images, {"words": WORDS, "sentences": SENTENCES}),
        *emoji_rows(images, sizes.every),
    ]
    splits = thinned(split_rows(rows, taught=(EMOJI, WORDS), tested=(SENTENCES,)), sizes.every)
    write_splits(splits, sizes.languages, folder)
    copy_stamps(splits.test, stamps_folder(stamps), folder / TEST / "tuxpaint" / "stamps")
    write_gallery([row for row in splits.test if row.source in STAMPS], folder / GALLERY)
    write_json(folder / "counts.json", splits.counts())


def write_gallery(rows: Sequence[TextRow], folder: Path) -> None:
    """Writes a benchmark for the demo: the languages that nearly all rows have, and the rows that have all of these."""
    counts = Counter(code for row in rows for code in row.texts)
    languages = [code for code, count in counts.items() if count >= COMMON * len(rows)]
    shown = [row for row in rows if set(languages) <= row.texts.keys()]
    benchmark = caption_benchmark(shown, languages)
    card = BenchmarkCard(
        "Tux Paint stamps, held out", license="gpl-2.0",
        sources=[DataSource("Tux Paint stamps", "GPL-2", remark=f"Debian's version {STAMPS_VERSION}")],
    )  # fmt: skip
    export_benchmark(benchmark.tasks, benchmark.images, folder, card, benchmark.templates)


def thinned(splits: Splits, every: int) -> Splits:
    """Every so many rows of each part; the emoji are thinned when they are drawn, the sentences not at all."""

    def some(rows: Sequence[TextRow]) -> list[TextRow]:
        whole = [row for row in rows if row.source in (EMOJI, SENTENCES)]
        others = [row for row in rows if row.source not in (EMOJI, SENTENCES)]
        return [*whole, *others[::every]]

    return Splits(*(some(rows) for rows in vars(splits).values()))


def write_splits(splits: Splits, languages: Sequence[str], folder: Path) -> None:
    """Writes the rows that are taught and watched: captions with their translations, English captions with images."""
    for rows, parallel, pairs in (
        (splits.train, PARALLEL, PAIRS), (splits.validation, VALIDATION, VALIDATION_PAIRS)
    ):  # fmt: skip
        taught = without(rows, CONTROLS, languages)
        write_dataset(lambda kept=taught: parallel_texts(kept), parallel_features(), folder / parallel)  # type: ignore[misc]
        write_dataset(lambda kept=taught: pair_examples(kept), pair_features(), folder / pairs)  # type: ignore[misc]


def parallel_texts(rows: Sequence[TextRow]) -> Iterator[dict[str, Any]]:
    """Captions alone, as they are searched, those that are the same in English once; a row needs a translation."""
    merged: dict[str, TextRow] = {}
    for row in rows:
        english = row.texts["en"]
        known = merged.get(english)
        texts = {**row.texts, **(known.texts if known else {})}
        merged[english] = replace(row, texts=texts, image=None)
    for row in merged.values():
        if len(row.texts) > 1:
            yield row.example()


def copy_stamps(rows: Sequence[TextRow], source: Path, target: Path) -> None:
    """Copies the held-out stamps with their captions, so that the benchmark reads them as it reads the package."""
    shutil.rmtree(target, ignore_errors=True)
    for row in rows:
        if row.source not in STAMPS:
            continue
        name = row.id.partition("/")[2]
        for path in ((source / name), (source / name).with_suffix(".txt")):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
