"""Backbones by their configuration, and from their checkpoints: those of transformers, and ours."""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING

from .configuration_phi3_v import Phi3VConfig
from .families import refuse_family
from .hub_files import hub_kwargs
from .loading import CheckpointError, check_loading, needs_extra, readable_files
from .modeling_phi3_v import Phi3VModel

AutoModel.register(Phi3VConfig, Phi3VModel, exist_ok=True)
OWN_BACKBONES: dict[str, type[PreTrainedModel]] = {Phi3VConfig.model_type: Phi3VModel}

# A backbone stored with its language-model head: the head is never run, so its weight is left behind on purpose.
HEAD_KEYS = ("lm_head.weight", "lm_head.bias")


def new_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    """A backbone without its weights.

    Ours are found by name: as remote code, configuration and model may come from two copies of these files, and the
    registers of transformers compare classes.
    """
    model_class = OWN_BACKBONES.get(config.model_type)
    if model_class is not None:
        return model_class._from_config(config)
    return without_head(_auto_class(config).from_config(config))


def load_backbone(source: str | os.PathLike[str], options: dict[str, Any]) -> PreTrainedModel:
    """The base model of a checkpoint, with every weight accounted for.

    Args:
        source: Folder or Hub id.
        options: What `AutoModel.from_pretrained` takes.

    Raises:
        CheckpointError: A weight is missing or unexpected, or no embedder can be made of the model.
    """
    with readable_files(source):
        config = options.get("config") or AutoConfig.from_pretrained(
            source, trust_remote_code=options.get("trust_remote_code"), **hub_kwargs(options)
        )
        refuse_family(config.model_type, source)
        options = options | {"output_loading_info": True, "ignore_mismatched_sizes": True}  # check_loading names all
        try:
            model, info = _auto_class(config).from_pretrained(source, **options)
        except ImportError as error:
            raise CheckpointError(f"{os.fspath(source)!r} does not load here. {needs_extra(error)}") from error
        if info["missing_keys"] and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            # Some bases do not know the names under which the whole model was saved, as LightOn OCR's.
            loaded: Any = AutoModelForImageTextToText.from_pretrained(source, **options)
            whole, whole_info = loaded
            base = getattr(whole, "model", None)
            if not whole_info["missing_keys"] and isinstance(base, type(model)):
                model, info = base, whole_info
    check_loading(info, source, ignorable=HEAD_KEYS)
    return without_head(model)


def without_head(model: PreTrainedModel) -> PreTrainedModel:
    """The model with nothing in the place of a language-model head, where transformers has no base model without one.

    What it calls logits are then the last hidden states.
    """
    for module in model.modules():
        if isinstance(getattr(module, "lm_head", None), nn.Linear):
            module.lm_head = nn.Identity()
    return model


def _auto_class(config: PreTrainedConfig) -> Any:
    """`AutoModel`, or the whole model's class where transformers has no base model."""
    whole_only = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and type(config) not in MODEL_MAPPING
    return AutoModelForImageTextToText if whole_only else AutoModel
