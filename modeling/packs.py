"""Packs: rows of tokens side by side in one forward pass, without padding, what they have in common only once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import torch

from .image_inputs import join_images
from .rope import rope_positions
from .tree_attention import Block, Bucket, TreeLayout, move


@dataclass(frozen=True)
class TokenGroup:
    """Rows that begin alike. Plain data: a worker that has no model can make it.

    Args:
        prefix: Token ids that all rows begin with, every image among them; empty where sharing is not worth it.
        texts: The rest of each row, at least one token.
        images: The prefix's images as the backbone's processor made them for one row, on the CPU.
        head: How many leading tokens of each row are its image part: through the token behind the last image; 1
            without images.

    Raises:
        ValueError: There is no text, one is empty, or there are images without a prefix.
    """

    prefix: list[int]
    texts: list[list[int]]
    images: Mapping[str, torch.Tensor] = field(default_factory=dict)
    head: int = 1

    def __post_init__(self) -> None:
        if not self.texts or not all(self.texts):
            raise ValueError("A group needs texts of at least one token each.")
        if self.images and not self.prefix:
            raise ValueError("Images belong to the prefix of a group, but this one has none.")

    def __len__(self) -> int:
        """Tokens of the prefix and of all texts."""
        return len(self.prefix) + sum(map(len, self.texts))


@dataclass(frozen=True)
class Member:
    """A group, or some of its texts, in a pack.

    Args:
        number: The group's number in its batch.
        group: The group, with these texts only.
        rows: Number of each text, counted over all texts of the batch.
    """

    number: int
    group: TokenGroup
    rows: list[int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tokens of the prefix, number of texts, tokens of the longest text."""
        return len(self.group.prefix), len(self.rows), max(map(len, self.group.texts))


@dataclass(frozen=True)
class Pack:
    """Groups for one forward pass, `model(pack=pack)`, over `N` tokens and `R` texts.

    Args:
        buckets: The groups, in the order of the tokens; those of one shape together.
        rows: Which texts these are, counted over all texts of the batch, ascending: pooled vectors come in this order.
        input_ids: `(1, N)` int64.
        layout: Where everything lies.
        last: `(R,)` int64, the last token of each text.
        heads: `(groups,)` int64, tokens of each group's image part.
    """

    buckets: tuple[tuple[Member, ...], ...]
    rows: list[int]
    input_ids: torch.Tensor
    layout: TreeLayout
    last: torch.Tensor
    heads: torch.Tensor

    @property
    def members(self) -> list[Member]:
        """The groups, in the order of the pack's images."""
        return [member for bucket in self.buckets for member in bucket]

    @property
    def groups(self) -> list[int]:
        """Number of each group, in the order of the pack's images."""
        return [member.number for member in self.members]

    @property
    def tokens(self) -> int:
        """Tokens of the forward pass."""
        return self.input_ids.shape[1]

    @property
    def row_lengths(self) -> list[int]:
        """Tokens of each member's texts, their prefix included."""
        return [len(member.group.prefix) + len(text) for member in self.members for text in member.group.texts]

    def to(self, device: torch.device) -> Pack:
        """The same pack with its tensors on another device; images stay where they are."""
        return move(self, device, layout=self.layout.to(device))

    def images(self) -> dict[str, torch.Tensor]:
        """The image inputs of all groups as one batch; empty if there is no image."""
        groups = [member.group.images for member in self.members if member.group.images]
        return join_images(groups)

    def pooled(self, hidden: torch.Tensor, pooling: str) -> torch.Tensor:
        """Each row's states `(1, N, H)` as `pooling.pool` pools them when it is alone, `(R, H)` for each way."""
        return torch.cat([self._pooled(hidden, mode) for mode in pooling.split("+")], dim=-1)

    def _pooled(self, hidden: torch.Tensor, mode: str) -> torch.Tensor:
        if mode == "lasttoken":
            return hidden[0, self.last]
        if mode == "mean":
            return self.averages(hidden)
        count = (self.layout.index[self.last] + 1).to(torch.promote_types(hidden.dtype, torch.float32))[:, None]
        if mode == "mean_sqrt_len_tokens":
            return (self.averages(hidden).to(count.dtype) * count.sqrt()).to(hidden.dtype)
        if mode == "weightedmean":  # the sum of 1 to n is n * (n + 1) / 2
            weighted = hidden.to(count.dtype) * (self.layout.index + 1).to(count.dtype)[None, :, None]
            return (self.averages(weighted) * 2 / (count + 1)).to(hidden.dtype)
        if mode == "cls":
            return hidden[0, self._first_tokens()]
        if mode == "max":
            return self._largest(hidden)
        raise ValueError(f"packs cannot be pooled by {mode!r}.")

    def _first_tokens(self) -> torch.Tensor:
        """Place `(R,)` of each row's first token: its prefix's, or its own where it has no prefix."""
        starts = (self.layout.index == 0).nonzero()[:, 0]
        of_group = torch.empty(len(self.members), dtype=torch.long, device=starts.device)
        of_group[self.layout.group[starts]] = starts  # without a prefix, a group has one text
        return of_group[self.layout.group[self.last]]

    def _largest(self, hidden: torch.Tensor) -> torch.Tensor:
        """Largest value `(R, H)` of each row's states."""
        states, in_prefix = hidden[0], self.layout.text == -1
        low = float("-inf")
        texts = states.new_full((len(self.rows), states.shape[1]), low)
        places = self.layout.text[~in_prefix][:, None].expand(-1, states.shape[1])
        texts = texts.scatter_reduce(0, places, states[~in_prefix], "amax")
        prefixes = states.new_full((len(self.members), states.shape[1]), low)
        places = self.layout.group[in_prefix][:, None].expand(-1, states.shape[1])
        prefixes = prefixes.scatter_reduce(0, places, states[in_prefix], "amax")
        return torch.maximum(texts, prefixes[self.layout.group[self.last]])

    def averages(self, hidden: torch.Tensor, heads_only: bool = False) -> torch.Tensor:
        """Mean `(R, H)` of each row's states `(1, N, H)`, or of its image part only, computed at least in float32."""
        layout, states = self.layout, hidden[0].to(torch.promote_types(hidden.dtype, torch.float32))
        count = layout.index[self.last] + 1
        group_of_row = layout.group[self.last]
        if heads_only:
            states = states * (layout.index < self.heads[layout.group])[:, None]
            count = count.minimum(self.heads[group_of_row])
        in_prefix = layout.text == -1
        prefixes = states.new_zeros(len(self.members), states.shape[1])
        prefixes = prefixes.index_add(0, layout.group[in_prefix], states[in_prefix])
        texts = states.new_zeros(len(self.rows), states.shape[1])
        texts = texts.index_add(0, layout.text[~in_prefix], states[~in_prefix])
        return ((prefixes[group_of_row] + texts) / count[:, None]).to(hidden.dtype)

    def positions(self, backbone: Any, first: int | None) -> torch.Tensor:
        """Positions of all tokens: those that each row has alone.

        Args:
            backbone: The vision-language model; one with `get_rope_index` says itself where an image's tokens lie.
            first: Position of a row's first token where the backbone counts tokens; `None` as in `Family`.

        Returns:
            `(1, N)` int64, or `(A, 1, N)` for M-RoPE of `A` axes.
        """
        index = self.layout.index[None]
        if first is not None or not hasattr(backbone, "get_rope_index"):
            return index + (first or 0)
        prefixes = [rope_positions(backbone, member.group.prefix, member.group.images) for member in self.members]
        offsets = [int(places.max()) + 1 - places.shape[1] if places.numel() else 0 for places in prefixes]
        positions = index + torch.tensor(offsets, device=index.device)[self.layout.group]
        front = torch.cat(prefixes, dim=1).to(index.device)
        positions = positions.expand(len(front), -1).masked_scatter(self.layout.text == -1, front)
        return self._with_first_tokens(positions, backbone)[:, None]

    def _with_first_tokens(self, positions: torch.Tensor, backbone: Any) -> torch.Tensor:
        """Puts the texts' first tokens where the backbone does, if those of a group are all one.

        A row without a text has its last image's end mark there, which some backbones count with the image.
        """
        for number, member in enumerate(self.members):
            group = member.group
            if group.images and len({text[0] for text in group.texts}) == 1:
                places = rope_positions(backbone, [*group.prefix, group.texts[0][0]], group.images)[:, -1:]
                firsts = (self.layout.group == number) & (self.layout.text >= 0)
                firsts &= self.layout.index == len(group.prefix)
                positions = torch.where(firsts, places.to(positions.device), positions)
        return positions


def pack_groups(groups: Sequence[TokenGroup], budget: int, rope_limit: int | None = None) -> list[Pack]:
    """Packs groups in their order under a budget.

    A group that is larger than the budget is cut, and its prefix repeated; rows without a common prefix are packed one
    by one. One text over its prefix is never cut, however long it is.

    Args:
        groups: The groups.
        budget: Tokens of a pack.
        rope_limit: Tokens beyond which a backbone uses other RoPE factors (`rope_limit_of`); rows on either side of it
            never share a pack.

    Returns:
        Packs that hold each text once.

    Raises:
        ValueError: The budget is not positive.
    """
    if budget < 1:
        raise ValueError(f"A pack cannot hold {budget} tokens; pass a positive budget.")
    numbers = iter(range(sum(len(group.texts) for group in groups)))
    parts = [
        part
        for number, group in enumerate(groups)
        for part in _parts(Member(number, group, list(islice(numbers, len(group.texts)))), budget, rope_limit)
    ]
    filled: list[list[Member]] = []
    for beyond in (False, True):
        room = 0
        for part in parts:
            if _is_beyond(part.group, rope_limit) is not beyond:
                continue
            if len(part.group) > room:
                filled.append([])
                room = budget
            filled[-1].append(part)
            room -= len(part.group)
    return [make_pack(members) for members in filled]


def _parts(member: Member, budget: int, rope_limit: int | None) -> Iterator[Member]:
    """A group in parts that fit the budget, each on one side of the limit; without a prefix, text by text."""
    prefix, texts = len(member.group.prefix), member.group.texts
    if not prefix:
        yield from (_take(member, [place]) for place in range(len(texts)))
        return
    whole = len(member.group) <= budget
    places = range(len(texts)) if whole else sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for beyond in (False, True):
        chosen: list[int] = []
        room = 0
        for place in places:
            if (rope_limit is not None and prefix + len(texts[place]) > rope_limit) is not beyond:
                continue
            if chosen and len(texts[place]) > room:
                yield _take(member, chosen)
                chosen = []
            room = (room if chosen else budget - prefix) - len(texts[place])
            chosen.append(place)
        if chosen:
            yield _take(member, chosen)


def _take(member: Member, places: Sequence[int]) -> Member:
    """Some texts of a group."""
    if len(places) == len(member.rows):
        return member
    group = replace(member.group, texts=[member.group.texts[place] for place in places])
    return Member(member.number, group, [member.rows[place] for place in places])


def _is_beyond(group: TokenGroup, rope_limit: int | None) -> bool:
    """Whether the rows of a part are longer than the limit."""
    return rope_limit is not None and len(group.prefix) + len(group.texts[0]) > rope_limit


def make_pack(members: Sequence[Member]) -> Pack:
    """One pack of groups or parts of groups, equal shapes side by side; without a prefix, a group has one text."""
    buckets = _buckets(sorted(members, key=lambda member: member.shape))
    rows = sorted(row for member in members for row in member.rows)
    rank = {row: place for place, row in enumerate(rows)}
    ids: list[int] = []
    segments: list[tuple[int, int, int, int]] = []  # group, text, place in its row, tokens
    shapes = []
    number = 0
    for bucket in buckets:
        for place, member in enumerate(bucket):
            ids += member.group.prefix
            segments.append((number + place, -1, 0, len(member.group.prefix)))
        blocks = _blocks(bucket)
        for block in blocks:
            for place, row, text in block:
                ids += text
                segments.append((number + place, rank[row], len(bucket[place].group.prefix), len(text)))
        number += len(bucket)
        shapes.append(Bucket(len(bucket), bucket[0].shape[0], tuple(_shape(block, len(bucket)) for block in blocks)))
    group, text, start, tokens = torch.tensor(segments).T
    ends = tokens.cumsum(0)
    index = torch.arange(len(ids)) + (start - ends + tokens).repeat_interleave(tokens)
    last = torch.empty(len(rows), dtype=torch.long)
    last[text[text >= 0]] = ends[text >= 0] - 1
    layout = TreeLayout(tuple(shapes), group.repeat_interleave(tokens), text.repeat_interleave(tokens), index)
    heads = torch.tensor([member.group.head for bucket in buckets for member in bucket])
    return Pack(tuple(buckets), rows, torch.tensor([ids]), layout, last, heads)


def _much_longer(width: int, first: int) -> bool:
    """Whether padding texts to `width` tokens would be a waste for one of `first` tokens."""
    return width > first * 3 // 2 + 8


def _buckets(members: list[Member]) -> list[tuple[Member, ...]]:
    """Cuts sorted groups where prefix or number of texts change, or texts become much longer."""
    buckets: list[list[Member]] = []
    for member in members:
        first = buckets[-1][0].shape if buckets else None
        if first is None or member.shape[:2] != first[:2] or _much_longer(member.shape[2], first[2]):
            buckets.append([])
        buckets[-1].append(member)
    return [tuple(bucket) for bucket in buckets]


Text = tuple[int, int, list[int]]
"""Place of its group in the bucket, number of the row, token ids."""


def _blocks(bucket: Sequence[Member]) -> list[list[Text]]:
    """A bucket's texts in blocks of like length, each with as many texts of every group."""
    texts: list[list[Text]] = []
    for place, member in enumerate(bucket):
        pairs = sorted(zip(member.rows, member.group.texts, strict=True), key=lambda pair: len(pair[1]))
        texts.append([(place, row, ids) for row, ids in pairs])
    blocks: list[list[list[Text]]] = []
    first = 0
    for ranked in zip(*texts, strict=True):
        width = max(len(ids) for _, _, ids in ranked)
        if not blocks or _much_longer(width, first):
            blocks.append([[] for _ in bucket])
            first = width
        for group, text in zip(blocks[-1], ranked, strict=True):
            group.append(text)
    return [list(chain.from_iterable(block)) for block in blocks]


def _shape(block: Sequence[Text], groups: int) -> Block:
    lengths = torch.tensor([len(ids) for _, _, ids in block])
    rows, width, tokens = len(block), int(lengths.max()), int(lengths.sum())
    shape = Block(rows // groups, rows, tokens, width)
    if tokens == width * rows:
        return shape
    columns = torch.arange(width)
    starts = lengths.cumsum(0) - lengths
    sources = starts[:, None] + columns.minimum(lengths[:, None] - 1)
    places = torch.arange(rows)[:, None] * width + columns
    return replace(shape, pad=sources.flatten(), unpad=places[columns < lengths[:, None]])
