"""What a pass made of the prefixes of its groups, kept for texts that continue them in a later pass.

The pass of an adapter's texts needs no token of their prefixes: keys and values of each attention layer stand for them,
and the states of each recurrent layer behind their last tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from .causal_attention import causal, prepend_prefix, sdpa

Memory = dict[tuple[str, int], torch.Tensor]
"""States of a recurrent layer by kind and number."""
Kept = TypeVar("Kept")


class MissingPrefixError(ValueError):
    """A text is to continue a prefix that no pass has kept."""


@dataclass
class PrefixStates:
    """States of prefixes by the number of their group.

    Attributes:
        layers: Keys and values `(key heads, P, D)` of each attention layer.
        recurrent: What each recurrent layer remembers behind the last token, by the kind and number of the state.
        hidden: Final states `(P, H)`.
    """

    layers: dict[int, dict[int, tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)
    recurrent: dict[int, dict[int, Memory]] = field(default_factory=dict)
    hidden: dict[int, torch.Tensor] = field(default_factory=dict)

    def keep(self, layer: Any, numbers: Sequence[int], key: torch.Tensor, value: torch.Tensor) -> None:
        """Keeps keys and values `(G, key heads, P, D)` of groups of these numbers."""
        kept = self.layers.setdefault(id(layer), {})
        kept.update({number: (key[place], value[place]) for place, number in enumerate(numbers)})

    def keep_memory(self, layer: Any, numbers: Sequence[int], memory: Mapping[tuple[str, int], torch.Tensor]) -> None:
        """Keeps the states `(G, ...)` that a recurrent layer has behind the prefixes of groups of these numbers."""
        kept = self.recurrent.setdefault(id(layer), {})
        for place, number in enumerate(numbers):
            kept[number] = {name: state[place] for name, state in memory.items()}

    def memory(self, layer: Any, numbers: Sequence[int]) -> Memory:
        """The states `(G, ...)` of a recurrent layer behind the prefixes of groups of these numbers.

        Raises:
            MissingPrefixError: Nothing was kept of a group.
        """
        kept = self._of_groups(layer, self.recurrent, numbers)
        return {name: torch.stack([memory[name] for memory in kept]) for name in kept[0]}

    def keep_hidden(self, members: Sequence[Any], hidden: torch.Tensor) -> None:
        """Keeps the final states of the prefixes of a pack's members, which follow each other in `(N, H)`."""
        parts = hidden.split([len(member.group.prefix) for member in members])
        self.hidden.update({member.number: part for member, part in zip(members, parts, strict=True)})

    def renumbered(self, numbers: Sequence[int]) -> PrefixStates:
        """The states of some groups under the numbers 0, 1 and so on; what is not kept is left out."""
        result = PrefixStates()
        result.take(self, dict(zip(numbers, range(len(numbers)), strict=True)))
        return result

    def take(self, states: PrefixStates, places: Mapping[int, int]) -> None:
        """Takes the states of groups over, each under the number that stands for its own."""
        for theirs, all_mine in ((states.layers, self.layers), (states.recurrent, self.recurrent)):
            for layer, kept in theirs.items():
                mine: dict[int, Any] = all_mine.setdefault(layer, {})
                mine.update({places[number]: part for number, part in kept.items() if number in places})
        self.hidden.update({places[number]: part for number, part in states.hidden.items() if number in places})

    def keys_and_values(self, layer: Any, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `(G, key heads, P, D)` of groups of these numbers.

        Raises:
            MissingPrefixError: Nothing was kept of a group.
        """
        pairs = self._of_groups(layer, self.layers, numbers)
        if len(pairs) == 1:
            return pairs[0][0][None], pairs[0][1][None]
        return torch.stack([key for key, _ in pairs]), torch.stack([value for _, value in pairs])

    def _of_groups(self, layer: Any, kept: Mapping[int, Mapping[int, Kept]], numbers: Sequence[int]) -> list[Kept]:
        """What was kept of a layer for these groups."""
        mine = kept.get(id(layer), {})
        missing = [number for number in numbers if number not in mine]
        if missing:
            raise MissingPrefixError(
                f"{type(layer).__name__} has kept nothing of the prefix of group {missing[0]}: run the groups through "
                "the base first, with `keep`, on the same model."
            )
        return [mine[number] for number in numbers]


@dataclass(frozen=True)
class PackPrefixes:
    """The prefixes of one pack: to be kept by its pass, or known already.

    Args:
        states: Where they are kept.
        numbers: Number of each group, bucket by bucket.
        known: Whether they are known, so that the pass holds texts only.
    """

    states: PrefixStates
    numbers: tuple[tuple[int, ...], ...]
    known: bool


def known_attention(
    layer: Any,
    bucket: Any,
    numbers: Sequence[int],
    texts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    prefixes: PrefixStates,
    window: int | None,
    settings: dict[str, Any],
) -> list[torch.Tensor]:
    """Attention of a bucket's texts over prefixes that are known: a group's texts read one copy of its keys.

    A prefix that is no longer than a text is copied for each: that costs less than keys of other texts under a mask.

    Args:
        layer: The attention layer.
        bucket: The `tree_attention.Bucket`.
        numbers: Numbers of its `G` groups.
        texts: Queries, keys and values `(1, heads, tokens, D)` of each block.
        prefixes: Holds their prefixes.
        window: Tokens that a sliding window sees.
        settings: `scale` and `dropout_p`.

    Returns:
        `(1, tokens, heads, D)` of each block.
    """
    shared = prefixes.keys_and_values(layer, numbers) if bucket.prefix else None
    pieces = []
    for block, states in zip(bucket.blocks, texts, strict=True):
        if bucket.prefix <= block.width:
            pieces.append(_text_by_text(block, states, shared, window, settings))
            continue
        query, key, value = (_side_by_side(block.spread(part), bucket.groups) for part in states)
        if shared is not None:
            key, value = (torch.cat(parts, dim=2) for parts in zip(shared, (key, value), strict=True))
        mask = texts_mask(bucket.prefix, block.texts, block.width, window, query.device)
        rows = _grouped_attention(query, key, value, mask, settings)
        pieces.append(block.gather(rows.unflatten(2, (block.texts, block.width)).transpose(1, 2).flatten(0, 1)))
    return pieces


def _text_by_text(
    block: Any,
    states: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    shared: tuple[torch.Tensor, torch.Tensor] | None,
    window: int | None,
    settings: dict[str, Any],
) -> torch.Tensor:
    """Attention of a block's texts, each with a copy of its prefix, `(1, tokens, heads, D)`."""
    query, key, value = (block.spread(part) for part in states)
    if shared is not None:
        key, value = (prepend_prefix(first, rows) for first, rows in zip(shared, (key, value), strict=True))
    return block.gather(causal(query, key, value, window, settings))


def _side_by_side(rows: torch.Tensor, groups: int) -> torch.Tensor:
    """Rows `(G * K, heads, T, D)` as the texts of groups on end, `(G, heads, K * T, D)`."""
    return rows.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2, 3)


def texts_mask(prefix: int, texts: int, width: int, window: int | None, device: torch.device) -> torch.Tensor:
    """What the tokens of a group's texts see: `(K * T, P + K * T)` bool, their prefix and what is theirs so far."""
    place = torch.arange(width, device=device).repeat(texts)
    text = torch.arange(texts, device=device).repeat_interleave(width)
    ago = place[:, None] - place
    own = (text[:, None] == text) & (ago >= 0)
    before = torch.ones(len(place), prefix, dtype=torch.bool, device=device)
    if window is not None:
        own &= ago < window
        before = (prefix + place)[:, None] - torch.arange(prefix, device=device) < window
    return torch.cat([before, own], dim=1)


def _grouped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, settings: dict[str, Any]
) -> torch.Tensor:
    """Masked attention; heads that share a key stand behind each other as further queries, so that none is repeated."""
    share = query.shape[1] // key.shape[1]
    if share == 1:
        return sdpa(query, key, value, attn_mask=mask, **settings)
    folded = query.unflatten(1, (-1, share)).flatten(2, 3)
    result = sdpa(folded, key, value, attn_mask=mask.repeat(share, 1), **settings)
    return result.unflatten(2, (share, -1)).flatten(1, 2)
