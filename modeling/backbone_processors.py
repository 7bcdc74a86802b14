"""Finds and loads the processor that belongs to a backbone."""

from __future__ import annotations

import os
from typing import Any

import transformers
from transformers import AutoConfig, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available

from .families import backbone_type, family_of, refuse_family
from .hub_files import hub_kwargs, read_json
from .loading import CheckpointError, missing_packages, needs_extra
from .processing_phi3_v import Phi3VProcessor
from .processor_checks import refuse_adapter_folder
from .text_processor import TextProcessor

PROCESSOR_FILE = "processor_config.json"
# What they raise where a part cannot be made; a folder that is not there is no such case.
_NOT_LOADED = (ImportError, AttributeError, TypeError, ValueError)
OWN_PROCESSORS: dict[str, type[ProcessorMixin]] = {"Phi3VProcessor": Phi3VProcessor, "TextProcessor": TextProcessor}


def load_inner(name: str, source: str | os.PathLike[str], options: dict[str, Any]) -> ProcessorMixin:
    """Loads a processor of ours or of transformers by its class name: the whole one where its needs are installed.

    Elsewhere it goes without its video part, as no video is ever embedded.

    Raises:
        CheckpointError: It loads in neither way; names the extra to install.
    """
    if name in OWN_PROCESSORS:
        return OWN_PROCESSORS[name].from_pretrained(source, **options)
    makers = (_whole, images_only) if is_torchvision_available() else (images_only, _whole)
    errors = []
    for make in makers:
        try:
            return make(getattr(transformers, name)).from_pretrained(source, **options)
        except _NOT_LOADED as error:
            errors.append(error)
    if not missing_packages():
        raise errors[0]
    raise CheckpointError(f"{name} does not load here. {needs_extra(errors[0])}") from errors[0]


def _whole(processor_class: type[ProcessorMixin]) -> type[ProcessorMixin]:
    return processor_class


def load_plain(
    source: str | os.PathLike[str], layout: str | None, options: dict[str, Any]
) -> tuple[ProcessorMixin, str, int | None]:
    """The processor of a plain checkpoint.

    Args:
        source: Folder or Hub id.
        layout: Another entry of `families` than that of the backbone.
        options: What the processor and its tokenizer take, and those of the Hub.

    Returns:
        The processor, what names the entry in `families`, and the backbone's context in tokens.

    Raises:
        ValueError: This is an adapter only.
        CheckpointError: transformers knows no processor for the backbone, or it is no embedder.
    """
    hub = hub_kwargs(options)
    refuse_adapter_folder(source, hub)
    config = AutoConfig.from_pretrained(source, trust_remote_code=options.get("trust_remote_code"), **hub)
    model_type = layout or backbone_type(config)
    refuse_family(model_type, source)
    stored = read_json(source, PROCESSOR_FILE, hub).get("processor_class")
    inner = load_inner(family_of(model_type).processor or stored or processor_class_name(config), source, options)
    complete_settings(inner, config)
    if not options.keys() & {"size", "max_pixels"}:
        limit_pixels(inner, family_of(model_type).max_pixels)
    return inner, model_type, getattr(config.get_text_config(), "max_position_embeddings", None)


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
    """Name of the processor class that transformers has for a backbone, or a `CheckpointError` if it has none."""
    name = PROCESSOR_MAPPING_NAMES.get(config.model_type)
    if name is None:
        raise CheckpointError(f"transformers knows no processor for a {config.model_type!r} model.")
    return name


def images_only(processor_class: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The same processor without its video part, which would need torchvision although no video is ever embedded."""
    names = [name for name in processor_class.get_attributes() if "video" not in name]
    if names == processor_class.get_attributes():
        return processor_class
    body = {"get_attributes": classmethod(lambda cls: names), "__module__": processor_class.__module__}
    return type(processor_class.__name__, (processor_class,), body)
