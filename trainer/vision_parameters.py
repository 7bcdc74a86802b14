"""The parts of a model that turn pixels into features."""

from __future__ import annotations

import logging

from torch import nn

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

logger = logging.getLogger(__name__)

# Their names, over all families of transformers.
VISION_PARTS = (
    "vision_model", "vision_tower", "visual", "connector", "multi_modal_projector", "mlp1", "image_newline",
    "vision_embed_tokens",
)  # fmt: skip
CONNECTORS = ("connector", "multi_modal_projector", "mlp1")
"""Those that turn the tower's features into what the language model reads."""
TEXT_PARTS = ("text_model", "text_projection")
"""What two towers have for texts only; all else gives images their vectors, or scales both."""


def freeze_vision(model: XVLM2VecModel) -> None:
    """Stops training whatever turns pixels into features: of two towers, all but the tower for texts.

    Raises:
        ValueError: An adapter that is to be trained lies on it.
    """
    named = _named_vision_parameters(model)
    adapter = next((name for name, parameter in named if ".lora_" in name and parameter.requires_grad), None)
    if adapter is not None:
        raise ValueError(
            f"freeze_vision=True would leave the vision tower's adapter untrained ({adapter}). Pass "
            "freeze_vision=False to train it, or add the adapter with train_vision=False."
        )
    for _, parameter in named:
        parameter.requires_grad_(False)


def set_up_vision(model: XVLM2VecModel, freeze: bool) -> bool:
    """Freezes what turns pixels into features, if it is to be; whether all of it is frozen then.

    Raises:
        ValueError: The image tower of two is to be trained, or an adapter lies on what is to be frozen.
    """
    if model.config.two_towers and not freeze:
        raise ValueError(
            "freeze_vision=False: of two towers only the one for texts is taught, so that images keep their vectors; "
            "leave freeze_vision out."
        )
    if freeze:
        freeze_vision(model)
    frozen = not any(weight.requires_grad for weight in vision_parameters(model))
    if frozen and not freeze:
        logger.warning(
            "freeze_vision=False changes nothing: no weight of the vision tower, or of an adapter there, "
            "is trained. An adapter gets there by AdapterConfig(train_vision=True)."
        )
    return frozen


def vision_parameters(model: XVLM2VecModel) -> list[nn.Parameter]:
    """The weights of whatever turns pixels into features; of two towers, all but those of the tower for texts."""
    return [parameter for _, parameter in _named_vision_parameters(model)]


def _named_vision_parameters(model: XVLM2VecModel) -> list[tuple[str, nn.Parameter]]:
    if model.config.two_towers:
        prefixes = tuple(f"backbone.{part}." for part in TEXT_PARTS)
        return [(name, weight) for name, weight in model.named_parameters() if not name.startswith(prefixes)]
    named = model.backbone.named_parameters()
    return [(name, parameter) for name, parameter in named if any(part in name.split(".") for part in VISION_PARTS)]


def vision_modules(model: XVLM2VecModel) -> tuple[nn.Module, ...]:
    """The outermost modules that turn pixels into features."""
    if model.config.two_towers:
        towers = [module for name, module in model.backbone.named_children() if name not in TEXT_PARTS]
        return (*towers, *model.heads)
    named = [(name.split("."), module) for name, module in model.backbone.named_modules()]
    return tuple(m for path, m in named if path[-1] in VISION_PARTS and not set(path[:-1]) & set(VISION_PARTS))
