"""Finds and loads the processor that belongs to a backbone."""

from __future__ import annotations

import os
from typing import Any

import transformers
from transformers import ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from .processing_phi3_v import Phi3VProcessor

PROCESSOR_FILE = "processor_config.json"
OWN_PROCESSORS: dict[str, type[ProcessorMixin]] = {"Phi3VProcessor": Phi3VProcessor}


def load_inner(name: str, source: str | os.PathLike[str], options: dict[str, Any]) -> ProcessorMixin:
    """Loads a processor of ours or of transformers by its class name, without its video part."""
    processor_class = OWN_PROCESSORS.get(name) or images_only(getattr(transformers, name))
    return processor_class.from_pretrained(source, **options)


def limit_pixels(inner: ProcessorMixin, budget: int | None) -> None:
    """Lowers the image processor's budget of pixels; checkpoints allow images of 16,000 tokens."""
    size = getattr(inner.image_processor, "size", None)
    limits = dict(size) if size else {}
    if budget is not None and (limits.get("longest_edge") or 0) > budget:
        inner.image_processor.size = limits | {"longest_edge": budget}


def complete_settings(inner: Any, config: Any) -> None:
    """Gives a LLaVA processor what older checkpoints left to the model: how many tokens an image becomes."""
    if getattr(inner, "patch_size", 0) is None and hasattr(inner, "num_additional_image_tokens"):
        inner.patch_size = config.vision_config.patch_size
        inner.vision_feature_select_strategy = config.vision_feature_select_strategy
        inner.num_additional_image_tokens = int(config.vision_config.model_type == "clip_vision_model")  # its CLS


def processor_class_name(config: Any) -> str:
    """Name of the processor class that transformers has for a backbone, or a `ValueError` if it has none."""
    name = PROCESSOR_MAPPING_NAMES.get(config.model_type)
    if name is None:
        raise ValueError(f"transformers knows no processor for a {config.model_type!r} model.")
    return name


def images_only(processor_class: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The same processor without its video part, which would need torchvision although no video is ever embedded."""
    names = [name for name in processor_class.get_attributes() if "video" not in name]
    if names == processor_class.get_attributes():
        return processor_class
    body = {"get_attributes": classmethod(lambda cls: names), "__module__": processor_class.__module__}
    return type(processor_class.__name__, (processor_class,), body)
