"""The parts of a backbone that turn pixels into features."""

from __future__ import annotations

from torch import nn

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

# Their names, over all families of transformers.
VISION_PARTS = (
    "vision_model", "vision_tower", "visual", "connector", "multi_modal_projector", "mlp1", "image_newline",
    "vision_embed_tokens",
)  # fmt: skip


def freeze_vision(model: XVLM2VecModel) -> None:
    """Stops training whatever turns pixels into features."""
    for parameter in vision_parameters(model):
        parameter.requires_grad_(False)


def vision_parameters(model: XVLM2VecModel) -> list[nn.Parameter]:
    """The weights of whatever turns pixels into features."""
    named = model.backbone.named_parameters()
    return [parameter for name, parameter in named if any(part in name.split(".") for part in VISION_PARTS)]


def vision_modules(model: XVLM2VecModel) -> tuple[nn.Module, ...]:
    """The outermost modules that turn pixels into features."""
    named = [(name.split("."), module) for name, module in model.backbone.named_modules()]
    return tuple(m for path, m in named if path[-1] in VISION_PARTS and not set(path[:-1]) & set(VISION_PARTS))
