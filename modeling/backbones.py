"""Backbones by their configuration: those of transformers, and ours."""

from __future__ import annotations

from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from .configuration_phi3_v import Phi3VConfig
from .modeling_phi3_v import Phi3VModel

AutoModel.register(Phi3VConfig, Phi3VModel, exist_ok=True)
OWN_BACKBONES: dict[str, type[PreTrainedModel]] = {Phi3VConfig.model_type: Phi3VModel}


def new_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    """A backbone without its weights.

    Ours are found by name: as remote code, configuration and model may come from two copies of these files, and the
    registers of transformers compare classes.
    """
    model_class = OWN_BACKBONES.get(config.model_type)
    return model_class._from_config(config) if model_class is not None else AutoModel.from_config(config)
