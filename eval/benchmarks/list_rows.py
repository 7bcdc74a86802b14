"""Rows in MMMEB's form: an image or a text, and a list of candidates with the right one first.

Five tasks: `c` (classification), `i2t` and `t2i` (retrieval both ways), `vqa` (question on an image) and `vg` (pick
the crop that a text names). Tables are converted by Arrow: a task may hold a million candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xvlm2vec.eval.ranking import RankingTask

from .instructions import Templates
from .task_rows import TaskRows

logger = logging.getLogger(__name__)

BENCHMARK = "MMMEB"


@dataclass(frozen=True)
class TaskForm:
    """Columns of one task.

    Attributes:
        image: Column with the query's image, or None.
        text: Column with the query's text, or None.
        candidates: Column with the candidate list.
        image_candidates: Whether the candidates are images.
    """

    image: str | None
    text: str | None
    candidates: str
    image_candidates: bool = False

    @property
    def columns(self) -> list[str]:
        """All columns, the candidates last."""
        return [column for column in (self.image, self.text, self.candidates) if column]


TASKS: Mapping[str, TaskForm] = {
    "c": TaskForm("img", None, "classes"),
    "i2t": TaskForm("img", None, "captions"),
    "t2i": TaskForm(None, "text", "images", image_candidates=True),
    "vqa": TaskForm("img", "question", "answers"),
    "vg": TaskForm("img", "text", "imgs", image_candidates=True),
}


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
) -> RankingTask:
    """Turn rows in MMMEB's form into a ranking task: `list_rows` with `templates` and a style."""
    where = f"{benchmark}/{dataset}/{task}/{language}"
    read = list_rows(rows, images, where, task=task, language=language, dataset=dataset, benchmark=benchmark)
    return read.ranking_task(templates, style)


def list_rows(
    rows: Any,
    images: Mapping[str, Any],
    where: str,
    *,
    task: str,
    language: str,
    dataset: str,
    benchmark: str = BENCHMARK,
    same_image: Callable[[str], Any] = str,
) -> TaskRows:
    """Read rows in MMMEB's form.

    Args:
        rows: A `datasets.Dataset` or a `pyarrow.Table` with the columns of the task (see `TASKS`). Image columns hold
            keys into `images`.
        images: Images, or paths to them.
        where: The file, for messages.
        task: One of `TASKS`.
        language: Code of the language.
        dataset: Name of the data set.
        benchmark: Name of the benchmark.
        same_image: What is equal for two names of one image; only the first of them is kept.

    Returns:
        The rows; those without a query text are left out and counted in `skipped`.

    Raises:
        ValueError: A column or image name is missing, or a candidate list is empty or has no or two gold entries.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; choose from {', '.join(TASKS)}")
    columns = TASKS[task]
    table = rows if isinstance(rows, pa.Table) else rows.with_format("arrow")[:]
    missing = [column for column in columns.columns if column not in table.column_names]
    if missing:
        raise ValueError(
            f"{where}: no column {', '.join(missing)}; task {task!r} needs {', '.join(columns.columns)}, "
            f"the rows have {', '.join(table.column_names)}"
        )
    total, row_ids = len(table), np.arange(len(table))
    if columns.text:
        row_ids = np.flatnonzero(pc.is_valid(table.column(columns.text)).to_numpy())
    if len(row_ids) < total:
        logger.info("%s: %d of %d rows have no query text and are left out", where, total - len(row_ids), total)
        table = table.take(row_ids)
    of_images = columns.image_candidates
    texts, names = (_strings(table, column, row_ids, where) for column in (columns.text, columns.image))
    lists = table.column(columns.candidates)
    candidates, index = _candidate_lists(lists, row_ids, where, same_image if of_images else None)
    return TaskRows(
        benchmark, dataset, task, language, where, images, columns.text is not None, not of_images,
        texts=texts, query_images=names, index=index, row_ids=row_ids, skipped=total - len(row_ids),
        candidates={(None, name) if of_images else (name, None): place for place, name in enumerate(candidates)},
    )  # fmt: skip


def _strings(table: pa.Table, column: str | None, row_ids: npt.NDArray[np.int64], where: str) -> list[Any]:
    """A column of strings, or None for each row if the task has no such column."""
    if column is None:
        return [None] * len(table)
    values = table.column(column)
    if not _is_string(values.type):
        raise ValueError(f"{where}: column {column} must hold strings, not {values.type}")
    if values.null_count:
        row = int(row_ids[np.flatnonzero(values.is_null().to_numpy())[0]])
        raise ValueError(f"{where}: row {row} has no {column}")
    return values.to_pylist()


def _candidate_lists(
    column: pa.ChunkedArray, row_ids: npt.NDArray[np.int64], where: str, file_of: Callable[[str], Any] | None
) -> tuple[list[str], npt.NDArray[np.signedinteger]]:
    """The distinct candidates of all lists, and `(n, m)` indices into them, -1 where there is none."""
    names, index = _encoded_lists(column, row_ids, where)
    if file_of is not None and names:
        names, index = _one_name_each(names, index, file_of)
    doubled = np.flatnonzero((index[:, 1:] == index[:, :1]).any(axis=1))
    if len(doubled):
        row, gold = int(row_ids[doubled[0]]), names[index[doubled[0], 0]]
        raise ValueError(
            f"{where}: row {row} lists its gold candidate {gold!r} more than once"
            f"{', maybe under another spelling' if file_of else ''}; remove the copy from the list "
            f"({len(doubled)} of {len(index)} rows have this fault)"
        )
    return names, index


def _is_string(kind: pa.DataType) -> bool:
    """Whether a column holds texts, encoded or not."""
    if pa.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _one_name_each(
    names: list[str], index: npt.NDArray[np.signedinteger], file_of: Callable[[str], Any]
) -> tuple[list[str], npt.NDArray[np.signedinteger]]:
    """Leaves out the names of images that have one already."""
    files = [file_of(name) for name in names]
    place = {file: number for number, file in enumerate(dict.fromkeys(files))}
    first = {file: name for name, file in reversed(list(zip(names, files, strict=True)))}
    places = np.array([*(place[file] for file in files), -1], dtype=index.dtype)  # the last one for an index of -1
    return [first[file] for file in place], places[index]


def _encoded_lists(
    column: pa.ChunkedArray, row_ids: npt.NDArray[np.int64], where: str
) -> tuple[list[str], npt.NDArray[np.signedinteger]]:
    if not any(check(column.type) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        raise ValueError(f"{where}: the candidates must be lists of strings, not {column.type}")
    if not len(column):
        return [], np.zeros((0, 0), dtype=np.int8)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    if not lengths.all():
        raise ValueError(f"{where}: row {int(row_ids[np.flatnonzero(lengths == 0)[0]])} has an empty candidate list")
    values = pc.list_flatten(column)
    if not _is_string(values.type):
        raise ValueError(f"{where}: the candidates must be lists of strings, not {column.type}")
    encoded = pc.dictionary_encode(values).combine_chunks()
    distinct = encoded.dictionary.to_pylist()
    flat = pc.fill_null(encoded.indices, -1).to_numpy()
    index = _as_matrix(flat.astype(np.min_scalar_type(-max(len(distinct), 1))), lengths, row_ids, where)
    empty = row_ids[index[:, 0] == (distinct.index("") if "" in distinct else len(distinct))]
    if len(empty):
        raise ValueError(f"{where}: row {empty[0]} has no gold candidate: the first entry of its list is empty")
    return distinct, index


def _as_matrix(
    flat: npt.NDArray[np.signedinteger], lengths: npt.NDArray[np.integer], row_ids: npt.NDArray[np.int64], where: str
) -> npt.NDArray[np.signedinteger]:
    if (lengths == lengths[0]).all():
        matrix = flat.reshape(len(lengths), int(lengths[0]))
    else:
        matrix = np.full((len(lengths), int(lengths.max())), -1, dtype=flat.dtype)
        matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = flat
    if (matrix[:, 0] == -1).any():
        row = int(row_ids[np.flatnonzero(matrix[:, 0] == -1)[0]])
        raise ValueError(f"{where}: row {row} has no gold candidate: the first entry of its list is null")
    return matrix
