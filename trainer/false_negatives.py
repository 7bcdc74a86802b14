"""Which of a batch's candidates are no negatives: the same content, and what a guide finds too similar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import normalize

from .losses.gathering import gather_rows

SIDES = ("query", "positive", "negative")
Sides = dict[str, torch.Tensor]


class Guide(Protocol):
    """The vectors of another embedder, by what names a text with its images."""

    def vectors(self, keys: Sequence[bytes]) -> Any:
        """`(len(keys), D)` float32.

        Raises:
            KeyError: There is none for a key.
        """
        ...


@dataclass(frozen=True)
class FalseNegatives:
    """What is left out, as losses of pairs take it.

    Attributes:
        no_negative: `(B, C)` bool: of each query, among the positives and negatives of all processes.
        no_query: `(B, B')` bool: of each positive, among the queries of all processes.
    """

    no_negative: torch.Tensor
    no_query: torch.Tensor

    def __or__(self, other: FalseNegatives) -> FalseNegatives:
        return FalseNegatives(self.no_negative | other.no_negative, self.no_query | other.no_query)


def duplicates(contents: Sides) -> FalseNegatives:
    """Candidates that equal a query's positive or the query itself, and the positives of equal queries.

    Args:
        contents: A number of the content of each text with its images, by side; equal where these are.
    """
    query, positive = contents["query"], contents["positive"]
    queries, candidates = gather_rows(query), _candidates(contents)
    same_query = _equal(query, queries)
    left_out = _equal(positive, candidates) | _equal(query, candidates)
    left_out[:, : len(queries)] |= same_query
    return FalseNegatives(left_out, same_query | _equal(positive, gather_rows(positive)) | _equal(positive, queries))


def guided(vectors: Sides, margin: float) -> FalseNegatives:
    """Candidates that a guide finds nearer to a query than its positive less a margin (GISTEmbed, arXiv 2402.16829).

    Args:
        vectors: The guide's vectors of each text with its images, by side.
        margin: With 0 a candidate is left out that is nearer than the positive; the larger, the more are.
    """
    units = {side: normalize(part.float(), dim=1) for side, part in vectors.items()}
    query, positive = units["query"], units["positive"]
    level = (query * positive).sum(dim=1, keepdim=True) - margin
    return FalseNegatives(query @ _candidates(units).T > level, positive @ gather_rows(query).T > level)


def _candidates(parts: Sides) -> torch.Tensor:
    negative = parts.get("negative", parts["positive"][:0])
    return torch.cat([gather_rows(parts["positive"]), gather_rows(negative)])


def _equal(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left[:, None] == right[None, :]


def content_numbers(keys: Mapping[str, Sequence[bytes]]) -> Sides:
    """What `duplicates` takes, from keys that name contents."""
    return {
        side: torch.tensor([int.from_bytes(key[:8], "big", signed=True) for key in part])
        for side, part in keys.items()
        if part
    }
