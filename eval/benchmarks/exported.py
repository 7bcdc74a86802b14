"""Benchmarks in the layout that releases write: a parquet file per task and language, the images, the templates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xvlm2vec.common.files import files_below
from xvlm2vec.common.languages import is_among, normal_or_same
from xvlm2vec.eval.ranking import RankingTask

from .mmmeb import TASKS, VERBATIM, DatasetImages, Templates, ranking_task

TEMPLATES_FILE = "templates.json"
IMAGES = "images"
_SIDES = ("query", "target")


def read_exported(
    folder: str | Path,
    name: str,
    *,
    datasets: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    styles: Sequence[str] = (VERBATIM,),
    templates: Templates | None = None,
) -> list[RankingTask]:
    """Read a folder with `<task>/<language>.parquet`, `images/test.parquet` and `templates.json`.

    What a task is follows from its columns (see `mmmeb.TASKS`). One with a name of its own, such as `withheld`, counts
    as a data set of that name.

    Args:
        folder: The folder.
        name: Name of the benchmark in results.
        datasets: `name` for the tasks that bear MMMEB's names, and the names of the others; all by default.
        languages: Codes; all by default.
        tasks: Of `mmmeb.TASKS`; all by default.
        styles: How texts are formatted; as they are by default.
        templates: Instructions instead of those in `templates.json`.

    Raises:
        FileNotFoundError: The folder, its images or its templates are missing.
        ValueError: A name is unknown, a file is damaged, or its rows are (see `mmmeb.ranking_task`), or a row names a
            image that is not there.
    """
    folder = Path(folder)
    files = _files(folder)
    chosen = templates if templates is not None else read_templates(folder / TEMPLATES_FILE)
    images = DatasetImages(_images(folder))
    found, known = [], {"data set": set[str](), "task": set[str](), "language": set[str]()}
    for path in files:
        table = _read_table(path)
        form = _form(table, path)
        dataset = path.parent.name if path.parent.name not in TASKS else name
        language = normal_or_same(path.stem)  # splits of the Hub have no hyphens: `pt_BR`
        known["data set"].add(dataset)
        known["task"].add(form)
        known["language"].add(language)
        chosen_by_name = ((dataset, datasets), (form, tasks))
        if not all(wanted is None or value in wanted for value, wanted in chosen_by_name) or not is_among(
            language, languages
        ):
            continue
        options = {"task": form, "language": language, "dataset": dataset, "benchmark": name}
        made = [ranking_task(table, images, chosen, style=style, **options) for style in styles]
        _check_images(made[0], path, folder)
        found += made
    for kind, wanted in (("data set", datasets), ("task", tasks), ("language", languages)):
        unknown = [value for value in wanted or () if not _is_there(kind, value, known[kind])]
        if unknown:
            raise ValueError(f"{folder} has no {kind} {', '.join(unknown)}; it has {', '.join(sorted(known[kind]))}.")
    if not found:
        raise ValueError(f"{folder} has no file for these data sets, tasks and languages together.")
    return found


def _is_there(kind: str, name: str, there: set[str]) -> bool:
    return any(is_among(code, [name]) for code in there) if kind == "language" else name in there


def read_templates(path: str | Path) -> Templates:
    """Read instructions, `{task: {language: {"query": ..., "target": ...}}}`; null is the same as none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, or not of this form; names the place.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there are no instructions {path}; pass a file with --templates, as "
            '{"t2i": {"en": {"query": "Find: {text}", "target": "An image"}}}'
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error
    _check_templates(content, path)
    return {
        task: {code: {side: text for side, text in sides.items() if text is not None} for code, sides in codes.items()}
        for task, codes in content.items()
    }


def _check_templates(content: Any, path: Path) -> None:
    for task, languages in _items(content, path, "the file"):
        for language, sides in _items(languages, path, repr(task)):
            for side, text in _items(sides, path, f"{task!r}, {language!r}"):
                if side not in _SIDES or not isinstance(text, str | None):
                    raise ValueError(f"{path}: {task!r}, {language!r} may hold texts for query and target, no {side!r}")


def _items(value: Any, path: Path, where: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {where} must be an object, not {value!r:.60}")
    return list(value.items())


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files = [path for path in files_below(folder, "*/*.parquet") if path.parent.name != IMAGES]
    if not files:
        raise FileNotFoundError(f"{folder} holds no <task>/<language>.parquet, so it is no exported benchmark")
    return sorted(files, key=lambda path: list(TASKS).index(path.parent.name) if path.parent.name in TASKS else 99)


def _images(folder: Path) -> Any:
    from datasets import Dataset, Image

    path = folder / IMAGES / "test.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path} with the images is missing")
    dataset = Dataset(_read_table(path))
    return dataset.cast_column("image", Image()) if "image" in dataset.column_names else dataset


def _check_images(task: RankingTask, path: Path, folder: Path) -> None:
    """Refuses a row that names an image which the folder lacks."""
    where = folder / IMAGES / "test.parquet"
    ids, known = np.asarray(task.row_ids), set(task.images)
    for rows, places in ((task.queries, np.arange(len(ids))[:, None]), (task.candidates, task.candidate_index)):
        for place, row in enumerate(rows):
            lost = [name for name in row.images if name not in known]
            if lost:
                number = ids[int(np.flatnonzero((places == place).any(axis=1))[0])]
                raise ValueError(f"{path}: row {number} names the image {lost[0]!r}, which {where} lacks")


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); export the benchmark again.") from error


def _form(table: pa.Table, path: Path) -> str:
    """The task whose column of candidates the rows have."""
    forms = [form for form, columns in TASKS.items() if columns.candidates in table.column_names]
    if len(forms) != 1:
        columns = ", ".join(form.candidates for form in TASKS.values())
        raise ValueError(f"{path}: one of the columns {columns} must hold the candidates; it has "
                         f"{', '.join(table.column_names)}.")  # fmt: skip
    return forms[0]
