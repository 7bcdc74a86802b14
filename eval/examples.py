"""Queries to look at: a few drawn ones, the same items in every language, and some that went wrong."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from .metrics import RankCounts, expected_rank, hit_at_1
from .pool import VectorSource
from .ranking import RankingTask, Row, gold_places, top_candidates
from .row_images import open_image


class Gallery:
    """Small copies of the images that examples show, named by their contents.

    Args:
        size: Longest side in pixels; None keeps no copies.

    Attributes:
        files: WebP bytes by file name.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.files: dict[str, bytes] = {}
        self._names: dict[tuple[int, str], str] = {}

    def add(self, task: RankingTask, row: Row) -> list[str]:
        """File names of the images of a row; none where no copies are kept."""
        return [self._add(task, name) for name in row.images] if self.size else []

    def _add(self, task: RankingTask, name: str) -> str:
        key = (id(task.images), name)
        if key not in self._names:
            content = _small_copy(task.images[name], self.size or 0)
            self._names[key] = f"{hashlib.sha256(content).hexdigest()[:16]}.webp"
            self.files[self._names[key]] = content
        return self._names[key]


def _choose_rows(
    row_ids: npt.NDArray[np.integer], hits: npt.NDArray[np.floating], drawn: int, failures: int, seed: int
) -> list[int]:
    """Rows to show: `drawn` at random, the same in every language and for every model, then `failures` missed ones."""
    ids = np.asarray(row_ids)
    if not len(ids):
        return []
    position = np.random.default_rng(seed).permutation(int(ids.max()) + 1)
    order = np.argsort(position[ids])
    missed = [int(row) for row in order[drawn:] if hits[row] < 1]
    return [int(row) for row in order[:drawn]] + missed[:failures]


def task_examples(
    task: RankingTask,
    pair: tuple[VectorSource, VectorSource],
    ranks: RankCounts,
    gallery: Gallery,
    *,
    drawn: int,
    failures: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The chosen rows, each with its gold candidate, its expected rank from 1, and the best five.

    `drawn` tells those drawn at random from those that are shown because they were missed.
    """
    answered = np.flatnonzero(gold_places(task)[:, 0])
    ids, hits = np.asarray(task.row_ids)[answered], hit_at_1(ranks)[answered]
    chosen = [int(answered[row]) for row in _choose_rows(ids, hits, drawn, failures, seed)]
    top = top_candidates(task, chosen, *pair) if chosen else []
    rank = expected_rank(ranks) + 1
    return [
        {
            **task.names,
            "row": int(np.asarray(task.row_ids)[row]),
            "drawn": number < drawn,
            "rank": float(rank[row]),
            "query": _content(task, task.queries[row], gallery),
            "gold": _candidate(task, int(task.candidate_index[row, 0]), gallery),
            "golds": _gold_places(task, row),
            "top": [_candidate(task, place, gallery) | {"score": score} for place, score in best],
        }
        for number, (row, best) in enumerate(zip(chosen, top, strict=True))
    ]


def _gold_places(task: RankingTask, row: int) -> list[int]:
    count = 1 if task.gold_counts is None else int(task.gold_counts[row])
    return [int(place) for place in task.candidate_index[row, :count]]


def _candidate(task: RankingTask, place: int, gallery: Gallery) -> dict[str, Any]:
    return {"id": place, **_content(task, task.candidates[place], gallery)}


def _content(task: RankingTask, row: Row, gallery: Gallery) -> dict[str, Any]:
    content: dict[str, Any] = {"text": row.text, "image": row.image}
    copies = gallery.add(task, row)
    return content | ({"images": copies} if copies else {})


def _small_copy(image: Any, size: int) -> bytes:
    copy = open_image(image)
    copy.thumbnail((size, size))
    buffer = io.BytesIO()
    copy.save(buffer, "WEBP", quality=82)
    return buffer.getvalue()
