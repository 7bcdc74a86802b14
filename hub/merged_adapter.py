"""Merges an activated adapter into its base: an ordinary model, which moves every vector, and by how much."""

from __future__ import annotations

from typing import Any

import torch

from xvlm2vec.modeling.activated import EMBEDDINGS, LORA, remove_adapter
from xvlm2vec.modeling.language_adapters import BASE_LANGUAGE, adapter_for, languages_of
from xvlm2vec.modeling.lora_weights import LoraWeights
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .golden import golden_vectors, image_size, rows_for
from .staging import ExportError

KINDS = {
    "texts in English": ("text en", "text long"),
    "images": ("image disc", "image stripes"),
    "images with an English text": ("image and text en",),
}
"""The golden rows whose vectors an adapter beside its base would have left as they are."""


def merge_language(model: XVLM2VecModel, language: str | None = None) -> list[str]:
    """Merges one of the adapters beside a model into its weights, in place, and takes the others away.

    Args:
        model: The model.
        language: One that the adapter speaks; needed where there are several adapters.

    Returns:
        The languages that the adapter was taught.

    Raises:
        ExportError: It is not said which of several adapters is to be merged.
        UnknownLanguageError: None speaks the language.
    """
    name = _chosen(model, language)
    languages = sorted(model.language_adapters[name].languages)
    with torch.no_grad():
        for module in model.modules():
            _merge(module, name)
    for other in list(model.language_adapters):
        remove_adapter(model, other)
        del model.language_adapters[other]
    return languages


def measured_drift(
    merged: XVLM2VecModel, base: XVLM2VecModel, processor: XVLM2VecProcessor
) -> list[dict[str, float | int | str]]:
    """How far golden rows of each kind are from where the base has them, in float32.

    Args:
        merged: The model with the adapter in its weights.
        base: The model below.
        processor: Their processor.
    """
    names = [row.name for row in rows_for(processor)]
    ours, theirs = (golden_vectors(model, processor, image_size(processor)).double() for model in (merged, base))
    distances = 1 - torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
    differences = (ours - theirs).abs().amax(dim=-1)
    result: list[dict[str, float | int | str]] = []
    for kind, of_kind in KINDS.items():
        places = [names.index(name) for name in of_kind if name in names]
        if places:
            worst = {"distance": float(distances[places].max()), "difference": float(differences[places].max())}
            result.append({"kind": kind, "rows": len(places), **worst})
    return result


def _chosen(model: XVLM2VecModel, language: str | None) -> str:
    names = list(model.language_adapters)
    if language is None and len(names) == 1:
        return names[0]
    if language is None:
        raise ExportError(
            f"there are adapters for {', '.join(languages_of(model))}, and the weights of one model hold one of them: "
            "name a language, such as --merge " + languages_of(model)[0] + "."
        )
    name = adapter_for(model, language)
    if name is None:
        raise ExportError(f"{language!r} is the language of the base ({BASE_LANGUAGE!r}), which has no adapter.")
    return name


def _merge(module: Any, name: str) -> None:
    if name in getattr(module, LORA, ()):
        change = module.activated[name]
        lora = LoraWeights(change.lora_A, change.lora_B, change.scale, change.lora_magnitude_vector)
        module.weight.copy_(lora.merged(module.weight))
    if name in getattr(module, EMBEDDINGS, ()):
        module.weight.copy_(module.modules_to_save[name].weight)
