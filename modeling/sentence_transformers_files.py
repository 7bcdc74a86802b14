"""The files with which sentence-transformers loads an `XVLM2VecModel` through its own stock module."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .pooling import warn_of_untrained_dim

if TYPE_CHECKING:
    from .configuration_xvlm2vec import XVLM2VecConfig

_FORWARD = {"method": "forward", "method_output_name": "embeddings"}
SETTINGS_FILE = "config_sentence_transformers.json"


def write_sentence_transformers_files(
    folder: str | os.PathLike[str], config: XVLM2VecConfig, has_languages: bool = False
) -> None:
    """Writes `modules.json`, `sentence_bert_config.json` and `config_sentence_transformers.json`.

    One stock `Transformer` module reads our `embeddings`. The `message` entry routes every row, of any modality,
    through the processor's `apply_chat_template`: without it, mixed batches are refused and prompts on images are
    dropped in silence. Without `modules.json`, sentence-transformers would mean-pool in silence.

    Args:
        folder: Where they go.
        config: The model's.
        has_languages: Whether adapters for languages lie beside the model: `encode` of sentence-transformers then takes
            `language=` and hands it to the model, whose batches say where texts begin.
    """
    module: dict[str, Any] = {
        "idx": 0,
        "name": "0",
        "path": "",
        "type": "sentence_transformers.base.modules.transformer.Transformer",
    }
    # There is no chat template whose end truncation could cut off.
    template: dict[str, Any] = {"restore_suffix": False}
    if has_languages:
        module["kwargs"] = ["language"]
        template["prompts"] = config.prompts
    files: dict[str, Any] = {
        "modules.json": [module],
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {
                "text": _FORWARD,
                "image": _FORWARD,
                "image+text": _FORWARD,
                "message": {**_FORWARD, "format": "structured"},
            },
            "module_output_name": "sentence_embedding",
            "unpad_inputs": False,
            "processing_kwargs": {"chat_template": template},
        },
        SETTINGS_FILE: _settings(Path(folder) / SETTINGS_FILE, config),
    }
    for name, content in files.items():
        path = Path(folder) / name
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _default_prompt(config: XVLM2VecConfig) -> str | None:
    """The name of the prompt of rows that name none, as the recipe has it."""
    instruction = (config.recipe or {}).get("default_instruction")
    return next((name for name, prompt in config.prompts.items() if instruction and prompt == instruction), None)


def _settings(path: Path, config: XVLM2VecConfig) -> dict[str, Any]:
    """The settings of sentence-transformers; those that it has just written itself are kept.

    `SentenceTransformer.save_pretrained` writes them, with its version, right before it saves this model.
    """
    defaults = {
        "model_type": "SentenceTransformer",
        "prompts": config.prompts,
        "default_prompt_name": _default_prompt(config),
        "similarity_fn_name": "cosine",
        **({"truncate_dim": config.adopted["truncate_dim"]} if config.adopted.get("truncate_dim") else {}),
    }
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "__version__" not in stored:
        return defaults
    warn_of_untrained_dim(stored.get("truncate_dim"), config)
    prompts = stored.get("prompts") or {}
    other = [name for name, prompt in config.prompts.items() if name in prompts and prompts[name] != prompt]
    if other:
        warnings.warn(
            f"Prompts {other} differ between config.json and {SETTINGS_FILE}; both files keep their own.", stacklevel=4
        )
    return {**stored, "prompts": {**config.prompts, **prompts}}
