"""Sides of a contrastive batch in packs: without padding, and an image that several rows show is seen once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xvlm2vec.common.texts import is_blank
from xvlm2vec.modeling.packing import Pack, TokenGroup, pack_groups, token_groups
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor, warn_cut
from xvlm2vec.modeling.rows import TextImageRow

COPY = 1 / 8
"""Memory of a prefix's token that is copied for a text, its key and value, as a share of what any token takes."""

Features = dict[str, Any]


@dataclass(frozen=True)
class PackedSide:
    """The queries, positives or negatives of a batch as groups of tokens.

    Args:
        groups: Rows that show the same images, or that show none.
        places: Of each group's texts, the numbers of their rows in the side.
        rope_limit: As of `pack_groups`.
        dense: Whether packs run one masked attention over all tokens.
    """

    groups: list[TokenGroup]
    places: list[list[int]]
    rope_limit: int | None = None
    dense: bool = False

    def longest(self, with_images: bool) -> int:
        """Tokens of the longest row, of those with images or without; 0 where there is none."""
        of_kind = (group for group in self.groups if bool(group.images) is with_images)
        return max((len(group.prefix) + max(map(len, group.texts)) for group in of_kind), default=0)

    def packs(self, budgets: dict[bool, int]) -> list[tuple[Pack, list[int]]]:
        """The packs of rows without images, then of those with some, and the numbers of the rows that each embeds.

        Args:
            budgets: Tokens of a pack with images (`True`) and without (`False`).
        """
        found = []
        for with_images in (False, True):
            chosen = [number for number, group in enumerate(self.groups) if bool(group.images) is with_images]
            groups, rows = [self.groups[number] for number in chosen], [self.places[number] for number in chosen]
            numbers = [place for part in rows for place in part]
            budget = _without_copies(groups, budgets[with_images])
            packs = pack_groups(groups, budget, self.rope_limit) if groups else []
            found += [(pack, [numbers[row] for row in pack.rows]) for pack in packs]
        return found


@dataclass(frozen=True)
class PairPacker:
    """Makes a `PackedSide` of rows; needs no model, so that workers can do so.

    Args:
        processor: The model's processor.
        with_images: Whether it was proven for rows with images that they may share packs.
        bare_images: Whether images without a text may, too; not where the last token of such a row is the image's.
        rope_limit: As of `PackedSide`.
        dense: As of `PackedSide`.
    """

    processor: XVLM2VecProcessor
    with_images: bool
    bare_images: bool = True
    rope_limit: int | None = None
    dense: bool = False

    def takes(self, rows: Sequence[TextImageRow]) -> bool:
        """Whether these rows may be packed."""
        shown = [row for row in rows if row.images]
        return not shown or (self.with_images and (self.bare_images or not any(is_blank(row.text) for row in shown)))

    def pack(self, rows: Sequence[TextImageRow], digests: Sequence[bytes | None]) -> PackedSide:
        """The rows of a side, each image prepared once.

        Args:
            rows: The rows.
            digests: What names each row's images by their content; `None` for a row without.

        Raises:
            ValueError: A row cannot be embedded; the message names it.
        """
        together: dict[Any, list[int]] = {}
        for place, (row, digest) in enumerate(zip(rows, digests, strict=True)):
            front = self.processor.recipe.shared_part(row) if row.images else None
            together.setdefault((digest, front), []).append(place)
        places = list(together.values())
        groups, cut = token_groups(self.processor, [[rows[place] for place in part] for part in places], places)
        if cut:
            warn_cut(cut, len(rows), self.processor.limit())
        return PackedSide(groups, places, self.rope_limit, self.dense)


@dataclass(frozen=True)
class Places:
    """Where the vectors of packs belong.

    Args:
        rows: Of each side and each of its packs, the row of each vector.
    """

    rows: list[list[list[int]]]

    def restore(self, vectors: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """The vectors of each side in the order of its rows, from those of all packs."""
        pieces = iter(vectors)
        sides = []
        for packs in self.rows:
            joined = torch.cat([piece for _ in packs for piece in next(pieces)])
            order = torch.tensor([row for pack in packs for row in pack], device=joined.device)
            sides.append(joined[order.argsort()])
        return sides


def pack_sides(sides: Sequence[PackedSide], mini_batch_size: int | None) -> tuple[list[Features], Places]:
    """Packs the sides of a batch.

    Args:
        sides: Queries, positives and, if there are any, negatives.
        mini_batch_size: A pack takes about the memory of so many rows that are padded to the longest of the batch, and
            of rows with images, to the longest of these; without it all that fits together is one pack.

    Returns:
        What the model takes for each pack, side by side, and where its vectors belong.
    """
    longest = {with_images: max(side.longest(with_images) for side in sides) for with_images in (True, False)}
    longest[False] = max(longest.values())
    whole = sum(len(group) for side in sides for group in side.groups)
    size = mini_batch_size
    budgets = {kind: whole if size is None else size * max(tokens, 1) for kind, tokens in longest.items()}
    packed = [(side, side.packs(budgets)) for side in sides]
    # Cached losses look for ids to count the rows of a column: those of a pack are the one row that must not be cut.
    features: list[Features] = [
        {"input_ids": pack.input_ids, "pack": pack, "dense": side.dense} for side, packs in packed for pack, _ in packs
    ]
    return features, Places([[rows for _, rows in packs] for _, packs in packed])


def _without_copies(groups: Sequence[TokenGroup], budget: int) -> int:
    """What is left of a budget of tokens for tokens, as each text also gets a copy of its prefix's keys and values."""
    tokens = sum(map(len, groups))
    copies = sum(len(group.prefix) * len(group.texts) for group in groups if len(group.texts) > 1)
    return max(int(budget * tokens / (tokens + COPY * copies)), 1) if copies else budget
