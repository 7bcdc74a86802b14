"""The forward pass of a pack through a vision-language backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .activated import Routes, acting
from .backbone_inputs import in_dtype
from .families import Family, family_of
from .image_inputs import join_images, like_shapes, parameters_of
from .packs import Pack, TokenGroup
from .prefix_states import PackPrefixes, PrefixStates
from .rope import rope_limit_of
from .state_forks import fork_states
from .tree_attention import use_tree

_SPLIT = ("pooler_output", "deepstack_features", "last_hidden_state", "hidden_states", "attentions")
"""What a vision tower gives for each image token, or what no language model reads."""


@dataclass(frozen=True)
class ImageStates:
    """What a vision tower made of the images of one group.

    Args:
        states: `(T, H)`, one for each image token; image by image where the backbone gives a list.
        deepstack: The same for each layer of the language model that gets images, too.
        listed: Whether the backbone gives a list.
        others: What else the tower gave for a whole batch; the language model may read it (Ovis 2's marks).
    """

    states: tuple[torch.Tensor, ...]
    deepstack: tuple[tuple[torch.Tensor, ...], ...] = ()
    listed: bool = True
    others: Mapping[str, Any] = field(default_factory=dict)


def image_states(backbone: Any, pack: Pack) -> list[ImageStates]:
    """Runs the vision tower over the images of a pack: one entry for each group with images, in their order.

    Images of one shape go together, if the tower takes such; none is padded, so that none depends on its neighbours.

    Raises:
        ValueError: The number of states is not the number of image tokens.
    """
    groups = [member.group for member in pack.members if member.group.images]
    together = like_shapes([group.images for group in groups])
    if family_of(backbone.config.model_type).images_of_one_row:
        together = [[place] for place in range(len(groups))]
    result: list[ImageStates] = [ImageStates(())] * len(groups)
    for places in together:
        chosen = [groups[place] for place in places]
        for place, states in zip(places, _states_of(backbone, chosen), strict=True):
            result[place] = states
    return result


def _states_of(backbone: Any, groups: Sequence[TokenGroup]) -> list[ImageStates]:
    """The states of groups whose images have one shape."""
    if not hasattr(backbone, "get_image_features"):
        raise ValueError("its images do not enter the language model as tokens of their own")
    wanted, family = parameters_of(backbone.get_image_features), family_of(backbone.config.model_type)
    images = {
        name: in_dtype(family, backbone.dtype, name, value)
        for name, value in join_images([group.images for group in groups]).items()
        if name in wanted
    }
    images = {name: value.to(backbone.device) if torch.is_tensor(value) else value for name, value in images.items()}
    features = backbone.get_image_features(**images, return_dict=True)
    counts = [count_image_tokens(backbone, group) for group in groups]
    states = split_by_group(features.pooler_output, counts)
    layers = [split_by_group(layer, counts) for layer in getattr(features, "deepstack_features", None) or ()]
    listed = isinstance(features.pooler_output, list | tuple)
    others = {name: value for name, value in vars(features).items() if name not in _SPLIT}  # `items` leaves None out
    return [
        ImageStates(group, tuple(layer[place] for layer in layers), listed, others)
        for place, group in enumerate(states)
    ]


def split_by_group(states: Any, counts: Sequence[int]) -> list[tuple[torch.Tensor, ...]]:
    """Splits image states, a list of `(T_i, H)` or one tensor `(..., H)`, by the image tokens of each group.

    Raises:
        ValueError: There are more or fewer states than image tokens.
    """
    parts = list(states) if isinstance(states, list | tuple) else [states.flatten(0, -2)]
    if len(parts) == 1 and len(parts[0]) == sum(counts):
        parts = list(parts[0].split(list(counts)))
    groups: list[tuple[torch.Tensor, ...]] = []
    for count in counts:
        group: list[torch.Tensor] = []
        while parts and sum(map(len, group)) < count:
            group.append(parts.pop(0))
        groups.append(tuple(group))
    if parts or [sum(map(len, group)) for group in groups] != list(counts):
        raise ValueError(f"The image features do not fit {list(counts)} image tokens: the rows would be wrong.")
    return groups


def encoder_outputs(states: Sequence[ImageStates]) -> dict[str, Any] | None:
    """What the backbone takes as `mm_encoder_outputs`; `None` without images."""
    if not states:
        return None
    features = [part for group in states for part in group.states]
    layers = zip(*(group.deepstack for group in states), strict=True)
    deep = [[part for parts in layer for part in parts] for layer in layers]
    joined = features if states[0].listed else torch.cat(features)
    return {"image": SimpleNamespace(**states[0].others, pooler_output=joined, deepstack_features=deep)}


def count_image_tokens(backbone: Any, group: TokenGroup) -> int:
    """Number of image tokens in a group's prefix; backbones without a token of their own count below 0."""
    token = getattr(backbone.config, "image_token_id", None)
    return sum(value < 0 or value == token for value in group.prefix)


def run_pack(
    backbone: PreTrainedModel,
    family: Family,
    pack: Pack,
    images: Sequence[ImageStates] | None,
    dense: bool,
    adapters: Sequence[str | None] | None = None,
    keep: PrefixStates | None = None,
) -> torch.Tensor:
    """Hidden states of a pack.

    Args:
        backbone: The vision-language model.
        family: The backbone's family.
        pack: The pack, on the backbone's device.
        images: The states of the pack's images, if they were computed before.
        dense: Mask one attention over all tokens instead: far slower, for checks.
        adapters: For each row of the pack the adapter that acts on its own text; `None` for the base.
        keep: Keeps what the pass makes of prefixes.

    Returns:
        `(1, N, H)`.

    Raises:
        ValueError: The pack mixes rows with different RoPE factors, or the backbone runs another attention.
    """
    states = image_states(backbone, pack) if images is None else images
    encoded = encoder_outputs(states)
    hidden = _run(
        backbone,
        family,
        pack,
        input_ids=pack.input_ids,
        positions=pack.positions(backbone, family.first_position),
        routes=routes_of(pack, adapters),
        prefixes=None if keep is None else PackPrefixes(keep, _numbers(pack), known=False),
        dense=dense,
        more={"mm_encoder_outputs": encoded} if encoded else {},
    )
    if keep is not None:
        keep.keep_hidden(pack.members, hidden[0, pack.layout.text == -1])
    return hidden


def run_texts(
    backbone: PreTrainedModel, family: Family, pack: Pack, over: PrefixStates, adapters: Sequence[str | None]
) -> torch.Tensor:
    """Hidden states of a pack whose prefixes were run before: only its texts are run, over what was kept of these.

    Args:
        backbone: The vision-language model.
        family: The backbone's family.
        pack: The pack, on the backbone's device.
        over: What was kept of the groups of these numbers.
        adapters: As for `run_pack`.

    Returns:
        `(1, N, H)`; those of prefixes are the ones that were kept.
    """
    in_text = pack.layout.text >= 0
    hidden = _run(
        backbone,
        family,
        pack,
        input_ids=pack.input_ids[:, in_text],
        positions=pack.positions(backbone, family.first_position)[..., in_text],
        routes=routes_of(pack, adapters, texts_only=True),
        prefixes=PackPrefixes(over, _numbers(pack), known=True),
    )
    prefixes = torch.cat([over.hidden[member.number] for member in pack.members])
    whole = hidden.new_empty(1, pack.tokens, hidden.shape[-1])
    whole = whole.index_copy(1, in_text.nonzero()[:, 0], hidden)
    return whole.index_copy(1, (~in_text).nonzero()[:, 0], prefixes[None].to(hidden.dtype))


def routes_of(pack: Pack, adapters: Sequence[str | None] | None, texts_only: bool = False) -> Routes | None:
    """Which tokens of a pack adapters act on: of each text those from where its own begins.

    Args:
        pack: The pack.
        adapters: For each of its rows an adapter's name, or `None`.
        texts_only: Whether the pass has no prefixes.

    Raises:
        ValueError: The groups do not tell where texts begin.
    """
    if adapters is None or not any(adapters):
        return None
    if any(member.group.starts is None for member in pack.members):
        raise ValueError("The groups of this pack do not tell where texts begin: make them with starts=True.")
    text, index = pack.layout.text, pack.layout.index
    if texts_only:
        text, index = text[text >= 0], index[pack.layout.text >= 0]
    begin = {
        row: len(member.group.prefix) + start
        for member in pack.members
        for row, start in zip(member.rows, member.group.starts or (), strict=True)
    }
    begins = torch.tensor([begin[row] for row in pack.rows], device=text.device)
    is_own = (text >= 0) & (index >= begins[text])
    names = list(dict.fromkeys(name for name in adapters if name))
    numbers = {name: number for number, name in enumerate(names)}
    of_row = torch.tensor([numbers[name] if name else -1 for name in adapters], device=text.device)
    of_token = of_row[text].masked_fill(~is_own, -1)
    places = {name: (of_token == number).nonzero()[:, 0] for name, number in numbers.items()}
    return Routes(len(text), {name: None if len(result) == len(text) else result for name, result in places.items()})


def _numbers(pack: Pack) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(member.number for member in bucket) for bucket in pack.buckets)


def _run(
    backbone: PreTrainedModel,
    family: Family,
    pack: Pack,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    routes: Routes | None,
    prefixes: PackPrefixes | None,
    dense: bool = False,
    more: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """Final states `(1, N, H)` of the tokens of a pack, or of those of its texts."""
    limit, lengths = rope_limit_of(backbone.config), pack.row_lengths
    if limit is not None and min(lengths) <= limit < max(lengths):
        raise ValueError(
            f"The pack has rows on both sides of {limit} tokens, where the RoPE factors change; make packs with the "
            "model's own `pack`."
        )
    use_tree(backbone)
    fork_states(backbone)
    known = prefixes is not None and prefixes.known
    both_ways = {} if known else seen_both_ways(backbone.config, family, pack)
    with acting(routes):
        outputs = backbone(
            input_ids=input_ids,
            # Keeps the backbone from making a mask, and fits no other attention: a layer that missed the layout would
            # fail.
            attention_mask=torch.empty(1, 1, 0, 0, dtype=torch.bool, device=input_ids.device),
            position_ids=positions,
            tree=replace(pack.layout, dense=dense, prefixes=prefixes, **both_ways),
            use_cache=False,
            return_dict=True,
            **(more or {}),
        )
    hidden = getattr(outputs, "last_hidden_state", None)
    return outputs.logits if hidden is None else hidden  # of a backbone that is a whole model without its head


def seen_both_ways(config: PreTrainedConfig, family: Family, pack: Pack) -> dict[str, Any]:
    """What a pack's layout says of images whose tokens see each other in both directions; empty where none do."""
    layers, token = image_layers(config, family), getattr(config, "image_token_id", None)
    if not layers or token is None:
        return {}
    is_image = pack.input_ids[0].eq(token)
    follows = torch.zeros_like(is_image)
    follows[1:] = is_image[1:] & is_image[:-1] & (pack.layout.group[1:] == pack.layout.group[:-1])
    numbers = (is_image & ~follows).cumsum(dim=0) - 1
    return {"images": torch.where(is_image, numbers, -1), "image_layers": layers}


def image_layers(config: PreTrainedConfig, family: Family) -> str:
    """In which layers the tokens of an image see each other in both directions, as in `Family.image_layers`."""
    if getattr(config.get_text_config(), "use_bidirectional_attention", "") is None:
        return ""
    return family.image_layers
