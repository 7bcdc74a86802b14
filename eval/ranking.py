"""Ranking tasks as data, and their scoring: every query against its own list of candidates, the gold one first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .metrics import RankCounts, rank_counts, unit_rows

_BLOCK = 1 << 24  # scores held at once: 64 MB of float32
# Two float32 cosines of equal vectors differ by a few units in the last place, depending on batch and matrix kernels;
# nearer than this is level, so that rounding never decides a rank.
TIE_TOLERANCE = 5e-7


@dataclass(frozen=True, slots=True)
class Row:
    """What is embedded: a text, a picture, or both.

    Attributes:
        text: The text with its instruction already in place, or None.
        image: A key into the task's `images`, or None.
    """

    text: str | None = None
    image: str | None = None

    def __str__(self) -> str:
        parts = [repr(self.text)] if self.text is not None else []
        return " + ".join(parts + ([f"picture {self.image!r}"] if self.image is not None else [])) or "an empty row"


@dataclass(eq=False)
class RankingTask:
    """Queries with their candidate lists.

    Attributes:
        benchmark: For example `MMMEB`.
        dataset: For example `xm`.
        task: For example `t2i`.
        language: Code of the language.
        style: How texts were formatted.
        queries: `n` rows.
        candidates: Pool of distinct rows.
        candidate_index: `(n, m)` integers into `candidates`, the gold one in column 0, shorter lists padded with -1; a
            list of lists of any lengths is turned into that.
        images: Pictures, or paths to them, by the keys that the rows use.
        row_ids: `(n,)` integers that name the same item in every language (default: `0 ... n - 1`).
        skipped: Rows that the source had but that cannot be scored; they are not in the denominator.
        templates_hash: Names the instructions that were used, if any.

    Raises:
        ValueError: A list is empty, a gold candidate is missing or doubled, the pool holds a row twice, an index points
            outside the pool, or lengths differ.
    """

    benchmark: str
    dataset: str
    task: str
    language: str
    style: str
    queries: Sequence[Row]
    candidates: Sequence[Row]
    candidate_index: Any
    images: Mapping[str, Any] = field(default_factory=dict, repr=False)
    row_ids: npt.NDArray[np.integer] | None = None
    skipped: int = 0
    templates_hash: str | None = None

    def __post_init__(self) -> None:
        self.candidate_index = _padded(self.candidate_index, self.name)
        if self.row_ids is None:
            self.row_ids = np.arange(len(self.queries))
        self._check_lengths()
        self._check_pool()
        self._check_lists()

    @property
    def name(self) -> str:
        """Readable name for messages and files."""
        return "/".join((self.benchmark, self.dataset, self.task, self.language, self.style))

    def _check_lengths(self) -> None:
        rows = {
            "queries": len(self.queries),
            "candidate lists": len(self.candidate_index),
            "row_ids": len(self.row_ids if self.row_ids is not None else ()),
        }
        if len(set(rows.values())) != 1:
            raise ValueError(f"{self.name}: lengths differ: {rows}")
        if not rows["queries"]:
            raise ValueError(f"{self.name}: no rows to score ({self.skipped} were skipped)")

    def _check_pool(self) -> None:
        first: dict[Row, int] = {}
        for position, row in enumerate(self.candidates):
            if first.setdefault(row, position) != position:
                raise ValueError(
                    f"{self.name}: the pool holds {row} twice, at {first[row]} and {position}; rows must be distinct"
                )

    def _check_lists(self) -> None:
        index = self.candidate_index
        if index.size and (int(index.max()) >= len(self.candidates) or int(index.min()) < -1):
            row = int(np.flatnonzero(((index >= len(self.candidates)) | (index < -1)).any(axis=1))[0])
            raise ValueError(f"{self.name}: row {row} points outside the pool of {len(self.candidates)} candidates")
        if not index.shape[1] or (index == -1).all(axis=1).any():
            row = int(np.flatnonzero((index == -1).all(axis=1))[0]) if index.shape[1] else 0
            raise ValueError(f"{self.name}: row {row} ({self.queries[row]}) has an empty candidate list")
        gold = index[:, :1]
        if (gold == -1).any():
            row = int(np.flatnonzero(gold == -1)[0])
            raise ValueError(f"{self.name}: row {row} ({self.queries[row]}) has no gold candidate in its first place")
        doubled = (index[:, 1:] == gold).any(axis=1)
        if doubled.any():
            row = int(np.flatnonzero(doubled)[0])
            raise ValueError(
                f"{self.name}: row {row} ({self.queries[row]}) lists its gold candidate "
                f"{self.candidates[int(index[row, 0])]} more than once; remove the copy from the list "
                f"({int(doubled.sum())} of {len(index)} rows have this fault)"
            )


def score_task(
    task: RankingTask,
    query_embeddings: npt.NDArray[np.floating],
    candidate_embeddings: npt.NDArray[np.floating],
    tolerance: float = TIE_TOLERANCE,
) -> RankCounts:
    """Rank each query's gold candidate by float32 cosine within its own list, block by block.

    Args:
        task: The task.
        query_embeddings: `(n, D)`, in the order of `task.queries`.
        candidate_embeddings: `(pool, D)`, in the order of `task.candidates`.
        tolerance: Cosines no further apart than this are level.

    Returns:
        Counts per row, from which `metrics` computes everything.

    Raises:
        ValueError: Shapes do not fit, or a vector holds a NaN or an infinity.
    """
    queries, candidates = _checked(task, query_embeddings, candidate_embeddings)
    index = task.candidate_index
    counts = [
        _score_block(queries[start:stop], candidates, index[start:stop], tolerance)
        for start, stop in _row_blocks(len(queries), len(candidates) + index.shape[1])
    ]
    return RankCounts(np.concatenate([c.above for c in counts]), np.concatenate([c.tied for c in counts]))


def top_candidates(
    task: RankingTask,
    row: int,
    query_embedding: npt.NDArray[np.floating],
    candidate_embeddings: npt.NDArray[np.floating],
    k: int = 5,
) -> list[tuple[int, float]]:
    """The k best candidates of one row as (position in the pool, cosine); level ones in the order of the pool."""
    listed = np.unique(task.candidate_index[row][task.candidate_index[row] >= 0])
    scores = unit_rows(np.asarray(candidate_embeddings)[listed]) @ unit_rows(np.asarray(query_embedding)[None])[0]
    order = np.argsort(-scores, kind="stable")[:k]
    return [(int(listed[i]), float(scores[i])) for i in order]


def _score_block(
    queries: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.float32],
    index: npt.NDArray[np.integer],
    tolerance: float,
) -> RankCounts:
    valid = index >= 0
    if len(candidates) > index.size:  # more pool than lists: leave out what no list of this block names
        listed, flat = np.unique(np.where(valid, index, index[:, :1]), return_inverse=True)
        candidates, index = candidates[listed], flat.reshape(index.shape)
    scores = np.take_along_axis(queries @ candidates.T, np.where(valid, index, 0), axis=1)
    return rank_counts(scores[:, 1:], scores[:, 0], None if valid.all() else valid[:, 1:], tolerance)


def _checked(task: RankingTask, queries: Any, candidates: Any) -> tuple[npt.NDArray[np.float32], ...]:
    sides = []
    for side, rows, vectors in (("query", task.queries, queries), ("candidate", task.candidates, candidates)):
        array = np.asarray(vectors, dtype=np.float32)
        if array.ndim != 2 or len(array) != len(rows):
            raise ValueError(f"{task.name}: expected ({len(rows)}, D) {side} embeddings, got {array.shape}")
        finite = np.isfinite(array).all(axis=1)
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            raise ValueError(f"{task.name}: the vector of {side} {bad} ({rows[bad]}) holds a NaN or an infinity")
        sides.append(unit_rows(array))
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(
            f"{task.name}: queries have {sides[0].shape[1]} dimensions, candidates {sides[1].shape[1]}; "
            "embed both with the same model"
        )
    return tuple(sides)


def _row_blocks(rows: int, width: int) -> list[tuple[int, int]]:
    size = max(1, _BLOCK // max(width, 1))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def _padded(index: Any, name: str) -> npt.NDArray[np.integer]:
    if isinstance(index, np.ndarray) and index.ndim == 2:
        if not np.issubdtype(index.dtype, np.signedinteger):
            raise ValueError(f"{name}: candidate_index must hold signed integers, got {index.dtype}")
        return index
    lengths = np.array([len(row) for row in index], dtype=np.int64)
    padded = np.full((len(lengths), int(lengths.max(initial=0))), -1, dtype=np.int32)
    if padded.size:
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(row, int) for row in index])
    return padded
