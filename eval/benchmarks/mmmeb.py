"""MMMEB: from its rows (an image or text, and a list of candidates with the gold one first) to ranking tasks.

Five tasks: `c` (classification), `i2t` and `t2i` (retrieval both ways), `vqa` (question on an image) and `vg` (pick
the crop that a text names). The row form is that of https://huggingface.co/datasets/swap-uniba/MMMEB-Benchmark.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from xvlm2vec.common.files import files_below
from xvlm2vec.common.languages import comparable_code
from xvlm2vec.common.store import content_digest
from xvlm2vec.eval.ranking import RankingTask, Row

from .candidate_lists import candidate_lists, is_string
from .images import ArchiveImages

logger = logging.getLogger(__name__)

Templates = Mapping[str, Mapping[str, Mapping[str, str]]]

BENCHMARK = "MMMEB"
STYLES = ("plain", "punct", "newline")
VERBATIM = "verbatim"  # no style at all: for benchmarks whose texts are to be embedded as they are
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
_ENDS = ".?!。？！؟।"


@dataclass(frozen=True)
class TaskForm:
    """Columns of one task.

    Attributes:
        image: Column with the query's image, or None.
        text: Column with the query's text, or None.
        candidates: Column with the candidate list.
        image_candidates: Whether the candidates are images.
        mark: What ends a query in the `punct` style.
    """

    image: str | None
    text: str | None
    candidates: str
    image_candidates: bool = False
    mark: str = "."


TASKS: Mapping[str, TaskForm] = {
    "c": TaskForm("img", None, "classes"),
    "i2t": TaskForm("img", None, "captions"),
    "t2i": TaskForm(None, "text", "images", image_candidates=True),
    "vqa": TaskForm("img", "question", "answers", mark="?"),
    "vg": TaskForm("img", "text", "imgs", image_candidates=True),
}

# What is published: tasks and languages of each data set.
DATASETS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "xm": (("i2t", "t2i"), ("en", "it", "es", "fr", "de")),
    "xtd": (("i2t", "t2i"), ("en", "it", "es", "fr", "de")),
    "imagenet-1k-val": (("c",), ("en", "it", "es", "fr", "de")),
    "flickr30k_entities": (("vg",), ("en", "fr")),
    "maxm_v1": (("vqa",), ("en", "fr")),
}


class FolderImages(Mapping[str, Any]):
    """Images of a published folder, by the names that its rows use.

    A name with a slash is a path below the data folder, any other lies in `<tag>_images/`; `.jpg` is added to a name
    without a dot. What is no file is read from the folder's `images.zip`.

    Raises:
        ValueError: A name leads out of the folder.
        FileNotFoundError: The file is not there.
    """

    def __init__(self, folder: str | Path, tag: str) -> None:
        self.folder = Path(folder)
        self.tag = tag
        self._archive = ArchiveImages(self.folder)

    def __getitem__(self, name: str) -> Any:
        path = self.path_below(name)
        found = self._archive.find([path]) if not (self.folder / path).is_file() else self.folder / path
        if found is None:
            raise FileNotFoundError(
                f"image {name!r} of {self.tag}: no file {self.folder / path}, and {self._archive.lack()}"
            )
        return found

    def __iter__(self) -> Iterator[str]:
        files = (path for path in files_below(self.folder, "**/*") if path.suffix.lower() in _IMAGE_SUFFIXES)
        return (path.relative_to(self.folder).as_posix() for path in files)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def path_below(self, name: str) -> PurePosixPath:
        """Where an image lies below the folder: the same for every way to write its name."""
        file = name if "." in name else f"{name}.jpg"
        path = PurePosixPath(file) if "/" in file else PurePosixPath(f"{self.tag}_images", file)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise ValueError(f"image name {name!r} of {self.tag} leads out of the data folder {self.folder}; refused")
        return path


class DatasetImages(Mapping[str, Any]):
    """Images of a `datasets.Dataset` with the columns `path` and `image`, by path, decoded when asked for.

    Raises:
        ValueError: A column is missing or a path occurs twice.
    """

    def __init__(self, dataset: Any) -> None:
        missing = {"path", "image"} - set(dataset.column_names)
        if missing:
            raise ValueError(f"the images need the columns path and image; missing: {', '.join(sorted(missing))}")
        from datasets import Image

        paths = dataset["path"][:]
        self._images = dataset.select_columns("image")
        self._encoded = self._images.cast_column("image", Image(decode=False))
        self._places = {path: place for place, path in enumerate(paths)}
        if len(self._places) != len(paths):
            raise ValueError("a path occurs twice among the images")

    def __getitem__(self, name: str) -> Any:
        return self._images[self._places[name]]["image"]

    def digest(self, name: str) -> bytes:
        """SHA-256 of an image as it is stored, without decoding it."""
        stored = self._encoded[self._places[name]]["image"]
        return hashlib.sha256(stored["bytes"]).digest() if stored["bytes"] else content_digest(stored["path"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def default_templates() -> Templates:
    """The instructions shipped with this package, for all five tasks in en, it, es, fr and de."""
    text = resources.files("xvlm2vec.eval.benchmarks").joinpath("templates_mmmeb.json").read_text(encoding="utf-8")
    return json.loads(text)


def templates_hash(templates: Templates) -> str:
    """Short name of a set of instructions: equal for equal contents."""
    return hashlib.sha256(json.dumps(templates, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def sides_for(templates: Templates, tasks: Sequence[str], language: str) -> Mapping[str, str]:
    """The instructions of the first of some tasks that has any, in a language; `*` stands for all other languages."""
    there = next((templates[task] for task in tasks if templates.get(task)), {})
    by_language = {comparable_code(code): texts for code, texts in there.items()}
    key = comparable_code(language)
    return by_language.get(key) or by_language.get(key.split("-")[0]) or by_language.get("*") or {}


def apply_style(text: str, style: str, mark: str = ".") -> str:
    """Format a text in one of MMMEB's three styles.

    `plain` drops one final `.` or `?`; `punct` ends the text with `mark` unless it ends like a sentence already;
    `newline` is `punct` and a line break. `VERBATIM` changes nothing, and an empty text stays empty.

    Raises:
        ValueError: The style is unknown.
    """
    if style == VERBATIM or not text:
        return text
    if style == "plain":
        return text[:-1] if text.endswith((".", "?")) else text
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; choose from {', '.join(STYLES)}")
    ended = text if text.endswith(tuple(_ENDS)) else text + mark
    return ended + "\n" if style == "newline" else ended


def ranking_task(
    rows: Any,
    images: Mapping[str, Any],
    templates: Templates,
    *,
    task: str,
    language: str,
    dataset: str,
    style: str = "plain",
    benchmark: str = BENCHMARK,
    form: str | None = None,
) -> RankingTask:
    """Turn rows in MMMEB's form into a ranking task.

    Args:
        rows: A `datasets.Dataset` or a `pyarrow.Table` with the columns of the task (see `TASKS`). Image columns hold
            keys into `images`.
        images: Images, or paths to them.
        templates: `{task: {language: {"query": ..., "target": ...}}}`; `{text}` stands for the row's text. `target` may
            be left out for text candidates, which then stay as they are. The language `*` stands for all others.
        task: One of `TASKS`, or a name of your own with `form`.
        language: Code of the language, for the templates.
        dataset: Name of the data set.
        style: One of `STYLES`, or `VERBATIM`; applied to the finished query and to the target text that goes with
            images.
        benchmark: Name of the benchmark.
        form: Which of `TASKS` the rows look like, if `task` is another name; its templates serve where `task` has none.

    Returns:
        The task; rows without a query text are left out and counted in `skipped`.

    Raises:
        ValueError: A column, template or image name is missing, or a candidate list is empty or has no or two gold
            entries.
    """
    return _Converted(rows, task, f"{benchmark}/{dataset}/{task}/{language}", form).ranking_task(
        images, templates, language=language, dataset=dataset, style=style, benchmark=benchmark
    )


def read_mmmeb_folder(
    folder: str | Path,
    datasets: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    styles: Sequence[str] = ("plain",),
    templates: Templates | None = None,
) -> list[RankingTask]:
    """Read a local folder in the published layout: `<tag>_<language>_<N>_formatted_<task>.jsonl` and the images.

    Args:
        folder: The folder. The number in a file's name is not enforced.
        datasets: Tags (default: all that are published).
        languages: Default: en, it, es, fr, de.
        tasks: Default: all five.
        styles: Any of `STYLES`.
        templates: Instructions (default: our own).

    Returns:
        One task per file and style. Of the combinations asked for, those count that are published or that have a file.

    Raises:
        FileNotFoundError: A published combination, or anything of a named data set, is missing.
        ValueError: A name is unknown, a file is broken, or its rows are (see `ranking_task`).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    _known("task", tasks, TASKS)
    _known("style", styles, STYLES)
    files = _select_files(folder, datasets, languages or DATASETS["xm"][1], tasks or tuple(TASKS))
    _tell_what_is_left_out(files, datasets or (), tasks or (), languages or (), folder)
    chosen = default_templates() if templates is None else templates
    found = []
    for (dataset, task, language), path in files.items():
        images = FolderImages(folder, dataset)
        converted = _Converted(read_jsonl(path, task), task, str(path), file_of=images.path_below)
        found += [
            converted.ranking_task(images, chosen, language=language, dataset=dataset, style=style) for style in styles
        ]
    return found


def read_jsonl(path: str | Path, task: str) -> pa.Table:
    """Read the columns of a task, those that hold anything, from JSON lines; Arrow would make dates of some texts.

    Raises:
        ValueError: The file is empty or not JSON lines, or a column holds something else; names it.
    """
    form = TASKS[task]
    schema = pa.schema(
        [(name, pa.string()) for name in (form.image, form.text) if name] + [(form.candidates, pa.list_(pa.string()))]
    )
    try:
        table = pa_json.read_json(
            path,
            read_options=pa_json.ReadOptions(block_size=1 << 26),
            parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} cannot be read as JSON lines of {', '.join(schema.names)}: {error}") from error
    return table.drop_columns([name for name in schema.names if table.column(name).null_count == len(table)])


class _Converted:
    """What no style or template changes: distinct candidates, the lists as indices, the queries' columns."""

    def __init__(
        self, rows: Any, task: str, where: str, form: str | None = None, file_of: Callable[[str], Any] = str
    ) -> None:
        _known("task", (form or task,), TASKS)
        self.task, self.form_name, self.where = task, form or task, where
        self.form = TASKS[self.form_name]
        table = rows if isinstance(rows, pa.Table) else rows.with_format("arrow")[:]
        needed = [column for column in (self.form.image, self.form.text, self.form.candidates) if column]
        missing = [column for column in needed if column not in table.column_names]
        if missing:
            raise ValueError(
                f"{where}: no column {', '.join(missing)}; task {task!r} needs {', '.join(needed)}, "
                f"the rows have {', '.join(table.column_names)}"
            )
        table, self.row_ids = self._with_text(table.select(needed))
        self.images = self._strings(table, self.form.image)
        self.texts = self._strings(table, self.form.text)
        same = file_of if self.form.image_candidates else None
        self.candidates, self.index = candidate_lists(table.column(self.form.candidates), self.row_ids, where, same)

    def ranking_task(
        self,
        images: Mapping[str, Any],
        templates: Templates,
        *,
        language: str,
        dataset: str,
        style: str,
        benchmark: str = BENCHMARK,
    ) -> RankingTask:
        _known("style", (style,), (*STYLES, VERBATIM))
        query = self._template(templates, language, "query", needs_text=self.form.text is not None)
        return RankingTask(
            benchmark=benchmark,
            dataset=dataset,
            task=self.task,
            language=language,
            style=style,
            queries=self._queries(query, style),
            candidates=self._targets(templates, language, style),
            candidate_index=self.index,
            images=images,
            row_ids=self.row_ids,
            skipped=self.skipped,
            templates_hash=templates_hash(templates),
        )

    def _queries(self, template: str, style: str) -> list[Row]:
        mark = self.form.mark
        images: Sequence[str | None] = self.images or [None] * len(self.row_ids)
        if self.texts is None:
            text = apply_style(template, style, mark)
            return [Row(text, image) for image in images]
        return [
            Row(apply_style(template.replace("{text}", text), style, mark), image)
            for text, image in zip(self.texts, images, strict=True)
        ]

    def _targets(self, templates: Templates, language: str, style: str) -> list[Row]:
        if self.form.image_candidates:
            text = apply_style(self._template(templates, language, "target", needs_text=False), style)
            return [Row(text, image) for image in self.candidates]
        target = self._sides(templates, language).get("target") or "{text}"
        if "{text}" not in target:
            raise ValueError(f"{self.where}: the target template {target!r} has no {{text}}")
        return [Row(target.replace("{text}", text)) for text in self.candidates]

    def _sides(self, templates: Templates, language: str) -> Mapping[str, str]:
        return sides_for(templates, (self.task, self.form_name), language)

    def _template(self, templates: Templates, language: str, side: str, needs_text: bool) -> str:
        template = self._sides(templates, language).get(side)
        if template is None:
            raise ValueError(
                f"{self.where}: the templates have no {side!r} for task {self.task!r} in language {language!r}; add "
                f'{{"{self.task}": {{"{language}": {{"{side}": ...}}}}}}'
            )
        if needs_text != ("{text}" in template):
            raise ValueError(
                f"{self.where}: the {side} template of task {self.task!r} in {language!r} "
                f"{'needs' if needs_text else 'must not have'} {{text}}: {template!r}"
            )
        return template

    def _with_text(self, table: pa.Table) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Leave out the rows whose query text is null."""
        total = len(table)
        if self.form.text is None:
            kept = np.arange(total)
        else:
            kept = np.flatnonzero(pc.is_valid(table.column(self.form.text)).to_numpy())
        self.skipped = total - len(kept)
        if self.skipped:
            logger.info("%s: %d of %d rows have no query text and are left out", self.where, self.skipped, total)
            table = table.take(kept)
        return table, kept

    def _strings(self, table: pa.Table, column: str | None) -> list[str] | None:
        if column is None:
            return None
        values = table.column(column)
        if not is_string(values.type):
            raise ValueError(f"{self.where}: column {column} must hold strings, not {values.type}")
        if values.null_count:
            row = int(self.row_ids[np.flatnonzero(values.is_null().to_numpy())[0]])
            raise ValueError(f"{self.where}: row {row} has no {column}")
        return values.to_pylist()


def _select_files(
    folder: Path, datasets: Sequence[str] | None, languages: Sequence[str], tasks: Sequence[str]
) -> dict[tuple[str, str, str], Path]:
    chosen = {}
    for dataset in datasets or DATASETS:
        published_tasks, published_languages = DATASETS.get(dataset, ((), ()))
        for task in tasks:
            for language in languages:
                path = _find_file(folder, dataset, task, language)
                if path:
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


def _tell_what_is_left_out(
    chosen: Iterable[tuple[str, str, str]],
    datasets: Sequence[str],
    tasks: Sequence[str],
    languages: Sequence[str],
    folder: Path,
) -> None:
    """Names without any file: an error for a language that is not published, a warning for what does not combine."""
    found = list(zip(*chosen, strict=True))
    for kind, names, present in zip(("data set", "task", "language"), (datasets, tasks, languages), found, strict=True):
        for name in sorted(set(names).difference(present)):
            if kind == "language" and name not in DATASETS["xm"][1]:
                raise FileNotFoundError(f"no file {_pattern(folder, '*', '*', name)} for the data sets and tasks named")
            logger.warning("Nothing of %s %s: no file is published of it and the other names", kind, name)


def _find_file(folder: Path, dataset: str, task: str, language: str) -> Path | None:
    form = re.compile(rf"{re.escape(dataset)}_{re.escape(language)}_\d+_formatted_{re.escape(task)}\.jsonl")
    found = sorted(path for path in folder.iterdir() if form.fullmatch(path.name))
    if len(found) > 1:
        raise ValueError(f"several files for one task, keep one: {', '.join(map(str, found))}")
    return found[0] if found else None


def _pattern(folder: Path, dataset: str, task: str, language: str) -> str:
    return str(folder / f"{dataset}_{language}_<N>_formatted_{task}.jsonl")


def _known(kind: str, names: Sequence[str] | None, known: Any) -> None:
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"unknown {kind} {', '.join(map(repr, unknown))}; choose from {', '.join(known)}")
