"""What a backbone gets beside the tokens: checks that nothing is missing that would silently change vectors."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .families import Family
from .family_entry import TYPES
from .image_inputs import parameters_of

IMAGE_PREFIXES = ("pixel_", "image_", "batch_num_images", "flattened_patches", "high_res_pixel", "aspect_ratio_")
"""What begins like this is made of images also where a backbone has no `get_image_features` that says so."""


def backbone_inputs(
    family: Family,
    backbone: PreTrainedModel,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor,
    given: dict[str, Any],
) -> dict[str, Any]:
    """Completes and checks the inputs of one forward pass; the caller's inputs (`given`) stay as they are.

    Tensors that the backbone's `forward` does not name are left out, and positions are counted over attended tokens
    for backbones that count tokens.

    Args:
        family: The backbone's family.
        backbone: The backbone.
        input_ids: `(B, L)` int64, or `None` if embeddings are passed.
        attention_mask: `(B, L)`.
        given: All other inputs by name.

    Raises:
        ValueError: An input is missing without which the backbone would silently compute other vectors, images came
            that no token stands for, or images are marked in another way than in training.
    """
    config, names = backbone.config, parameters_of(backbone.forward)
    inputs = {
        name: value
        for name, value in given.items()
        if value is not None and (name in names or not isinstance(value, torch.Tensor))
    }
    holds_images = _holds_images(config, input_ids)
    if holds_images is False:
        inputs = _without_images(inputs, family)
    if holds_images and not _has_images(inputs):
        raise ValueError(
            "The tokens hold images, but there are no `pixel_values`. Was the batch cut into parts? Rows of "
            "sentence-transformers without an image must have no `image` key rather than None there."
        )
    if holds_images and input_ids is not None:
        _check_marks(family, config, input_ids)
    needed = family.required
    if _has_images(inputs):
        needed = (*needed, *family.required_with_images, *({TYPES} & names))
    missing = [name for name in dict.fromkeys(needed) if name not in inputs]
    if missing:
        raise ValueError(
            f"A {config.model_type} backbone needs {', '.join(f'`{name}`' for name in missing)}; without, its vectors "
            "would be other ones. Pass everything that XVLM2VecProcessor returns."
        )
    if family.first_position is not None and "position_ids" not in inputs:
        positions = attention_mask.ne(0).long().cumsum(dim=1) - 1
        inputs["position_ids"] = positions.clamp(min=0) + family.first_position
    return {name: in_dtype(family, backbone.dtype, name, value) for name, value in inputs.items()}


def _without_images(inputs: dict[str, Any], family: Family) -> dict[str, Any]:
    """Inputs of a batch whose tokens hold no image.

    Parts of a mixed batch may carry empty image inputs, or the zeros of rows without images.

    Raises:
        ValueError: There are images.
    """
    images = {name: value for name, value in inputs.items() if is_image_input(name)}
    lost = [
        name
        for name, value in images.items()
        if isinstance(value, torch.Tensor) and value.numel() and not (name in family.row_inputs and not value.any())
    ]
    if lost:
        raise ValueError(
            f"`{lost[0]}` holds images, but no token stands for one, so they would be lost. Does the processor belong "
            "to this model, and is its `image_token_id` right? Use `model.processor`."
        )
    return {name: value for name, value in inputs.items() if name not in images}


def is_image_input(name: str) -> bool:
    """Whether an input of a backbone is made of images."""
    return name.startswith(IMAGE_PREFIXES) and not name.endswith("position_mask")


def in_dtype(family: Family, dtype: torch.dtype, name: str, value: Any) -> Any:
    """Images in half precision, as Llama 4's processor makes them, or for towers that cast none, in the given dtype."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    half = value.dtype in (torch.float16, torch.bfloat16)
    return value.to(dtype) if half or (family.images_in_dtype and name.startswith("pixel_")) else value


def _holds_images(config: PreTrainedConfig, input_ids: torch.Tensor | None) -> bool | None:
    """Whether the tokens hold an image's placeholder; `None` where nobody can tell, as in a compiled graph."""
    token = getattr(config, "image_token_id", None)
    if input_ids is None or token is None or torch.compiler.is_compiling():
        return None
    return bool((input_ids == token).any())


def _check_marks(family: Family, config: PreTrainedConfig, input_ids: torch.Tensor) -> None:
    """Raises if images stand between marks that this model was trained without, or the other way round."""
    start = getattr(config, "vision_start_token_id", None)
    if family.marked is None or start is None:
        return
    image = input_ids.eq(config.image_token_id)
    first = image.clone()
    first[:, 1:] &= ~image[:, :-1]
    marked = torch.zeros_like(image)
    marked[:, 1:] = input_ids[:, :-1] == start
    if bool((first & (marked != family.marked)).any()):
        wanted = "with `vision_start_token_id`" if family.marked else "without `vision_start_token_id`"
        raise ValueError(
            f"This model was trained on prompts {wanted} before an image, and these are written the other way: its "
            "vectors would be wrong. Use `model.processor`, with a published VLM2Vec checkpoint as loaded by "
            "XVLM2VecModel.from_vlm2vec."
        )


def _has_images(inputs: dict[str, Any]) -> bool:
    if "pixel_values" in inputs:
        return len(inputs["pixel_values"]) > 0
    return any(is_image_input(name) or name == "mm_encoder_outputs" for name in inputs)
