"""Lists of candidates as indices into the distinct ones, checked on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def candidate_lists(
    column: pa.ChunkedArray,
    row_ids: npt.NDArray[np.int64],
    where: str,
    file_of: Callable[[str], Any] | None = None,
) -> tuple[list[str], npt.NDArray[np.signedinteger]]:
    """Dictionary-encode lists of candidates.

    Args:
        column: The lists, the right answer first.
        row_ids: `(n,)`, what messages call the rows.
        where: The file, for messages.
        file_of: What is equal for two names of one image; only the first of them is kept.

    Returns:
        Distinct strings, and `(n, m)` indices into them, -1 where there is none.

    Raises:
        ValueError: A list is empty, or its first entry is missing or occurs again; names file and row.
    """
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


def is_string(kind: pa.DataType) -> bool:
    """Whether a column holds texts, encoded or not."""
    if pa.types.is_dictionary(kind):
        return is_string(kind.value_type)
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
    if not is_string(values.type):
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
