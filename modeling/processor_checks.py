"""Checks that a processor writes prompts, and shows images, as the model was trained."""

from __future__ import annotations

import os
import warnings
from typing import Any

from PIL import Image
from transformers import PreTrainedConfig

from .adapters import ADAPTER_CONFIG
from .backbone_inputs import is_image_input
from .families import backbone_type
from .hub_files import hub_kwargs, read_json
from .image_inputs import parameters_of
from .image_marks import media_tokens
from .loading import CheckpointError, needs_extra
from .rows import TextImageRow

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Files of which a checkpoint with a processor for images has one."""
_NO_LIMIT = 10**9


def check_processor(processor: Any, config: PreTrainedConfig) -> None:
    """Warns if a processor shows images in another way than the model was trained with.

    Raises:
        ValueError: The processor writes prompts in another way than in training.
    """
    model_type = backbone_type(config)
    if processor.model_type != model_type:
        raise ValueError(
            f"This processor writes prompts for {processor.model_type!r}, but this model takes {model_type!r}: the "
            "vectors would be wrong. Use `model.processor`, or pass `layout` to XVLM2VecProcessor.from_pretrained."
        )
    written = None if processor.own_recipe is None else processor.own_recipe.to_dict()
    if written != config.recipe:
        raise ValueError(
            "This processor writes rows by another recipe than that of the model: the vectors would be wrong. Use "
            "`model.processor`."
        )
    other = processor.other_images(config.image_settings)
    if other:
        warnings.warn(
            f"This processor has {other}, with which the model was trained: images get other vectors. Use "
            "`model.processor` unless that is meant.",
            stacklevel=3,
        )


def check_beside(processor: Any, source: str | os.PathLike[str], hub: dict[str, Any]) -> None:
    """Compares a saved processor with the embedding model in the same folder or repository.

    Raises:
        ValueError: The model was trained with other prompts than the processor writes.
    """
    model_type = processor.model_type
    trained = read_json(source, "config.json", hub).get("layout")
    if trained not in (None, model_type):
        raise ValueError(
            f"The processor in {os.fspath(source)!r} has layout={model_type!r} for {trained!r}, with which "
            "the model beside it was trained: vectors would be wrong. Save the model's own there: "
            "`model.processor.save_pretrained`, with the model as XVLM2VecModel.from_vlm2vec loaded it."
        )


def fixed_padding_side(processor: Any) -> str | None:
    """The only side on which a model may be padded; `None` where vectors depend on neither.

    Backbones whose positions are known to `families` take either; of the others, and of towers that pool the last
    place whatever stands there, the tokenizer's own is the one that they were trained with.
    """
    texts_only = processor.inner.image_processor is None and processor.family.first_position is None
    return processor.inner.tokenizer.padding_side if processor.recipe.two_towers or texts_only else None


def check_padding_side(processor: Any, side: str | None) -> None:
    """Raises a `ValueError` for padding on a side that would change vectors."""
    fixed = fixed_padding_side(processor)
    if fixed is not None and side not in (None, fixed):
        raise ValueError(
            f"padding_side={side!r}: this {processor.model_type!r} model is padded on the {fixed} side; on the other "
            "its vectors would be other ones."
        )


def refuse_adapter_folder(source: str | os.PathLike[str], hub: dict[str, Any]) -> None:
    """Raises a `ValueError` for an adapter without a model: only the model's files say which processor it needs."""
    if read_json(source, ADAPTER_CONFIG, hub) and not read_json(source, "config.json", hub):
        raise ValueError(
            f"{os.fspath(source)!r} is an adapter, and its processor depends on how it was trained: load the model "
            "with XVLM2VecModel.from_vlm2vec (a published VLM2Vec adapter) or XVLM2VecModel.from_pretrained and take "
            "`model.processor`."
        )


def prove_backbone(model: Any) -> None:
    """Proves on a small image that the processor in a backbone's folder is the backbone's own, if there is one.

    Raises:
        CheckpointError: It is not, it cannot be loaded, or how it shows an image is unknown.
    """
    source, hub = model.config.name_or_path, hub_kwargs(model._processor_options)
    if not any(read_json(source, name, hub) for name in PROCESSOR_FILES):
        return
    try:
        processor = model.load_processor()
        fault = _misfit(processor, model.backbone) if processor.inner.image_processor is not None else ""
    except ImportError as error:
        fault = needs_extra(error)
    if fault:
        raise CheckpointError(f"{source!r} has a processor that does not fit its model: {fault}")


def _misfit(processor: Any, backbone: Any) -> str:
    """Why a processor is not that of a backbone; empty if it seems to be."""
    if processor.recipe.image is None:
        return (
            f"how prompts of {processor.model_type!r} show an image is unknown: give the checkpoint a chat template "
            "that writes one, or the table of families an entry with its marks."
        )
    if processor.model_type != backbone.config.model_type:
        return ""  # a layout of its own
    own, written = media_tokens(processor.inner), processor.recipe.image
    if own and written and not any(token in written for token in own):
        return (
            f"{type(processor.inner).__name__} looks for {', '.join(own[:3])}, but prompts of {processor.model_type!r} "
            f"show an image as {written!r}."
        )
    image = Image.new("RGB", (224, 224), (127, 90, 60))
    try:
        batch, _ = processor.prepare([TextImageRow("a", (image,))], max_length=_NO_LIMIT)
    except ValueError as error:
        return str(error)
    known = parameters_of(backbone.forward)
    lost = [name for name in batch if name.startswith(("pixel_", "image_grid")) and name not in known]
    if lost:
        return f"{type(processor.inner).__name__} makes `{lost[0]}`, which the model does not take."
    token = getattr(backbone.config, "image_token_id", None)
    if not any(is_image_input(name) and name in known for name in batch):
        return f"{type(processor.inner).__name__} makes {', '.join(batch)}, and the model reads no image from these."
    if token is not None and not bool((batch["input_ids"] == token).any()):
        return f"{type(processor.inner).__name__} writes no token {token}, which the model takes for an image."
    return ""
