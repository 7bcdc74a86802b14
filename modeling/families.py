"""Families of backbones: which entry of the table a model takes."""

from __future__ import annotations

import os
from collections.abc import Mapping

from transformers import PreTrainedConfig

from .family_entry import Family
from .family_table import FAMILIES
from .loading import CheckpointError

__all__ = ["FAMILIES", "Family", "backbone_type", "check_image_settings", "check_layout", "family_of", "refuse_family"]


def family_of(model_type: str) -> Family:
    """The entry of a backbone's `model_type` or of a layout, or the generic one."""
    return FAMILIES.get(model_type, Family())


def refuse_family(model_type: str, source: str | os.PathLike[str]) -> None:
    """Raises a `CheckpointError` for a model that is no embedder, with the reason."""
    reason = family_of(model_type).refused
    if reason:
        raise CheckpointError(
            f"{os.fspath(source)!r} is a {model_type!r} model, and no embedder can be made of it: {reason}."
        )


def backbone_type(config: PreTrainedConfig) -> str:
    """What `family_of` takes: the layout of an `XVLM2VecConfig` if it has one, else its backbone's `model_type`."""
    if getattr(config, "layout", None) is not None:
        return check_layout(config.layout)
    return getattr(getattr(config, "vlm_config", None), "model_type", None) or config.model_type


def check_layout(layout: str) -> str:
    """The layout's name, or a `ValueError` if it is unknown: the generic layout would silently give other vectors."""
    if layout not in FAMILIES:
        raise ValueError(f"layout={layout!r} is unknown; choose one of {', '.join(FAMILIES)}.")
    return layout


IMAGE_SETTINGS = ("square", "num_crops")
"""Settings of a processor that change what a model sees of an image."""


def check_image_settings(settings: Mapping[str, int]) -> dict[str, int]:
    """The image settings as a `dict`, or a `ValueError` if one is unknown: images would look other than in training."""
    unknown = sorted(settings.keys() - set(IMAGE_SETTINGS))
    if unknown:
        raise ValueError(
            f"image_settings has {', '.join(map(repr, unknown))}, which this version does not know; it knows "
            f"{', '.join(IMAGE_SETTINGS)}. Was the model saved by a newer version?"
        )
    return dict(settings)
