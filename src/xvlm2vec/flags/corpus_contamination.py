"""`xvlm2vec corpus contamination`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.files import files_below, write_json

from . import console
from .corpus_check import add_kind
from .workers import add_workers, load_workers

if TYPE_CHECKING:
    from xvlm2vec.corpus.contamination.compare import Contamination

_IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_SHOWN = 20


def add_contamination(kinds: Any) -> None:
    """Adds `xvlm2vec corpus contamination`."""
    parser = add_kind(
        kinds, "contamination", "find a benchmark's images and texts in a corpus",
        "Compares a parallel corpus with a benchmark or a folder: images by perceptual hashes and then by their pixels "
        "(equal, compressed anew, resized, mirrored, cropped), texts of 20 characters and more by what they say "
        "(the same but for case and punctuation, or nearly the same by MinHash), in every language. Exit code 1 if a "
        "row has something in common with it, also if --exclude left it out.\n\n"
        "Benchmarks are those of `xvlm2vec evaluate`, with its --benchmark and --data.",
        "xvlm2vec corpus contamination data/parallel --benchmark xtd10 --data xtd10 --exclude data/clean", _run,
    )  # fmt: skip
    parser.add_argument("path", metavar="CORPUS", help="folder of save_to_disk or of parquet files, or a Hub id")
    parser.add_argument("--split", default="train", help="which part of the corpus, if it has several (default train)")
    parser.add_argument("--benchmark", metavar="NAME", help="a benchmark of `xvlm2vec evaluate`, such as xtd10, mmmeb "
                        "or emoji; folder: what `xvlm2vec corpus` or a release wrote")  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="folder of the benchmark, or Hub id of a data set")
    parser.add_argument("--folder", metavar="DIR", help="instead of a benchmark: a folder of images, or another corpus")
    parser.add_argument("--json", metavar="FILE", help="write counts and all matches as JSON")
    parser.add_argument("--exclude", metavar="DIR", help="write the rows that have nothing in common into DIR/parallel")
    add_workers(parser, "the same result; they read and compare the corpus, whose files have the same path for all")


def _run(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus.contamination.compare import find_contamination, without_rows
    from xvlm2vec.corpus.stored import load_parallel, write_dataset

    if (flags.benchmark is None) == (flags.folder is None):
        raise ValueError("name what the corpus is compared with: either --benchmark or --folder.")
    corpus = load_parallel(flags.path, flags.split)
    images, texts = _of_folder(flags.folder) if flags.folder else _of_benchmark(flags)
    found = find_contamination(corpus, images, texts, progress=True, workers=load_workers(flags))
    if flags.json:
        write_json(flags.json, found.as_json())
    if flags.exclude:
        rows = found.contaminated
        write_dataset(lambda: without_rows(corpus, rows), corpus.features, Path(flags.exclude) / "parallel")
    console.show("\n".join(_lines(found, flags)))
    return int(bool(found.matches))


def _of_benchmark(flags: argparse.Namespace) -> tuple[Iterator[tuple[str, Any]], list[str]]:
    """Images and texts of a benchmark, without the instructions around them."""
    from xvlm2vec.eval.benchmarks.instructions import NO_INSTRUCTIONS

    from .benchmarks import benchmark_tasks, is_of_mteb

    if is_of_mteb(flags.benchmark):
        raise ValueError(f"{flags.benchmark} is read by mteb; save its images in a folder and name that with --folder.")
    chosen = argparse.Namespace(benchmark=flags.benchmark, data=flags.data, datasets=None, languages=None, tasks=None,
                                styles=("plain",), seed=0)  # fmt: skip
    tasks = benchmark_tasks(chosen, NO_INSTRUCTIONS)
    rows = [row for task in tasks for row in (*task.queries, *task.candidates)]
    texts = list(dict.fromkeys(row.text for row in rows if row.text))
    images: dict[str, Any] = {}
    for task in tasks:
        used = {name for row in (*task.queries, *task.candidates) for name in row.images}
        images |= {name: task.images for name in used}
    return ((name, held[name]) for name, held in images.items()), texts


def _of_folder(folder: str) -> tuple[Iterator[tuple[str, Any]], list[str]]:
    """Images and texts of a stored corpus, or the images of a folder."""
    from datasets import Image

    from xvlm2vec.corpus.stored import load_parallel

    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    if (path / "dataset_info.json").is_file() or files_below(path, "*.parquet"):
        corpus = load_parallel(path).cast_column("image", Image(decode=False))
        texts = [text for row in corpus.select_columns(["text_en", "translations"])
                 for text in (row["text_en"], *(item["text"] for item in row["translations"]))]  # fmt: skip
        return ((row["id"], row["image"]) for row in corpus if row["image"] is not None), texts
    files = [file for file in files_below(path, "**/*") if file.suffix.casefold() in _IMAGES]
    if not files:
        raise ValueError(f"{folder} holds neither a corpus nor an image.")
    return ((str(file.relative_to(path)), file) for file in files), []


def _lines(found: Contamination, flags: argparse.Namespace) -> list[str]:
    counts = found.as_json()
    lines = [f"{found.rows:,} rows beside {found.images:,} images and {found.texts:,} texts: "
             f"{len(found.contaminated):,} rows have something in common"]  # fmt: skip
    lines += [f"  {count:>9,}  {how}" for how, count in counts["how"].items()]
    lines += [f"row {match.row} ({match.id}), {match.kind}: {match.how} ({match.value:.2f}): {match.benchmark!r:.100}"
              for match in found.matches[:_SHOWN]]  # fmt: skip
    if len(found.matches) > _SHOWN:
        lines.append(f"... and {len(found.matches) - _SHOWN:,} more{'' if flags.json else ': --json lists all'}")
    lines += [f"NOT READ: {problem}" for problem in found.unreadable[:_SHOWN]]
    if flags.exclude:
        lines.append(f"{flags.exclude}/parallel holds the other {found.rows - len(found.contaminated):,} rows.")
    return lines
