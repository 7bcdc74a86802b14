"""Smaller vectors: cut to their first values, quantised, or both, and what that costs each language."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .bootstrap import bootstrap_ci
from .graded import graded_ranks
from .metrics import FloatArray, RankCounts, hit_at_1, ndcg_at_k, unit_rows
from .pool import VectorSource, unit_blocks
from .ranking import RankingTask, score_task

_BITS = {"float32": 32, "int8": 8, "binary": 1}
PRECISIONS = tuple(_BITS)


@dataclass(frozen=True)
class Size:
    """A form in which vectors can be kept.

    Attributes:
        dim: How many of the first values are kept.
        precision: How each value is kept.
    """

    dim: int
    precision: str = "float32"

    @property
    def byte_count(self) -> int:
        """Bytes of one vector."""
        return math.ceil(self.dim * _BITS[self.precision] / 8)


def smaller_sizes(width: int, dims: Iterable[int] = (), precisions: Iterable[str] = ()) -> list[Size]:
    """Every combination of the dimensions and precisions, and each of them alone.

    Args:
        width: Values of a full vector.
        dims: Values to keep.
        precisions: Names from `PRECISIONS`.

    Raises:
        ValueError: A dimension is larger than the vectors, or a precision is unknown.
    """
    dims, precisions = list(dims), list(precisions)
    wrong = [dim for dim in dims if not 0 < dim <= width]
    if wrong:
        raise ValueError(f"vectors of {width} values cannot be cut to {', '.join(map(str, wrong))}")
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown:
        raise ValueError(f"unknown precision {', '.join(map(repr, unknown))}; choose from {', '.join(PRECISIONS)}")
    sizes = [
        Size(dim, precision)
        for dim in dict.fromkeys([width, *sorted(dims, reverse=True)])
        for precision in dict.fromkeys(["float32", *precisions])
    ]
    return sizes[1:]


def shrink(queries: VectorSource, candidates: VectorSource, size: Size) -> tuple[VectorSource, VectorSource]:
    """Both sides of a task in a smaller form, as vectors whose cosines are the scores that a search over it gives.

    Quantisation is that of sentence-transformers. `int8` divides the range that each dimension has among the
    candidates into 256 steps and stands for their middles; `binary` keeps the signs, whose cosine orders like the
    Hamming distance.
    """
    if size.precision == "float32":
        return _Shrunk(queries, size.dim), _Shrunk(candidates, size.dim)
    change = _signs if size.precision == "binary" else _steps(_Shrunk(candidates, size.dim))
    return _Shrunk(queries, size.dim, change), _Shrunk(candidates, size.dim, change)


def size_row(task: RankingTask, full: RankCounts, pair: tuple[VectorSource, VectorSource], size: Size, *, seed: int = 0,
             bootstrap: int = 1000) -> dict[str, Any]:  # fmt: skip
    """Scores of a task on smaller vectors, and what they lose.

    Args:
        task: The task.
        full: Its ranks on full vectors.
        pair: Full vectors of the queries and the candidates.
        size: The smaller form.
        seed: Seed of the bootstrap.
        bootstrap: Resamplings behind the interval.

    Returns:
        The task's names, `dim`, `precision`, `bytes`, `n`, `p_at_1`, `ndcg_at_10`, and `loss`: P@1 on full vectors
        minus this, with the interval `loss_ci95` over rows.
    """
    small = shrink(*pair, size)
    ranks = score_task(task, *small)
    graded = graded_ranks(task, *small, ranks)
    hits, loss = hit_at_1(ranks), hit_at_1(full) - hit_at_1(ranks)
    return {
        **task.names,
        **{"dim": size.dim, "precision": size.precision, "bytes": size.byte_count, "n": len(hits)},
        "p_at_1": float(hits.mean()),
        "ndcg_at_10": float((graded.ndcg(10) if graded else ndcg_at_k(ranks, 10)).mean()),
        "loss": float(loss.mean()),
        "loss_ci95": list(bootstrap_ci(loss, samples=bootstrap, seed=seed)),
    }


def size_summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each size: means over all tasks, the loss of each language, and the language that loses most.

    Returns:
        `dim`, `precision`, `bytes`, `p_at_1`, `loss`, `loss_by_language`, `worst_language` and `worst_loss`, from the
        largest vector to the smallest.
    """
    groups: dict[tuple[int, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dim"], row["precision"], row["bytes"]), []).append(row)
    summary = []
    for (dim, precision, size), members in sorted(groups.items(), key=lambda group: (-group[0][2], -group[0][0])):
        languages = {
            language: float(np.mean([row["loss"] for row in members if row["language"] == language]))
            for language in dict.fromkeys(row["language"] for row in members)
        }
        worst = max(languages, key=lambda language: languages[language])
        summary.append(
            {
                **{"dim": dim, "precision": precision, "bytes": size},
                "p_at_1": float(np.mean([row["p_at_1"] for row in members])),
                "loss": float(np.mean([row["loss"] for row in members])),
                "loss_by_language": languages,
                "worst_language": worst,
                "worst_loss": languages[worst],
            }
        )
    return summary


class _Shrunk:
    """Vectors that are cut, set to length 1 and changed when they are read."""

    def __init__(
        self, source: VectorSource, dim: int, change: Callable[[FloatArray], FloatArray] | None = None
    ) -> None:
        self._source, self._change = source, change
        self.shape = (len(source), dim)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float32]:
        cut = unit_rows(np.asarray(self._source[rows])[:, : self.shape[1]])
        return cut if self._change is None else self._change(cut).astype(np.float32)


def _signs(vectors: FloatArray) -> FloatArray:
    """The bits that sentence-transformers packs, as 1 and -1."""
    from sentence_transformers.util.quantization import quantize_embeddings

    packed = cast(npt.NDArray[np.uint8], quantize_embeddings(vectors, "ubinary"))
    return np.unpackbits(packed, axis=1, count=vectors.shape[1]).astype(np.float32) * 2 - 1


def _steps(candidates: VectorSource) -> Callable[[FloatArray], FloatArray]:
    from sentence_transformers.util.quantization import quantize_embeddings

    lowest, highest = (np.full(candidates.shape[1], end, dtype=np.float32) for end in (np.inf, -np.inf))
    for _, block in unit_blocks(candidates, "candidate"):
        lowest, highest = np.minimum(lowest, block.min(axis=0)), np.maximum(highest, block.max(axis=0))
    ranges = np.stack([lowest, highest])
    step = (highest - lowest) / 255

    def change(vectors: FloatArray) -> FloatArray:
        codes = cast(npt.NDArray[np.int8], quantize_embeddings(vectors, "int8", ranges=ranges))
        return lowest + (codes.astype(np.float32) + 128.5) * step

    return change
