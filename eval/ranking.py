"""Ranking tasks as data, and their scoring: every query against its own list of candidates, the gold one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xvlm2vec.common.result_keys import TASK_KEYS

from .metrics import RankCounts, rank_counts, row_blocks
from .pool import VectorSource, finite_unit_rows, score_pool, top_of_pool

_BLOCK = 1 << 24  # scores held at once: 64 MB of float32
# Two float32 cosines of equal vectors differ by a few units in the last place, depending on batch and matrix kernels;
# nearer than this is level, so that rounding never decides a rank.
TIE_TOLERANCE = 5e-7


@dataclass(frozen=True, slots=True)
class Row:
    """What is embedded: a text, an image, several images, or text and images.

    Attributes:
        text: The text with its instruction already in place, or None.
        image: A key into the task's `images`, several of them in order, or None.
        language: Of the text, for a model that has to be told; None for its base.
    """

    text: str | None = None
    image: str | tuple[str, ...] | None = None
    language: str | None = None

    def __str__(self) -> str:
        parts = [repr(self.text)] if self.text is not None else []
        return " + ".join(parts + [f"image {name!r}" for name in self.images]) or "an empty row"

    @property
    def images(self) -> tuple[str, ...]:
        """The keys of the row's images."""
        if self.image is None:
            return ()
        return (self.image,) if isinstance(self.image, str) else self.image


@dataclass(frozen=True, eq=False)
class Asked:
    """The queries of a task before their instruction, for who asks them in English.

    Attributes:
        texts: The text of each query, or None.
        in_english: Takes an English text, and whether an image goes with it; gives it with the English instruction.
    """

    texts: Sequence[str | None]
    in_english: Callable[[str, bool], str]


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
        gold_counts: `(n,)`, how many of a list's first candidates are gold (default: one). The best of them is ranked,
            against those that are not gold.
        whole_pool: The lists name the gold candidates only, and every other candidate of the pool competes.
        parallel: Whether `row_ids` name the same items in every language, so that ranks can be compared across them.
        images: Images, or paths to them, by the keys that the rows use.
        row_ids: `(n,)` distinct integers that name the same item in every language (default: `0 ... n - 1`).
        skipped: Rows that the source had but that cannot be scored; they are not in the denominator.
        skipped_for: Why, with the number of rows for each reason, where the source tells.
        templates_hash: Names the instructions that were used, if any.
        asked: The queries without their instructions.
        query_language: Code of the queries' language, if that is not the task's.
        candidate_language: The same of the candidates.
        notes: Further fields of the task's row in results.
        faults: Rows that known faults of the data concern, by the fault's name.
        grades: How right each gold candidate of a row is, in the order of its list; further grades are of right ones
            that are not in the pool, so that a row may have no gold candidate at all. With grades, nDCG and recall are
            those over all right candidates, as mteb has them; without, they are of the best one.
        main_score: Name of the score that the publisher reports, such as `ndcg_at_5`; only with grades.
        copies: Whether equal rows of the pool count as several candidates, as documents with ids of their own do.
        instructions: Those of queries and of candidates, `{text}` standing for a row's text; None if they are not
            known, and then texts cannot be looked at without them.

    Raises:
        ValueError: A list is empty, a gold candidate is missing or doubled, the pool holds a row twice, two rows have
            the same id, an index points outside the pool, or lengths differ.
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
    gold_counts: npt.NDArray[np.integer] | None = None
    whole_pool: bool = False
    parallel: bool = True
    grades: Sequence[Sequence[float]] | None = None
    main_score: str | None = None
    copies: bool = False
    skipped_for: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, Sequence[int]] = field(default_factory=dict)
    asked: Asked | None = field(default=None, repr=False)
    query_language: str | None = None
    candidate_language: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    instructions: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self.candidate_index = _padded(self.candidate_index, self.name)
        if self.whole_pool and self.gold_counts is None:
            self.gold_counts = (self.candidate_index >= 0).sum(axis=1)
        if self.row_ids is None:
            self.row_ids = np.arange(len(self.queries))
        self._check_lengths()
        self._check_pool()
        self._check_lists()

    @property
    def names(self) -> dict[str, str]:
        """`TASK_KEYS`: what results say that they are about."""
        return {key: getattr(self, key) for key in TASK_KEYS}

    @property
    def name(self) -> str:
        """Readable name for messages and files."""
        return "/".join(self.names.values())

    def _check_lengths(self) -> None:
        rows = {
            "queries": len(self.queries),
            "candidate lists": len(self.candidate_index),
            "row_ids": len(self.row_ids if self.row_ids is not None else ()),
            "gold_counts": len(self.queries if self.gold_counts is None else self.gold_counts),
            "grades": len(self.queries if self.grades is None else self.grades),
        }
        if len(set(rows.values())) != 1:
            raise ValueError(f"{self.name}: lengths differ: {rows}")
        if not rows["queries"]:
            raise ValueError(f"{self.name}: no rows to score ({self.skipped} were skipped)")
        ids, times = np.unique(np.asarray(self.row_ids), return_counts=True)
        if (times > 1).any():
            doubled = ids[times > 1][0]
            where = ", ".join(map(str, np.flatnonzero(np.asarray(self.row_ids) == doubled)))
            raise ValueError(f"{self.name}: rows {where} have the same id {doubled}; ids in row_ids must be distinct")

    def _check_pool(self) -> None:
        if self.copies:
            return
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
        empty = (index == -1).all(axis=1)
        if not index.shape[1] or (empty.any() and not (self.whole_pool and self.grades is not None)):
            row = int(np.flatnonzero(empty)[0]) if index.shape[1] else 0
            raise ValueError(f"{self.name}: row {row} ({self.queries[row]}) has an empty candidate list")
        is_gold = gold_places(self)
        missing = (index[:, : is_gold.shape[1]] == -1) & is_gold
        if missing.any():
            row, place = (int(places[0]) for places in np.nonzero(missing))
            where = "in its first place" if place == 0 else f"in place {place + 1}, though it should have one there"
            raise ValueError(f"{self.name}: row {row} ({self.queries[row]}) has no gold candidate {where}")
        for place in range(is_gold.shape[1]):
            self._check_doubled(place, is_gold[:, place])

    def _check_doubled(self, place: int, is_gold: npt.NDArray[np.bool_]) -> None:
        index = self.candidate_index
        doubled = (index[:, place + 1 :] == index[:, place : place + 1]).any(axis=1) & is_gold
        if doubled.any():
            row = int(np.flatnonzero(doubled)[0])
            raise ValueError(
                f"{self.name}: row {row} ({self.queries[row]}) lists its gold candidate "
                f"{self.candidates[int(index[row, place])]} more than once; remove the copy from the list "
                f"({int(doubled.sum())} of {len(index)} rows have this fault)"
            )


def gold_places(task: RankingTask) -> npt.NDArray[np.bool_]:
    """Which of the first places of each list are gold, `(n, largest number of gold candidates)`."""
    if task.gold_counts is None:
        return np.ones((len(task.candidate_index), 1), dtype=bool)
    counts = np.asarray(task.gold_counts)
    if len(counts) and int(counts.min()) < 1 and task.grades is None:
        row = int(np.argmin(counts))
        raise ValueError(f"{task.name}: row {row} ({task.queries[row]}) has no gold candidate")
    if len(counts) and int(counts.max()) > task.candidate_index.shape[1]:
        row = int(np.argmax(counts))
        raise ValueError(
            f"{task.name}: row {row} ({task.queries[row]}) should have {int(counts[row])} gold candidates, and its "
            f"list has only {int((task.candidate_index[row] >= 0).sum())} entries"
        )
    return np.arange(int(counts.max(initial=1))) < counts[:, None]


def score_task(
    task: RankingTask,
    query_embeddings: VectorSource,
    candidate_embeddings: VectorSource,
    tolerance: float = TIE_TOLERANCE,
) -> RankCounts:
    """Rank each query's best gold candidate by float32 cosine within its own list or the whole pool, block by block.

    Args:
        task: The task.
        query_embeddings: `(n, D)`, in the order of `task.queries`.
        candidate_embeddings: `(pool, D)`, in the order of `task.candidates`. A whole pool may be larger than the memory
            if these are `StoredVectors`.
        tolerance: Cosines no further apart than this are level.

    Returns:
        Counts per row, from which `metrics` computes everything.

    Raises:
        ValueError: Shapes do not fit, or a vector holds a NaN or an infinity.
    """
    _check_shapes(task, query_embeddings, candidate_embeddings)
    rows = task.candidate_index, gold_places(task)
    return _ranked(task, query_embeddings, candidate_embeddings, *rows, tolerance)


def score_every_gold(
    task: RankingTask,
    query_embeddings: VectorSource,
    candidate_embeddings: VectorSource,
    tolerance: float = TIE_TOLERANCE,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], RankCounts]:
    """Rank every gold candidate by itself among all the others, the gold ones included.

    Returns:
        The rows of the gold candidates, their places in the rows' lists, and their counts.
    """
    _check_shapes(task, query_embeddings, candidate_embeddings)
    rows, places = np.nonzero(gold_places(task))
    index = task.candidate_index[rows]  # a copy: each gold candidate comes first in a list of its own
    here = np.arange(len(rows))
    index[here, 0], index[here, places] = index[here, places], index[here, 0].copy()
    alone = np.ones((len(rows), 1), dtype=bool)
    return rows, places, _ranked(task, query_embeddings[:][rows], candidate_embeddings, index, alone, tolerance)


def _ranked(
    task: RankingTask,
    query_embeddings: VectorSource,
    candidate_embeddings: VectorSource,
    index: npt.NDArray[np.integer],
    is_gold: npt.NDArray[np.bool_],
    tolerance: float,
) -> RankCounts:
    """Counts for the best of each row's gold candidates, which come first in its list."""
    if task.whole_pool:
        golds = index[:, : is_gold.shape[1]]
        return score_pool(query_embeddings, candidate_embeddings, golds, is_gold, tolerance=tolerance, name=task.name)
    queries = finite_unit_rows(query_embeddings[:], f"{task.name}: query")
    candidates = finite_unit_rows(candidate_embeddings[:], f"{task.name}: candidate")
    counts = [
        _score_block(queries[rows], candidates, index[rows], is_gold[rows], tolerance)
        for rows in row_blocks(len(queries), len(candidates) + index.shape[1], _BLOCK)
    ]
    return RankCounts(np.concatenate([c.above for c in counts]), np.concatenate([c.tied for c in counts]))


def top_candidates(
    task: RankingTask, rows: Sequence[int], queries: VectorSource, candidates: VectorSource, k: int = 5
) -> list[list[tuple[int, float]]]:
    """The k best candidates of some rows as (position in the pool, cosine); level ones in the order of the pool."""
    chosen = np.asarray(rows, dtype=np.int64)
    if task.whole_pool:
        return top_of_pool(queries[chosen], candidates, k)
    top = []
    for row, query in zip(chosen, queries[chosen], strict=True):
        listed = np.unique(task.candidate_index[row][task.candidate_index[row] >= 0])
        best = top_of_pool(query[None], candidates[listed], k)[0]
        top.append([(int(listed[place]), score) for place, score in best])
    return top


def _score_block(
    queries: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.float32],
    index: npt.NDArray[np.integer],
    is_gold: npt.NDArray[np.bool_],
    tolerance: float,
) -> RankCounts:
    valid = index >= 0
    if len(candidates) > index.size:  # more pool than lists: leave out what no list of this block names
        listed, flat = np.unique(np.where(valid, index, index[:, :1]), return_inverse=True)
        candidates, index = candidates[listed], flat.reshape(index.shape)
    scores = np.take_along_axis(queries @ candidates.T, np.where(valid, index, 0), axis=1)
    if is_gold.shape[1] == 1:
        return rank_counts(scores[:, 1:], scores[:, 0], None if valid.all() else valid[:, 1:], tolerance)
    gold = np.where(is_gold, scores[:, : is_gold.shape[1]], -np.inf).max(axis=1)
    valid[:, : is_gold.shape[1]] &= ~is_gold
    return rank_counts(scores, gold, valid, tolerance)


def _check_shapes(task: RankingTask, queries: VectorSource, candidates: VectorSource) -> None:
    for side, rows, vectors in (("query", task.queries, queries), ("candidate", task.candidates, candidates)):
        if len(vectors.shape) != 2 or len(vectors) != len(rows):
            raise ValueError(f"{task.name}: expected ({len(rows)}, D) {side} embeddings, got {vectors.shape}")
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"{task.name}: queries have {queries.shape[1]} dimensions, candidates {candidates.shape[1]}; "
            "embed both with the same model"
        )


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
