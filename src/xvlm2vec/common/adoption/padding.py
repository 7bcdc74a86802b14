"""The padding of models that pool the last place whatever stands there (SigLIP): part of a text's vector."""

from __future__ import annotations

from typing import Any


def pad_as_trained(transformer: Any) -> int | None:
    """Makes a SigLIP's first module pad every text to the length that it was trained with.

    sentence-transformers pads to the longest text of a batch, also where the processor's own default is the full
    length (google-research/big_vision#157; `Siglip2ProcessorKwargs` of transformers).

    Args:
        transformer: The first module of a `SentenceTransformer`.

    Returns:
        That length where the folder did not say so itself, else `None`.
    """
    config: Any = getattr(transformer, "config", None)
    if not str(getattr(config, "model_type", "")).startswith("siglip") or not hasattr(config, "text_config"):
        return None
    options = {key: dict(value) for key, value in (transformer.processing_kwargs or {}).items()}
    text = options.get("text", {})
    if text.get("padding") == "max_length":
        return None
    pad_to = int(config.text_config.max_position_embeddings)
    text |= {"padding": "max_length", "max_length": pad_to, "truncation": True}
    transformer.processing_kwargs = {**options, "text": text}
    return pad_to
