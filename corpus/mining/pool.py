"""The pairs to mine for and the candidates, by content: what is right for a query is none of its negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from xvlm2vec.modeling.rows import TextImageRow

Numbers = npt.NDArray[np.int64]


@dataclass
class MiningPool:
    """Contents are numbered; a content is a text with its images, whatever the images are called.

    Attributes:
        queries: Of each pair, the number of the query's content.
        positives: The same of its positive.
        languages: The same of its language; empty where there is none.
        candidates: The contents that may become negatives.
        rows: Of each candidate, the first pair whose positive it is.
        kinds: Of each candidate: text, image, or both.
        candidate_languages: In which languages it is the positive of a pair.
        excluded: Of each pair, the contents that are none of its negatives.
    """

    queries: list[int] = field(default_factory=list)
    positives: list[int] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    candidate_languages: list[set[str]] = field(default_factory=list)
    excluded: list[set[int]] = field(default_factory=list)
    _place: dict[int, int] = field(default_factory=dict, repr=False)
    _right: dict[int, set[int]] = field(default_factory=dict, repr=False)
    _speaks: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict, repr=False)

    def add(self, contents: Sequence[int], positive: TextImageRow, language: str = "") -> None:
        """Adds a pair.

        Args:
            contents: The numbers of its query, its positive and the negatives that it has already.
            positive: Its positive.
            language: Its language.
        """
        query, right, *wrong = contents
        self.queries.append(query)
        self.positives.append(right)
        self.languages.append(language)
        self.excluded.append({query, *wrong})
        self._right.setdefault(query, set()).add(right)
        if right not in self._place and len(positive.images) < 2:  # a list of negatives has one image each
            self._place[right] = len(self.candidates)
            self.candidates.append(right)
            self.rows.append(len(self.queries) - 1)
            self.kinds.append(kind_of(positive))
            self.candidate_languages.append(set())
        if right in self._place:
            self.candidate_languages[self._place[right]].add(language)

    def none_of(self, pair: int) -> Numbers:
        """The candidates that are no negatives of a pair, by content: its query and what is right for an equal one."""
        contents = self.excluded[pair] | self._right[self.queries[pair]]
        return np.array(sorted(self._place[one] for one in contents if one in self._place), dtype=np.int64)

    def may_be(self, pairs: Sequence[int], some: slice, candidates: str, per_language: bool) -> npt.NDArray[np.bool_]:
        """`(len(pairs), candidates in the slice)`: which are of the kind and language that is asked for."""
        kinds = self._kinds[some]
        if candidates == "same":
            fits = np.array([self._kind(pair) for pair in pairs])[:, None] == kinds[None, :]
        else:
            fits = np.tile((kinds == candidates) | (candidates == "any"), (len(pairs), 1))
        if per_language:
            codes = [self.languages[pair] for pair in pairs]
            speaks = {code: self._in_language(code)[some] for code in set(codes)}
            fits &= np.array([speaks[code] for code in codes])
        return fits

    @cached_property
    def _kinds(self) -> npt.NDArray[np.str_]:
        return np.array(self.kinds)

    def _kind(self, pair: int) -> str:
        place = self._place.get(self.positives[pair])
        return "both" if place is None else self.kinds[place]

    def _in_language(self, code: str) -> npt.NDArray[np.bool_]:
        if code not in self._speaks:
            self._speaks[code] = np.array([code in some for some in self.candidate_languages], dtype=bool)
        return self._speaks[code]


def kind_of(row: TextImageRow) -> str:
    """Text, image, or both."""
    if not row.images:
        return "text"
    return "both" if row.text else "image"
