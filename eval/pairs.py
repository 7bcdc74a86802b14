"""A text with an image for models of two towers, which embed either: the sum of both unit vectors, as MMEB has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .abilities import PAIR, row_kind
from .metrics import unit_rows
from .ranking import Row


def sums_of_pairs(
    rows: Sequence[Row], encode: Callable[[list[Row]], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Embeds rows, those of a text and an image in two parts.

    Args:
        rows: The rows.
        encode: Embeds rows that are a text or an image each, `(n, D)`.

    Returns:
        `(N, D)` float32.
    """
    is_pair = np.array([row_kind(row) == PAIR for row in rows], dtype=bool)
    parts = [Row(row.text) if pair else row for row, pair in zip(rows, is_pair, strict=True)]
    parts += [Row(None, row.image) for row, pair in zip(rows, is_pair, strict=True) if pair]
    vectors = encode(parts)
    first = vectors[: len(rows)].copy()
    first[is_pair] = unit_rows(first[is_pair]) + unit_rows(vectors[len(rows) :])
    return first
