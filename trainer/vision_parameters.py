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
    """Stops training whatever turns pixels into features.

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


def vision_parameters(model: XVLM2VecModel) -> list[nn.Parameter]:
    """The weights of whatever turns pixels into features."""
    return [parameter for _, parameter in _named_vision_parameters(model)]


def _named_vision_parameters(model: XVLM2VecModel) -> list[tuple[str, nn.Parameter]]:
    named = model.backbone.named_parameters()
    return [(name, parameter) for name, parameter in named if any(part in name.split(".") for part in VISION_PARTS)]


def vision_modules(model: XVLM2VecModel) -> tuple[nn.Module, ...]:
    """The outermost modules that turn pixels into features."""
    named = [(name.split("."), module) for name, module in model.backbone.named_modules()]
    return tuple(m for path, m in named if path[-1] in VISION_PARTS and not set(path[:-1]) & set(VISION_PARTS))
