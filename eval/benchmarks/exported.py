"""Benchmarks in the layout that releases write: a parquet file per task and language, the images, the templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xvlm2vec.common.files import files_below
from xvlm2vec.common.languages import normal_or_same
from xvlm2vec.eval.ranking import RankingTask

from .images import ColumnImages, named_images
from .instructions import VERBATIM, Templates, read_templates
from .list_rows import TASKS, list_rows
from .selection import Selection

TEMPLATES_FILE = "templates.json"
IMAGES = "images"


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

    What a task is follows from its columns (see `list_rows.TASKS`). One with a name of its own, such as `withheld`,
    counts as a data set of that name.

    Args:
        folder: The folder.
        name: Name of the benchmark in results.
        datasets: `name` for the tasks that bear MMMEB's names, and the names of the others; all by default.
        languages: Codes; all by default.
        tasks: Names from `list_rows.TASKS`; all by default.
        styles: How texts are formatted; as they are by default.
        templates: Instructions instead of those in `templates.json`.

    Raises:
        FileNotFoundError: The folder, its images or its templates are missing.
        ValueError: A name is unknown, a file is damaged, or its rows are (see `list_rows.list_rows`), or a row names
            an image that is not there.
    """
    folder = Path(folder)
    files = _files(folder)
    templates = templates if templates is not None else read_templates(folder / TEMPLATES_FILE)
    images = _images(folder)
    ranking_tasks, selection = [], Selection(datasets, tasks, languages)
    for path in files:
        table = _read_table(path)
        task = _task_of(table, path)
        dataset = path.parent.name if path.parent.name not in TASKS else name
        language = normal_or_same(path.stem)  # splits of the Hub have no hyphens: `pt_BR`
        if selection.takes(dataset=dataset, task=task, language=language):
            rows = list_rows(
                table, images, str(path), task=task, language=language, dataset=dataset, benchmark=name
            )  # fmt: skip
            read = [rows.ranking_task(templates, style) for style in styles]
            _check_images(read[0], path, folder)
            ranking_tasks += read
    selection.check(str(folder))
    if not ranking_tasks:
        raise ValueError(f"{folder} has no file for these data sets, tasks and languages together.")
    return ranking_tasks


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files = [path for path in files_below(folder, "*/*.parquet") if path.parent.name != IMAGES]
    if not files:
        raise FileNotFoundError(f"{folder} holds no <task>/<language>.parquet, so it is no exported benchmark")
    return sorted(files, key=lambda path: list(TASKS).index(path.parent.name) if path.parent.name in TASKS else 99)


def _images(folder: Path) -> ColumnImages:
    from datasets import Dataset

    path = folder / IMAGES / "test.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path} with the images is missing")
    return named_images(Dataset(_read_table(path)), str(path))


def _check_images(task: RankingTask, path: Path, folder: Path) -> None:
    """Refuses a row that names an image which the folder lacks."""
    where = folder / IMAGES / "test.parquet"
    ids, present = np.asarray(task.row_ids), set(task.images)
    for rows, places in ((task.queries, np.arange(len(ids))[:, None]), (task.candidates, task.candidate_index)):
        for place, row in enumerate(rows):
            lost = [name for name in row.images if name not in present]
            if lost:
                number = ids[int(np.flatnonzero((places == place).any(axis=1))[0])]
                raise ValueError(f"{path}: row {number} names the image {lost[0]!r}, which {where} lacks")


def _read_table(path: Path) -> Any:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); export the benchmark again.") from error


def _task_of(table: pa.Table, path: Path) -> str:
    """The task whose column of candidates the rows have."""
    tasks = [task for task, columns in TASKS.items() if columns.candidates in table.column_names]
    if len(tasks) != 1:
        columns = ", ".join(form.candidates for form in TASKS.values())
        raise ValueError(f"{path}: one of the columns {columns} must hold the candidates; it has "
                         f"{', '.join(table.column_names)}.")  # fmt: skip
    return tasks[0]
