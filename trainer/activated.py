"""Training of adapters that act on texts in other languages only, see `modeling/activated.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from datasets import Dataset

from xvlm2vec.common.texts import with_text
from xvlm2vec.modeling.activated import LoraShape
from xvlm2vec.modeling.hub_ids import is_path
from xvlm2vec.modeling.language_adapters import DEFAULT, PEFT_TYPE, add_language_adapter
from xvlm2vec.modeling.model_parts import path_of_embeddings
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

from .adapters import AdapterConfig, linear_layers


def add_activated(model: XVLM2VecModel, config: AdapterConfig, name: str = DEFAULT) -> XVLM2VecModel:
    """Puts a fresh adapter beside every linear layer of the language model; the base is frozen, and stays as it is.

    Args:
        model: The embedder; the adapter is put on it in place.
        config: The adapter.
        name: Of the adapter; by default that of one for all languages.

    Raises:
        ValueError: It is to lie on the vision tower, and would move all images.
    """
    if config.train_vision:
        raise ValueError(
            "An activated adapter leaves images their vectors, so it cannot train the vision tower: leave "
            "--freeze-vision false out, or use --adapter lora."
        )
    alpha = config.alpha if config.alpha is not None else 2 * config.rank
    scale = alpha / (config.rank**0.5 if config.rslora else config.rank)
    targets = linear_layers(model)
    chosen = [path for path, _ in model.named_modules() if re.fullmatch(targets, path)]
    shapes = dict.fromkeys(chosen, LoraShape(config.rank, scale, config.dora))
    add_language_adapter(model, name, _settings(model, config, alpha, targets), shapes)
    return model


def languages_of_rows(rows: Dataset) -> list[str]:
    """The languages of a stored corpus, sorted."""
    return sorted({item["lang"] for items in rows["translations"] for item in with_text(items)})


def _settings(model: XVLM2VecModel, config: AdapterConfig, alpha: int, targets: str) -> dict[str, Any]:
    """The adapter's configuration as PEFT has it."""
    base = str(model.config.name_or_path or "")
    is_folder = bool(base) and is_path(base)
    revision = getattr(model.config, "_commit_hash", None)
    return {
        "peft_type": PEFT_TYPE,
        "task_type": "FEATURE_EXTRACTION",
        # A relative path would be looked up from another folder, or on the Hub.
        "base_model_name_or_path": str(Path(base).resolve()) if is_folder else base,
        "revision": None if is_folder else revision,
        "r": config.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "use_dora": config.dora,
        "use_rslora": config.rslora,
        "bias": "none",
        "target_modules": targets,
        "modules_to_save": [path_of_embeddings(model)] if config.train_embeddings else None,
        "inference_mode": True,
        "init_lora_weights": True,
    }
