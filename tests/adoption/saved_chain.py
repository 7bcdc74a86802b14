"""What sentence-transformers 6.2 writes around a transformers folder: the chain of modules and its settings."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
import transformers
from sentence_transformers.base.modules import Module

# The tiny vision-language checkpoints, their tokenizers and processors.
SPEC = spec_from_file_location("tiny_checkpoints", Path(__file__).parents[1] / "modeling" / "conftest.py")
checkpoints = sys.modules[SPEC.name] = module_from_spec(SPEC)
SPEC.loader.exec_module(checkpoints)
enlarged = checkpoints.with_large_weights

FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
TEXT_ONLY = {"text": FORWARD}
FLAT_MESSAGES = {"text": FORWARD, "message": {**FORWARD, "format": "flat"}}
IMAGES = {"text": FORWARD, "image": FORWARD, "message": {**FORWARD, "format": "structured"}}
VIDEOS = {"text": FORWARD, "image": FORWARD, "video": FORWARD, "message": {**FORWARD, "format": "structured"}}
TWO_TOWERS = {
    "text": {"method": "get_text_features", "method_output_name": "pooler_output"},
    "image": {"method": "get_image_features", "method_output_name": "pooler_output"},
}
CARD = """---
license: apache-2.0
library_name: sentence-transformers
---
# Made by the tests
"""


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def save_transformer(
    folder: Path, model: Any, processor: Any, dtype: torch.dtype = torch.float32, **settings: Any
) -> None:
    """A plain transformers folder; settings of `save_pretrained` follow."""
    model.to(dtype).save_pretrained(folder, **settings)
    processor.save_pretrained(folder)


def save_chain(
    folder: Path,
    modules: list[Module],
    modalities: dict[str, Any] = TEXT_ONLY,
    processing_kwargs: dict[str, Any] | None = None,
    prompts: dict[str, str] | None = None,
    **settings: Any,
) -> None:
    """Makes a transformers folder a saved SentenceTransformer.

    Args:
        folder: Holds the transformer in its root.
        modules: What follows the transformer.
        modalities: Its `modality_config`.
        processing_kwargs: Its defaults for calls of the processor.
        prompts: By name; a save names those of queries and documents, used or not.
        **settings: Others of `config_sentence_transformers.json`: `default_prompt_name`, `truncate_dim`.
    """
    chain = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    for index, module in enumerate(modules, 1):
        kind = type(module)
        place = folder / f"{index}_{kind.__name__}"
        place.mkdir()
        module.save(str(place))
        type_name = f"{kind.__module__}.{kind.__name__}"
        chain.append({"idx": index, "name": str(index), "path": place.name, "type": type_name})
    write_json(folder / "modules.json", chain)

    output = "token_embeddings" if modules else "sentence_embedding"
    transformer = {
        "transformer_task": "feature-extraction",
        "modality_config": modalities,
        "module_output_name": output,
    }
    kwargs = {"processing_kwargs": processing_kwargs} if processing_kwargs else {}
    write_json(folder / "sentence_bert_config.json", transformer | kwargs)

    versions = {
        "pytorch": torch.__version__,
        "sentence_transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
    }
    all_prompts = {"query": "", "document": ""} | (prompts or {})
    model = {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine", "default_prompt_name": None}
    content = {**model, "__version__": versions, "prompts": all_prompts, **settings}
    write_json(folder / "config_sentence_transformers.json", content)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
