"""MMMEB in its published layout: `<data set>_<language>_<N>_formatted_<task>.jsonl` files and the images.

The rows are those of https://huggingface.co/datasets/swap-uniba/MMMEB-Benchmark (see `list_rows`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.json as pa_json

from xvlm2vec.eval.ranking import RankingTask

from .images import FileImages
from .instructions import Templates, mmmeb_instructions
from .list_rows import TASKS, list_rows

logger = logging.getLogger(__name__)

LANGUAGES = ("en", "it", "es", "fr", "de")
# What is published: tasks and languages of each data set.
DATASETS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "xm": (("i2t", "t2i"), LANGUAGES),
    "xtd": (("i2t", "t2i"), LANGUAGES),
    "imagenet-1k-val": (("c",), LANGUAGES),
    "flickr30k_entities": (("vg",), ("en", "fr")),
    "maxm_v1": (("vqa",), ("en", "fr")),
}
Combination = tuple[str, str, str]
"""Data set, task and language."""


def read_mmmeb_folder(
    folder: str | Path,
    datasets: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    styles: Sequence[str] = ("plain",),
    templates: Templates | None = None,
) -> list[RankingTask]:
    """Read a local folder in the published layout.

    Args:
        folder: The folder. The number in a file's name is not enforced.
        datasets: Names of data sets (default: all that are published).
        languages: Default: en, it, es, fr, de.
        tasks: Default: all five.
        styles: Any of `instructions.STYLES`.
        templates: Instructions (default: our own).

    Returns:
        One task per file and style. Of the combinations asked for, those count that are published or that have a file.

    Raises:
        FileNotFoundError: A published combination, or anything of a named data set, is missing.
        ValueError: A name is unknown, a file is broken, or its rows are (see `list_rows`).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    unknown = [task for task in tasks or () if task not in TASKS]
    if unknown:
        raise ValueError(f"unknown task {', '.join(map(repr, unknown))}; choose from {', '.join(TASKS)}")
    files = _select_files(folder, datasets, languages or LANGUAGES, tasks or tuple(TASKS))
    _tell_what_is_left_out(files, datasets or (), tasks or (), languages or (), folder)
    templates = mmmeb_instructions() if templates is None else templates
    ranking_tasks = []
    for (dataset, task, language), path in files.items():
        images = mmmeb_images(folder, dataset)
        rows = list_rows(
            read_jsonl(path, task), images, str(path), task=task, language=language, dataset=dataset,
            same_image=images.path_below,
        )  # fmt: skip
        ranking_tasks += [rows.ranking_task(templates, style) for style in styles]
    return ranking_tasks


def mmmeb_images(folder: str | Path, dataset: str) -> FileImages:
    """Images of a data set, by the names that its rows use.

    A name with a slash is a path below the data folder, any other lies in `<data set>_images/`; `.jpg` is added to a
    name without a dot.
    """
    return FileImages(Path(folder), file_of=partial(_image_file, dataset))


def _image_file(dataset: str, name: str) -> str:
    file = name if "." in name else f"{name}.jpg"
    return file if "/" in file else f"{dataset}_images/{file}"


def read_jsonl(path: str | Path, task: str) -> pa.Table:
    """Read the columns of a task, those that hold anything, from JSON lines; Arrow would make dates of some texts.

    Raises:
        ValueError: The file is empty or not JSON lines, or a column holds something else; names it.
    """
    *strings, candidates = TASKS[task].columns
    schema = pa.schema([(name, pa.string()) for name in strings] + [(candidates, pa.list_(pa.string()))])
    try:
        table = pa_json.read_json(
            path,
            read_options=pa_json.ReadOptions(block_size=1 << 26),
            parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} cannot be read as JSON lines of {', '.join(schema.names)}: {error}") from error
    return table.drop_columns([name for name in schema.names if table.column(name).null_count == len(table)])


def _select_files(
    folder: Path, datasets: Sequence[str] | None, languages: Sequence[str], tasks: Sequence[str]
) -> dict[Combination, Path]:
    chosen = {}
    for dataset in datasets or DATASETS:
        published_tasks, published_languages = DATASETS.get(dataset, ((), ()))
        for task, language in ((task, language) for task in tasks for language in languages):
            if path := _find_file(folder, dataset, task, language):
                chosen[dataset, task, language] = path
            elif task in published_tasks and language in published_languages:
                raise FileNotFoundError(f"{_pattern(folder, dataset, task, language)} is missing")
        if dataset not in DATASETS and not any(key[0] == dataset for key in chosen):
            raise FileNotFoundError(f"no file {_pattern(folder, dataset, '*', '*')} for the tasks and languages named")
    if not chosen:
        raise ValueError(
            f"nothing to read: {', '.join(datasets or DATASETS)} have no task {', '.join(tasks)} "
            f"in {', '.join(languages)}, and {folder} has no such file either"
        )
    return chosen


def _find_file(folder: Path, dataset: str, task: str, language: str) -> Path | None:
    form = re.compile(rf"{re.escape(dataset)}_{re.escape(language)}_\d+_formatted_{re.escape(task)}\.jsonl")
    files = sorted(path for path in folder.iterdir() if form.fullmatch(path.name))
    if len(files) > 1:
        raise ValueError(f"several files for one task, keep one: {', '.join(map(str, files))}")
    return files[0] if files else None


def _tell_what_is_left_out(
    chosen: Iterable[Combination],
    datasets: Sequence[str],
    tasks: Sequence[str],
    languages: Sequence[str],
    folder: Path,
) -> None:
    """Names without any file: an error for a language that is not published, a warning for what does not combine."""
    present = list(zip(*chosen, strict=True))
    kinds = zip(("data set", "task", "language"), (datasets, tasks, languages), present, strict=True)
    for kind, names, here in kinds:
        for name in sorted(set(names).difference(here)):
            if kind == "language" and name not in LANGUAGES:
                raise FileNotFoundError(f"no file {_pattern(folder, '*', '*', name)} for the data sets and tasks named")
            logger.warning("Nothing of %s %s: no file is published of it and the other names", kind, name)


def _pattern(folder: Path, dataset: str, task: str, language: str) -> str:
    return str(folder / f"{dataset}_{language}_<N>_formatted_{task}.jsonl")
