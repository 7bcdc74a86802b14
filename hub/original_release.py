"""Releases an embedder that was taken over in the form in which it came, with a card and golden vectors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from xvlm2vec.common.adoption.black_box import BlackBoxModel
from xvlm2vec.common.files import write_json
from xvlm2vec.modeling.adopted import digest_of, files_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .card import ReleaseCard, write_card, write_scores
from .export import describe_weights
from .golden import Golden, write_golden
from .original import OriginalDiff, write_original
from .original_chain import taught_weights, write_chain
from .original_modules import TaughtHead
from .own_code import has_own_code
from .staging import ExportError

SETTINGS_FILE = "sentence_bert_config.json"
TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_KINDS = {"dense": "Dense", "layer_norm": "LayerNorm"}


def is_adopted(model: Any) -> bool:
    """Whether a model was taken over from somebody's own embedder."""
    return bool(getattr(model.config, "adopted", None)) and "digest" in model.config.adopted


def export_original(
    model: XVLM2VecModel, processor: XVLM2VecProcessor, folder: str | os.PathLike[str], *, card: ReleaseCard
) -> OriginalDiff:
    """Writes a taught embedder as its author saved it: only the taught tensors and what is new differ.

    Args:
        model: An adopted `XVLM2VecModel`, its adapter merged.
        processor: Its processor.
        folder: Where to write.
        card: What `README.md` says.

    Returns:
        The difference to the original.

    Raises:
        ExportError: The original is gone or has changed since, or a taught value has no place in its form.
        CheckpointError: A file of the original is damaged.
    """
    source = original_folder(model.config.adopted)
    goldens: list[Golden] = []

    def finish(staging: Path) -> None:
        _cure_padding(staging, model, processor)
        if not (source / "modules.json").is_file() and not model.config.two_towers:
            write_json(staging / SETTINGS_FILE, _settings_of_plain(processor))
        goldens.append(write_golden(staging, model, processor))
        write_scores(staging, card)

    def write_readme(staging: Path, diff: OriginalDiff) -> None:
        write_card(
            staging,
            card,
            prompts=goldens[0].prompts,
            image_size=goldens[0].image_size,
            dims=goldens[0].vectors.shape[1],
            weights=describe_weights(model),
            own_form=[name for name in processor.recipe.forms if "+instruction" not in name],
            own_code=has_own_code(staging),
            original_diff=diff.summary(),
        )

    if isinstance(model, BlackBoxModel):
        trust = model.processor.oracle.trust_remote_code
        return write_chain(source, folder, taught_weights(model), trust, finish=finish, write_card=write_readme)
    heads = taught_heads(model, source)
    return write_original(source, folder, model.backbone, heads, finish=finish, write_card=write_readme)


def taught_heads(model: XVLM2VecModel, source: Path) -> list[TaughtHead]:
    """The modules behind the pooling that have weights, by their folders in the original."""
    heads = _pooling_of_plain(model) if not (source / "modules.json").is_file() else []
    for head, settings in zip(model.heads, model.config.heads, strict=True):
        tensors = {name: tensor.detach() for name, tensor in head.state_dict().items()}
        if not tensors:
            continue
        config = None if (source / settings["folder"]).is_dir() else _new_head(settings)
        heads.append(TaughtHead(settings["folder"], tensors, config, kind=_KINDS[settings["type"]]))
    if heads and model.config.normalize and not (source / "modules.json").is_file():
        heads.append(TaughtHead(f"{len(heads) + 1}_Normalize", {}, {}, kind="Normalize"))
    return heads


def _pooling_of_plain(model: XVLM2VecModel) -> list[TaughtHead]:
    """The pooling of a plain model, whose own files do not say it; two towers have none."""
    if model.config.two_towers:
        return []
    modes = model.config.pooling.split("+")
    width = model.config.get_text_config().hidden_size
    config = {
        "embedding_dimension": width,
        "pooling_mode": modes if len(modes) > 1 else modes[0],
        "include_prompt": True,
    }
    return [TaughtHead("1_Pooling", {}, config, kind="Pooling")]


def _new_head(settings: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a dense layer that the original does not have, as sentence-transformers reads it."""
    return {
        "in_features": settings["in_features"],
        "out_features": settings["out_features"],
        "bias": settings.get("bias", True),
        "activation_function": settings.get("activation", "torch.nn.modules.linear.Identity"),
    }


def original_folder(adopted: dict[str, Any]) -> Path:
    """The original's folder, the same as when it was taken over.

    Raises:
        ExportError: It is gone, or has changed since.
    """
    try:
        source = files_of(adopted["source"], adopted.get("revision"))
    except FileNotFoundError as error:
        raise ExportError(
            f"the embedder {adopted['source']}, whose form the release would have, is gone: put it back, or release "
            "in our form with --with-remote-code only."
        ) from error
    if digest_of(source) != adopted["digest"]:
        raise ExportError(
            f"the files of {adopted['source']} have changed since it was taken over, so that its form is another one "
            "now. Put them back as they were."
        )
    return source


def _cure_padding(folder: Path, model: XVLM2VecModel, processor: XVLM2VecProcessor) -> None:
    """Writes the padding that SigLIP was trained with into its folder, so that it holds for everybody."""
    pad_to = processor.recipe.pad_to
    if pad_to is None:
        return
    path = folder / model.config.adopted.get("transformer", "") / SETTINGS_FILE
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else _settings_of_towers()
    options = settings.get("processing_kwargs") or {}
    text = {**options.get("text", {}), "padding": "max_length", "max_length": pad_to, "truncation": True}
    write_json(path, {**settings, "processing_kwargs": {**options, "text": text}})
    if not (folder / "modules.json").is_file():
        write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}])


def _settings_of_plain(processor: XVLM2VecProcessor) -> dict[str, Any]:
    """What sentence-transformers finds out by itself of a plain model; beside a `modules.json`, only of texts."""
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    kinds = [name for name in processor.recipe.forms if "instruction" not in name]
    modalities: dict[str, Any] = dict.fromkeys(kinds, forward)
    tokenizer = processor.inner.tokenizer
    if getattr(processor.inner, "chat_template", None) or getattr(tokenizer, "chat_template", None):
        modalities["message"] = {**forward, "format": "structured" if "image" in kinds else "flat"}
    return {
        "transformer_task": "feature-extraction",
        "modality_config": modalities,
        "module_output_name": "token_embeddings",
    }


def _settings_of_towers() -> dict[str, Any]:
    """What sentence-transformers finds out by itself of a plain two-tower model, written down."""
    output = {"method_output_name": "pooler_output"}
    return {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "get_text_features", **output},
            "image": {"method": "get_image_features", **output},
        },
        "module_output_name": "sentence_embedding",
    }
