"""Which rows are taught, which decide nothing but when to stop, and which are measured: parted by what they hold."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xvlm2vec.corpus.rows import TextRow
from xvlm2vec.corpus.texts import content_key

TEST_SHARE, VALIDATION_SHARE = 0.5, 0.1


@dataclass
class Splits:
    """The parts of all rows.

    Attributes:
        train: Rows that are taught.
        validation: Rows whose loss is watched.
        test: Rows that are measured.
        left_out: Rows that share something with a test row and with a training row.
    """

    train: list[TextRow] = field(default_factory=list)
    validation: list[TextRow] = field(default_factory=list)
    test: list[TextRow] = field(default_factory=list)
    left_out: list[TextRow] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """Rows by part and source, and the texts of each language by part, as JSON takes it."""
        return {
            name: {
                "rows": len(rows),
                "sources": dict(Counter(row.source for row in rows)),
                "texts": dict(sorted(Counter(code for row in rows for code in row.texts).items())),
            }
            for name, rows in vars(self).items()
        }


def split_rows(rows: Sequence[TextRow], taught: Collection[str], tested: Collection[str]) -> Splits:
    """Parts rows so that no part has an image, or a text in any language, of another.

    Rows that share anything, also through others, are one group. A group with a row of a taught source is taught, one
    with a row of a tested source is tested, and of the rest shares are drawn. Of a group with rows of both kinds only
    the tested ones are kept.

    Args:
        rows: All rows.
        taught: Sources whose rows are taught.
        tested: Sources whose rows are tested.
    """
    splits = Splits()
    for group in grouped(rows):
        sources = {row.source for row in group}
        if sources & set(tested):
            splits.test += [row for row in group if row.source in tested]
            splits.left_out += [row for row in group if row.source not in tested]
        elif sources & set(taught):
            splits.train += group
        else:
            place = drawn_place(min(row.id for row in group))
            if place < TEST_SHARE:
                splits.test += group
            elif place < TEST_SHARE + VALIDATION_SHARE:
                splits.validation += group
            else:
                splits.train += group
    return splits


def grouped(rows: Sequence[TextRow]) -> list[list[TextRow]]:
    """Rows that share an image or a text, also through others, together; in the order of their first rows."""
    leaders = list(range(len(rows)))

    def leader(place: int) -> int:
        while leaders[place] != place:
            leaders[place] = leaders[leaders[place]]
            place = leaders[place]
        return place

    owners: dict[Hashable, int] = {}
    for place, row in enumerate(rows):
        for content in contents(row):
            first, second = sorted((leader(owners.setdefault(content, place)), leader(place)))
            leaders[second] = first
    groups: dict[int, list[TextRow]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(leader(place), []).append(row)
    return list(groups.values())


def contents(row: TextRow) -> list[Hashable]:
    """What two rows may share: an image's pixels, or a text in one language, whatever its case and spaces."""
    texts = [(code.split("-")[0], content_key(text)) for code, text in row.texts.items()]
    return [*texts, ("image", row.image_digest or row.image_name)]


def drawn_place(name: str) -> float:
    """A number from 0 to 1 that follows from a name, so that a row keeps its part when others come or go."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest()) / 2**48
