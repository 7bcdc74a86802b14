"""The nearest candidates of each pair that are no known answers, exact, block by block, and which of them are kept."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from xvlm2vec.common.files import replaced_file

from .options import MiningOptions
from .pool import MiningPool

QUERIES, CANDIDATES = 4096, 4096
"""Of each so many at a time: their scores take 64 MB."""

EMPTY = np.zeros(0, dtype=np.int64)
Vectors = Callable[[Sequence[int]], npt.NDArray[np.float32]]
"""Gives the vectors of contents by their numbers."""


@dataclass
class Mined:
    """What was found.

    Attributes:
        negatives: Of each pair, the numbers of the candidates among those of the pool, the nearest first.
        scores: Their cosines.
        cut: How many candidates of the range were left out, by the reason.
    """

    negatives: list[list[int]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    cut: Counter[str] = field(default_factory=Counter)


def mine(pool: MiningPool, vectors: Vectors, options: MiningOptions, work: Path) -> Mined:
    """Finds the negatives of all pairs.

    Args:
        pool: The pairs and candidates.
        vectors: Of contents.
        options: What counts as a negative.
        work: A folder for what is found, block by block: an interrupted search goes on from there.
    """
    work.mkdir(parents=True, exist_ok=True)
    mined = Mined()
    for start in range(0, len(pool.queries), QUERIES):
        pairs = range(start, min(start + QUERIES, len(pool.queries)))
        file = work / f"{start:09d}.npz"
        if not file.is_file():
            found = _nearest(pool, vectors, options, pairs)
            with replaced_file(file) as draft, open(draft, "wb") as out:
                np.savez(out, *found)
        with np.load(file, allow_pickle=False) as block:
            _choose(mined, pairs, [block[name] for name in block.files], options)
    return mined


def _nearest(
    pool: MiningPool, vectors: Vectors, options: MiningOptions, pairs: Sequence[int]
) -> tuple[npt.NDArray[np.generic], ...]:
    """Places and scores of the nearest candidates of each pair, their cosines to its positive, and the positive's.

    Behind the last candidate of a pair that has fewer, scores are infinitely low.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    positives = _units(vectors([pool.positives[pair] for pair in pairs]), device)
    queries = _units(vectors([pool.queries[pair] for pair in pairs]), device)
    asked = queries if options.search_with == "query" else positives
    count = min(options.range_max, len(pool.candidates))
    best = torch.full((len(pairs), count), -torch.inf, device=device)
    similarity = torch.zeros_like(best)
    places = torch.zeros((len(pairs), count), dtype=torch.int64, device=device)
    none = [(row, place) for row, pair in enumerate(pairs) for place in pool.none_of(pair)]
    rows, known = (np.array(part, dtype=np.int64) for part in zip(*none, strict=True)) if none else (EMPTY, EMPTY)
    for start in range(0, len(pool.candidates), CANDIDATES):
        some = slice(start, min(start + CANDIDATES, len(pool.candidates)))
        block = _units(vectors(pool.candidates[some]), device)
        fits = pool.may_be(pairs, some, options.candidates, options.per_language)
        inside = (known >= some.start) & (known < some.stop)
        fits[rows[inside], known[inside] - some.start] = False
        scores = (asked @ block.T).masked_fill(~torch.from_numpy(fits).to(device), -torch.inf)
        best, order = torch.cat([best, scores], dim=1).topk(count, dim=1)
        here = torch.arange(some.start, some.stop, device=device).expand(len(pairs), -1)
        places = torch.cat([places, here], dim=1).gather(1, order)
        similarity = torch.cat([similarity, positives @ block.T], dim=1).gather(1, order)
    # A candidate is measured by the positive's score, which of the positive itself is 1.
    level = (asked * positives).sum(dim=1) if options.search_with == "query" else torch.ones(len(pairs))
    return tuple(part.cpu().numpy() for part in (places, best, similarity, level))


def _units(vectors: npt.NDArray[np.float32], device: str) -> torch.Tensor:
    return normalize(torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)).to(device), dim=1)


def _choose(
    mined: Mined,
    pairs: Sequence[int],
    nearest: Sequence[npt.NDArray[np.generic]],
    options: MiningOptions,
) -> None:
    """Takes up those of the nearest, as `_nearest` gives them, that are no false negatives."""
    places, scores, similarity, level = nearest
    ranked = slice(options.range_min, options.range_max)
    for row, pair in enumerate(pairs):
        there = np.flatnonzero(np.isfinite(scores[row])[ranked]) + options.range_min
        kept = []
        for place in there:
            reason = _reason(float(scores[row, place]), float(similarity[row, place]), float(level[row]), options)
            if reason:
                mined.cut[reason] += 1
            else:
                kept.append(int(place))
        if options.sample == "random":
            draw = random.Random(f"{options.seed}:{pair}")
            kept = sorted(draw.sample(kept, min(options.negatives, len(kept))))
        kept = kept[: options.negatives]
        mined.negatives.append([int(places[row, place]) for place in kept])
        mined.scores.append([float(scores[row, place]) for place in kept])


def _reason(score: float, similarity: float, level: float, options: MiningOptions) -> str:
    """Why a candidate is left out; empty if it is a negative."""
    limits = {
        "relative margin": None if options.relative_margin is None else level - abs(level) * options.relative_margin,
        "absolute margin": None if options.absolute_margin is None else level - options.absolute_margin,
        "highest score": options.max_score,
    }
    for reason, limit in limits.items():
        if limit is not None and score > limit:
            return reason
    if options.min_score is not None and score < options.min_score:
        return "lowest score"
    if options.max_positive_similarity is not None and similarity > options.max_positive_similarity:
        return "similarity to the positive"
    return ""
