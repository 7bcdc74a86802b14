"""Whether rows of a model may share a pack and a prefix: what its configuration tells, and a comparison of vectors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from .concurrency import evaluation_mode
from .families import backbone_type, family_of
from .model_parts import embedder_of, language_model
from .pack_forward import image_layers
from .packs import TokenGroup, pack_groups
from .recipe import Recipe
from .rope import rope_kinds, rope_limit_of
from .rows import TextImageRow
from .state_forks import unknown_layers
from .token_groups import token_groups
from .tree_attention import NAME

if TYPE_CHECKING:
    from .processing_xvlm2vec import XVLM2VecProcessor

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of a vector's values, relative to the largest one: rounding stays below, faults far above."""
SIZES = ((96, 288), (336, 168), (24, 24))
"""Widths and heights of images with which sharing is tried: a tall one, one of several tiles, a tiny one."""
WHY_UNKNOWN = {
    "indexed_attention": ", whose sparse attention chooses tokens by their places in a whole row",
    "chunked_attention": ", whose attention is cut into chunks of a whole row",
    "recurrent": ", where a state runs along the tokens and the layout of a pack is not passed on",
    "hybrid": ", whose attention is biased by the distance of tokens in a whole row",
}
LONG_INSTRUCTION = "Represent what is written here so that texts of the same meaning are found, whatever they are: "
"""What rows without images have in common where sharing is tried."""


@dataclass(frozen=True)
class SharingCheck:
    """Whether rows of a pack have the vectors that they have alone.

    Args:
        ok: Whether the vectors are the same.
        reason: Why rows may not share a pack.
        worst: Largest difference of a value, relative to the largest value; `nan` if nothing was computed.
    """

    ok: bool
    reason: str = ""
    worst: float = float("nan")


def packing_blocker(model: Any, training: bool = False) -> str:
    """Why rows of a model cannot share a pack, as far as its configuration tells; empty if they can.

    The model is an `XVLM2VecModel`, or a model around one. In `training`, dropout is a reason, too.
    """
    embedder = embedder_of(model)
    if embedder.is_black_box:
        return "its vectors come from its own code, which shows nothing that rows could share"
    backbone, family = embedder.backbone, family_of(backbone_type(embedder.config))
    text = backbone.config.get_text_config()
    written = _recipe_blocker(embedder.config)
    if written:
        return written
    if family.not_causal:
        return family.not_causal
    if not getattr(text, "is_causal", True):
        return "its configuration says that attention is not causal"
    kinds = unknown_layers(language_model(embedder), getattr(text, "layer_types", None) or ())
    if kinds:
        return f"packs do not know layers of the kind {kinds[0]!r}{WHY_UNKNOWN.get(kinds[0], '')}"
    if text._attn_implementation not in ("sdpa", NAME):
        return f"its attention is {text._attn_implementation!r}; load it with attn_implementation='sdpa'"
    if getattr(text, "legacy_rope_by_batch", False):
        return "legacy_rope_by_batch makes a row's vector depend on the length of its batch"
    if getattr(text, "use_bidirectional_attention", None) not in (None, False, "vision"):
        return "its configuration says that tokens attend in both directions"
    if any(kind["rope_type"] == "dynamic" for kind in rope_kinds(text)):
        return "its dynamic RoPE makes positions depend on the longest row so far"
    return find_dropout(model) if training else ""


def _recipe_blocker(config: Any) -> str:
    """Why rows cannot share a pack as this embedder writes and pools them; empty if they can."""
    if config.two_towers:
        return "texts and images have a tower each"
    if "image_span" in config.pooling:
        return "its vectors are means over an image's tokens, which packs do not keep apart"
    if config.recipe is not None and not Recipe.from_dict(config.recipe).shares_images:
        return "its prompts write the text before the image, so that nothing of an image is common to several texts"
    return ""


def find_dropout(model: nn.Module) -> str:
    """Says where a language model has dropout, an adapter's included; empty if nowhere."""
    for name, module in model.named_modules():
        rate = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)
        if isinstance(rate, float) and rate > 0:
            return (
                f"dropout of {rate} in {name or type(module).__name__}: texts would share their prefix's; set it to 0"
            )
    return ""


@torch.no_grad()
def check_sharing(
    model: Any, processor: XVLM2VecProcessor, rows: Sequence[TextImageRow], training: bool = False
) -> SharingCheck:
    """Compares rows in a pack with the same rows alone, as `model` pools them.

    The rows share the pack with other groups: the same texts on a tall image, one of many tiles and a tiny one, as far
    as the processor takes such. In half precision rounding may hide what one text sees of another, or an image of what
    comes behind it. Both are therefore looked for once more, by changing what must not be seen: then not a bit may
    change.

    Args:
        model: An `XVLM2VecModel`, or a model around one.
        processor: The model's processor.
        rows: Rows with the same images (or none) and different texts.
        training: Whether dropout counts, which a comparison in evaluation mode would not see.

    Returns:
        The outcome. Whatever goes wrong in the comparison is a reason not to share.
    """
    try:
        reason = packing_blocker(model, training)
        if reason:
            return SharingCheck(False, reason)
        with evaluation_mode(model):
            return _compare(model, processor, rows)
    except Exception as error:  # packs are not known to every backbone, which may then fail in any way
        message = (str(error).splitlines() or [""])[0].rstrip(".")
        return SharingCheck(False, f"{type(error).__name__}: {message}")


def _compare(model: Any, processor: XVLM2VecProcessor, rows: Sequence[TextImageRow]) -> SharingCheck:
    embedder = embedder_of(model)
    prepared = list(_groups_to_compare(model, processor, rows))
    if len(prepared) == 1:
        return SharingCheck(False, "it takes none of the images with which sharing is tried")
    groups = [group for group, _ in prepared]
    expected = torch.cat([vectors for _, vectors in prepared])
    packed = packed_vectors(model, groups)
    worst = relative_difference(packed, expected)
    if not worst <= TOLERANCE[expected.dtype]:
        return SharingCheck(False, f"vectors differ by {worst:.1e} from those of the same rows alone", worst)
    changed = packed_vectors(model, [_with_other_texts(group) for group in groups])
    counts = [len(group.texts) for group in groups]
    first = [sum(counts[:place]) for place in range(len(counts))]
    if has_changed(embedder, packed[first], changed[first]):
        return SharingCheck(False, "a text's vector changes with the other texts of its pack", worst)
    if _looks_ahead(model, embedder, processor.prepare(rows[:1])[0].to(embedder.device)):
        return SharingCheck(False, "tokens see those that follow them", worst)
    return SharingCheck(True, worst=worst)


def _groups_to_compare(
    model: Any, processor: XVLM2VecProcessor, rows: Sequence[TextImageRow]
) -> Iterator[tuple[TokenGroup, torch.Tensor]]:
    """Groups for one pack, and the vectors `(R, H)` of their rows alone; without images that are refused alone."""
    yield token_groups(processor, [rows])[0][0], _vectors_alone(model, processor, rows)
    if not rows[0].images:
        longer = [replace(row, instruction=LONG_INSTRUCTION) for row in rows]
        yield token_groups(processor, [longer])[0][0], _vectors_alone(model, processor, longer)
        return
    for size in SIZES:
        image = noise(*size)
        others = [replace(row, images=(image,)) for row in rows[:2]]
        try:
            vectors = _vectors_alone(model, processor, others)
        except Exception:  # the processor, or the backbone, takes no such image in any row
            logger.debug("%s takes no image of %d x %d.", type(embedder_of(model).backbone).__name__, *size)
            continue
        yield token_groups(processor, [others])[0][0], vectors


def _vectors_alone(model: Any, processor: XVLM2VecProcessor, rows: Sequence[TextImageRow]) -> torch.Tensor:
    device = embedder_of(model).device
    return torch.cat([model(**processor.prepare([row])[0].to(device)).pooler_output for row in rows])


def noise(width: int, height: int) -> Image.Image:
    """An image of random colours, always the same."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _with_other_texts(group: TokenGroup) -> TokenGroup:
    """The group, the tokens of all texts but the first one replaced by another one."""
    first, *others = group.texts
    return replace(group, texts=[first, *([first[0]] * len(text) for text in others)])


def _looks_ahead(model: Any, embedder: Any, inputs: Any) -> bool:
    """Whether tokens of a row before its text, or before the last one of an image, see those that follow them."""
    place = last_image_position(embedder.backbone, inputs["input_ids"][0])
    if image_layers(embedder.backbone.config, family_of(backbone_type(embedder.config))):
        place += 1
    before = model(**inputs).last_hidden_state[:, :place]
    with negated_from(embedder, place):
        after = model(**inputs).last_hidden_state[:, :place]
    return has_changed(embedder, before, after)


def packed_vectors(model: Any, groups: Sequence[TokenGroup]) -> torch.Tensor:
    """Vectors `(R, H)` of the texts of groups, all in one pack as far as positions allow."""
    embedder = embedder_of(model)
    packs = pack_groups(groups, sum(map(len, groups)), rope_limit_of(embedder.backbone.config))
    vectors = torch.cat([model(pack=pack.to(embedder.device)).pooler_output for pack in packs])
    order = torch.tensor([row for pack in packs for row in pack.rows], device=vectors.device)
    return vectors[order.argsort()]


def relative_difference(values: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference of a value, relative to the largest value."""
    return ((values - expected).abs().max() / expected.abs().max()).item()


def has_changed(embedder: Any, before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether states have changed.

    Experts of a mixture multiply as many tokens as are sent to them, and round in other ways with other tokens: only
    there differences within the tolerance count as rounding.
    """
    settings = embedder.backbone.config.get_text_config().to_dict().items()
    if any("expert" in name and isinstance(value, int) and value > 1 for name, value in settings):
        return relative_difference(after, before) > TOLERANCE[before.dtype]
    return not torch.equal(before, after)


def last_image_position(backbone: Any, input_ids: torch.Tensor) -> int:
    """Position of the last image token of a row `(L,)`, or of its last token, but never the first position."""
    token = getattr(backbone.config, "image_token_id", None)
    is_image = input_ids < 0
    if token is not None:
        is_image = is_image | (input_ids == token)
    places = is_image.nonzero()[:, 0].tolist() or [len(input_ids) - 1]
    return max(places[-1], 1)


@contextmanager
def negated_from(embedder: Any, start: int) -> Iterator[None]:
    """Negates all states from a position on, where they enter the layers of the language model."""

    def negate(module: Any, args: Any, options: Any) -> Any:
        states = args[0] if args else options["hidden_states"]
        negated = torch.cat([states[:, :start], -states[:, start:]], dim=1)
        return ((negated, *args[1:]), options) if args else (args, {**options, "hidden_states": negated})

    handle = language_model(embedder).layers[0].register_forward_pre_hook(negate, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
