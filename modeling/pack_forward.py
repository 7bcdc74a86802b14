"""The forward pass of a pack through a vision-language backbone, and whether a backbone can take one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .concurrency import evaluation_mode
from .families import Family, backbone_type, family_of
from .packs import Pack, TokenGroup, pack_groups, rope_kinds, rope_limit_of
from .rows import TextImageRow
from .token_groups import token_groups
from .tree_attention import NAME, use_tree

if TYPE_CHECKING:
    from .processing_xvlm2vec import XVLM2VecProcessor

IMAGE_KEYS = ("pixel_values", "pixel_attention_mask", "image_sizes", "image_grid_thw", "batch_num_images")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of a vector's values, relative to the largest one: rounding stays below, faults far above."""


@dataclass(frozen=True)
class ImageStates:
    """What a vision tower made of the images of one group.

    Args:
        states: `(T, H)`, one for each image token; image by image where the backbone gives a list.
        deepstack: The same for each layer of the language model that gets images, too.
        listed: Whether the backbone gives a list.
    """

    states: tuple[torch.Tensor, ...]
    deepstack: tuple[tuple[torch.Tensor, ...], ...] = ()
    listed: bool = True


def image_states(backbone: Any, pack: Pack) -> list[ImageStates]:
    """Runs the vision tower once over the images of a pack.

    Args:
        backbone: A vision-language model of transformers with `get_image_features`.
        pack: The pack.

    Returns:
        One entry for each group that has images, in the order of the pack.

    Raises:
        ValueError: The number of states is not the number of image tokens.
    """
    images = {name: value.to(backbone.device) for name, value in pack.images().items() if name in IMAGE_KEYS}
    if not images:
        return []
    found = backbone.get_image_features(**images, return_dict=True)
    groups = [member.group for member in pack.members if member.group.images]
    counts = [image_tokens(backbone, group) for group in groups]
    states = deal_states(found.pooler_output, counts)
    layers = [deal_states(layer, counts) for layer in getattr(found, "deepstack_features", None) or ()]
    listed = isinstance(found.pooler_output, list | tuple)
    return [ImageStates(own, tuple(layer[place] for layer in layers), listed) for place, own in enumerate(states)]


def deal_states(states: Any, counts: Sequence[int]) -> list[tuple[torch.Tensor, ...]]:
    """Deals the states of all images out to their groups.

    Args:
        states: A list of `(T_i, H)` tensors, or one tensor `(..., H)`.
        counts: Image tokens of each group.

    Raises:
        ValueError: They do not add up.
    """
    parts = list(states) if isinstance(states, list | tuple) else [states.flatten(0, -2)]
    if len(parts) == 1 and len(parts[0]) == sum(counts):
        parts = list(parts[0].split(list(counts)))
    dealt: list[tuple[torch.Tensor, ...]] = []
    for count in counts:
        own: list[torch.Tensor] = []
        while parts and sum(map(len, own)) < count:
            own.append(parts.pop(0))
        dealt.append(tuple(own))
    if parts or [sum(map(len, own)) for own in dealt] != list(counts):
        raise ValueError(f"The image features do not fit {list(counts)} image tokens: the rows would be wrong.")
    return dealt


def encoder_outputs(states: Sequence[ImageStates]) -> dict[str, Any] | None:
    """What the backbone takes as `mm_encoder_outputs`; `None` without images."""
    if not states:
        return None
    own = [part for group in states for part in group.states]
    layers = zip(*(group.deepstack for group in states), strict=True)
    deep = [[part for parts in layer for part in parts] for layer in layers]
    features = own if states[0].listed else torch.cat(own)
    return {"image": SimpleNamespace(pooler_output=features, deepstack_features=deep)}


def image_tokens(backbone: Any, group: TokenGroup) -> int:
    """Number of image tokens in a group's prefix; backbones without a token of their own count below 0."""
    token = getattr(backbone.config, "image_token_id", None)
    return sum(value < 0 or value == token for value in group.prefix)


def run_pack(
    backbone: PreTrainedModel, family: Family, pack: Pack, images: Sequence[ImageStates] | None, dense: bool
) -> torch.Tensor:
    """Hidden states of a pack.

    Args:
        backbone: The vision-language model.
        family: Its family.
        pack: The pack, on the backbone's device.
        images: Its images, if they were computed before.
        dense: Mask one attention over all tokens instead: far slower, for checks.

    Returns:
        `(1, N, H)`.

    Raises:
        ValueError: The pack mixes rows that the backbone turns in different ways, or the attention is another one.
    """
    limit, lengths = rope_limit_of(backbone.config), pack.row_lengths
    if limit is not None and min(lengths) <= limit < max(lengths):
        raise ValueError(
            f"The pack has rows on both sides of {limit} tokens, where the RoPE factors change; make packs with the "
            "model's own `pack`."
        )
    use_tree(backbone)
    states = image_states(backbone, pack) if images is None else images
    shown = encoder_outputs(states)
    return backbone(
        input_ids=pack.input_ids,
        # Keeps the backbone from making a mask, and fits no other attention: a layer that missed the layout would fail.
        attention_mask=torch.empty(1, 1, 0, 0, dtype=torch.bool, device=pack.input_ids.device),
        position_ids=pack.positions(backbone, family.first_position),
        tree=replace(pack.layout, dense=dense),
        use_cache=False,
        return_dict=True,
        **({"mm_encoder_outputs": shown} if shown else {}),
    ).last_hidden_state


@dataclass(frozen=True)
class SharingCheck:
    """Whether rows of a pack have the vectors that they have alone.

    Args:
        ok: Whether they have.
        reason: Why not.
        worst: Largest difference of a value, relative to the largest value; `nan` if nothing was computed.
    """

    ok: bool
    reason: str = ""
    worst: float = float("nan")


def obstacle(model: Any, training: bool = False) -> str:
    """Why rows of this model cannot share a prefix or a pack, as far as its configuration tells; empty if they can.

    Args:
        model: An `XVLM2VecModel`, or a model around one.
        training: Whether dropout counts.
    """
    embedder = embedder_of(model)
    backbone, family = embedder.backbone, family_of(backbone_type(embedder.config))
    text = backbone.config.get_text_config()
    if family.not_causal:
        return family.not_causal
    if not getattr(text, "is_causal", True):
        return "its configuration says that attention is not causal"
    if text._attn_implementation not in ("sdpa", NAME):
        return f"its attention is {text._attn_implementation!r}; load it with attn_implementation='sdpa'"
    if getattr(text, "legacy_rope_by_batch", False):
        return "legacy_rope_by_batch makes a row's vector depend on the length of its batch"
    kinds = sorted(set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"})
    if kinds:
        return f"packs do not know layers of the kind {kinds[0]!r}"
    if getattr(text, "use_bidirectional_attention", None):
        return "its configuration says that tokens attend in both directions"
    if any(kind["rope_type"] == "dynamic" for kind in rope_kinds(text)):
        return "its dynamic RoPE turns positions by the longest row so far"
    return dropout_of(model) if training else ""


def dropout_of(model: nn.Module) -> str:
    """Says where a language model has dropout, an adapter's included; empty if nowhere."""
    for name, module in model.named_modules():
        rate = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)
        if isinstance(rate, float) and rate > 0:
            return (
                f"dropout of {rate} in {name or type(module).__name__}: texts would share their prefix's; set it to 0"
            )
    return ""


def embedder_of(model: Any) -> Any:
    """The `XVLM2VecModel` inside a model around it."""
    return next(module for module in model.modules() if hasattr(module, "backbone") and hasattr(module, "finish"))


def path_of_embeddings(embedder: Any) -> str:
    """Where the token embeddings lie in an `XVLM2VecModel`: beside the layers of the language model."""
    embeddings = embedder.get_input_embeddings()
    return next(name for name, module in embedder.named_modules() if module is embeddings)


@torch.no_grad()
def check_sharing(
    model: Any, processor: XVLM2VecProcessor, rows: Sequence[TextImageRow], training: bool = False
) -> SharingCheck:
    """Compares rows of one group in a pack with the same rows alone, as `model` pools them.

    In half precision rounding may hide what one text sees of another, or an image of what comes behind it. Both are
    therefore looked for once more, by changing what must not be seen: then not a bit may change.

    Args:
        model: An `XVLM2VecModel`, or a model around one.
        processor: Its processor.
        rows: Rows with the same images (or none) and different texts.
        training: Whether dropout counts, which a comparison in evaluation mode would not see.
    """
    reason = obstacle(model, training)
    if reason:
        return SharingCheck(False, reason)
    embedder = embedder_of(model)
    device = embedder.device
    with evaluation_mode(model):
        (group,), _ = token_groups(processor, [rows])
        packed = packed_vectors(model, group)
        alone = [processor.prepare([row])[0].to(device) for row in rows]
        expected = torch.cat([model(**inputs).pooler_output for inputs in alone])
        worst = apart(packed, expected)
        if worst > TOLERANCE[expected.dtype]:
            return SharingCheck(False, f"vectors differ by {worst:.1e} from those of the same rows alone", worst)
        changed = replace(group, texts=[group.texts[0], *([group.texts[0][0]] * len(text) for text in group.texts[1:])])
        if leaks(embedder, packed[:1], packed_vectors(model, changed)[:1]):
            return SharingCheck(False, "a text's vector changes with the other texts of its pack", worst)
        place = last_image_place(embedder.backbone, alone[0]["input_ids"][0])
        before = model(**alone[0]).last_hidden_state[:, :place]
        with turned_from(embedder, place):
            after = model(**alone[0]).last_hidden_state[:, :place]
        if leaks(embedder, before, after):
            return SharingCheck(False, "tokens see what comes behind them", worst)
    return SharingCheck(True, worst=worst)


def packed_vectors(model: Any, group: TokenGroup) -> torch.Tensor:
    """Vectors `(R, H)` of a group's texts from packs as large as it is."""
    embedder = embedder_of(model)
    packs = pack_groups([group], len(group), rope_limit_of(embedder.backbone.config))
    vectors = torch.cat([model(pack=pack.to(embedder.device)).pooler_output for pack in packs])
    order = torch.tensor([row for pack in packs for row in pack.rows], device=vectors.device)
    return vectors[order.argsort()]


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference of a value, relative to the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def leaks(embedder: Any, before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether states have changed.

    Experts of a mixture multiply as many tokens as are sent to them, and round in other ways with other tokens: only
    there differences within the tolerance count as rounding.
    """
    text = embedder.backbone.config.get_text_config()
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return apart(after, before) > TOLERANCE[before.dtype]
    return not torch.equal(before, after)


def last_image_place(backbone: Any, input_ids: torch.Tensor) -> int:
    """Place of the last image token of a row `(L,)`, or of its last token, but never the first place."""
    token = getattr(backbone.config, "image_token_id", None)
    shown = input_ids < 0
    if token is not None:
        shown = shown | (input_ids == token)
    places = shown.nonzero()[:, 0].tolist() or [len(input_ids) - 1]
    return max(places[-1], 1)


@contextmanager
def turned_from(embedder: Any, place: int) -> Iterator[None]:
    """Turns the signs of all states from a place on, where they enter the layers of the language model."""

    def turn(module: Any, args: Any, options: Any) -> Any:
        states = args[0] if args else options["hidden_states"]
        turned = torch.cat([states[:, :place], -states[:, place:]], dim=1)
        return ((turned, *args[1:]), options) if args else (args, {**options, "hidden_states": turned})

    language: Any = embedder.get_submodule(path_of_embeddings(embedder).rpartition(".")[0])
    handle = language.layers[0].register_forward_pre_hook(turn, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
