"""Writes a model without remote code: the backbone as transformers knows it, stock modules of sentence-transformers."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from xvlm2vec.common.files import write_json, write_text
from xvlm2vec.common.templates import render_template
from xvlm2vec.modeling.backbones import OWN_BACKBONES
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.sentence_transformers_files import write_sentence_transformers_files

from .card import ReleaseCard, card_data, write_license_note, write_scores
from .export import check_no_pickles, merge_adapter
from .golden import write_golden
from .staging import ExportError, staged_folder

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
NORMALIZE = "sentence_transformers.base.modules.normalize.Normalize"
POOLING_FOLDER, NORMALIZE_FOLDER = "1_Pooling", "2_Normalize"
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}


class NativeError(ExportError):
    """The libraries alone would not compute a model's vectors; the message says why."""


def export_native(
    model: XVLM2VecModel | PeftModel,
    processor: XVLM2VecProcessor,
    folder: str | os.PathLike[str],
    *,
    card: ReleaseCard | None = None,
    max_shard_size: int | str = "5GB",
) -> Path:
    """Writes the same weights as a plain model of transformers and sentence-transformers, which runs no remote code.

    What this package's processor does to a row, a chat template does here; pooling and normalisation are stock modules.
    The golden files beside it hold the vectors of this package's own model: `verify` compares.

    Args:
        model: An `XVLM2VecModel`, or a `PeftModel` around one, which is merged.
        processor: Its processor.
        folder: Where to write: missing, empty, or an earlier native export, which is replaced.
        card: What to say in `README.md`.
        max_shard_size: Largest weights file.

    Raises:
        NativeError: transformers has no such backbone, or only the released code writes its prompts.
        ExportError: An adapter that does not merge, or a foreign folder.
    """
    merged: Any = merge_adapter(model, processor) if isinstance(model, PeftModel) else model
    check_native(merged)
    card = card or ReleaseCard(name=Path(folder).name)
    with staged_folder(folder, "native") as staging:
        save_as_published(merged.backbone, staging, max_shard_size)
        plain_processor(processor).save_pretrained(staging)
        _write_modules(staging, merged.config)
        golden = write_golden(staging, merged, processor)
        write_text(staging / "README.md", _readme(card, merged.config, golden.prompts))
        write_scores(staging, card)
        write_license_note(staging, card)
        _check_plain(staging)
    return Path(folder)


def check_native(model: XVLM2VecModel) -> None:
    """Raises a `NativeError` that says why, if the libraries alone cannot compute a model's vectors."""
    backbone = model.config.vlm_config.model_type if model.config.vlm_config is not None else None
    if backbone in OWN_BACKBONES:
        raise NativeError(
            f"transformers has no {backbone!r} model any more, so this one needs the code that is released with it; "
            "release it without --native."
        )
    if getattr(model, "language_adapters", None):
        raise NativeError(
            "the adapters beside this model are run by the code that is released with it; release it without --native, "
            "or merge one into an ordinary model by --merge."
        )
    if model.config.recipe is not None:
        raise NativeError(
            "this embedder was taken over, and its release has the form in which it came, without remote code; leave "
            "--native out."
        )
    if model.config.layout is not None:
        raise NativeError(
            f"this model was trained with the prompts and positions of {model.config.layout!r}, which only the code "
            "that is released with it writes; release it without --native."
        )


def save_as_published(backbone: Any, folder: Path, max_shard_size: int | str = "5GB") -> None:
    """Writes a backbone under the class and the names of tensors under which its family is published.

    Servers look for `...ForConditionalGeneration` and its names; the base model alone would be saved under others. The
    language-model head is not written: no vector depends on it, and where it is not tied to the token embeddings, it
    was left behind when the backbone was loaded.

    Args:
        backbone: A base model of transformers.
        folder: Where to.
        max_shard_size: Largest weights file.
    """
    whole_class: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(backbone.config), None)
    if whole_class is None:
        backbone.save_pretrained(folder, max_shard_size=max_shard_size)
        return
    with torch.device("meta"):
        whole = whole_class(copy.deepcopy(backbone.config))
    setattr(whole, whole.base_model_prefix, backbone)
    stored = {name: tensor for name, tensor in whole.state_dict().items() if tensor.device.type != "meta"}
    whole.save_pretrained(folder, state_dict=stored, max_shard_size=max_shard_size)


def plain_processor(processor: XVLM2VecProcessor) -> Any:
    """A copy of the backbone's own processor whose chat template writes a row as ours does."""
    plain = copy.deepcopy(processor.inner)
    plain.chat_template = chat_template(processor)
    limit = processor.limit()
    if limit is not None:
        plain.tokenizer.model_max_length = limit
    return plain


def chat_template(processor: XVLM2VecProcessor) -> str:
    """A Jinja template of one row: its images, then the instruction (the `system` message), then its text.

    Raises:
        NativeError: How the backbone's prompts show an image is unknown.
    """
    family = processor.family
    image = family.image
    if image is None:
        raise NativeError(f"{processor.model_type!r} names no token for an image, so no chat template can write one.")
    parts = {
        "image": image,
        "before_images": family.before_images,
        "after_images": family.after_images,
        "before_text": family.before_text,
        "after_text": family.after_text,
    }
    quoted = {name: json.dumps(part, ensure_ascii=False) for name, part in parts.items()}
    images = (
        "{%- for message in messages %}{% if message['content'] is not string %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{% if not ns.images %}{{ " + quoted["before_images"] + " }}{% endif %}"
        "{{ " + quoted["image"] + " }}{% set ns.images = true %}{% endif %}"
        "{% endfor %}{% endif %}{% endfor %}"
    )
    return (
        "{%- set ns = namespace(images=false) -%}" + images + "{%- if ns.images %}{{ " + quoted["after_images"]
        + " }}{% else %}{{ " + quoted["before_text"] + " }}{% endif -%}"
        + _texts("==") + _texts("!=") + "{%- if not ns.images %}{{ " + quoted["after_text"] + " }}{% endif -%}"
    )  # fmt: skip


def _texts(comparison: str) -> str:
    """The texts of the messages whose role is (or is not) `system`."""
    return (
        "{%- for message in messages %}{% if message['role'] " + comparison + " 'system' %}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endif %}{% endfor -%}"
    )


def _write_modules(folder: Path, config: Any) -> None:
    """The files with which sentence-transformers puts backbone, pooling and normalisation together."""
    write_sentence_transformers_files(folder, config)
    modules = [("", TRANSFORMER), (POOLING_FOLDER, POOLING)]
    modules += [(NORMALIZE_FOLDER, NORMALIZE)] if config.normalize else []
    content = [{"idx": at, "name": str(at), "path": path, "type": name} for at, (path, name) in enumerate(modules)]
    write_json(folder / "modules.json", content)
    path = folder / "sentence_bert_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    kinds = {"text": _FORWARD, "image": _FORWARD, "image+text": _FORWARD}
    settings |= {
        "modality_config": {**kinds, "message": {**_FORWARD, "format": "structured"}},
        "module_output_name": "token_embeddings",
    }
    write_json(path, settings)
    (folder / POOLING_FOLDER).mkdir()
    pooling = {"embedding_dimension": config.hidden_size, "pooling_mode": config.pooling, "include_prompt": True}
    write_json(folder / POOLING_FOLDER / "config.json", pooling)
    if config.normalize:
        (folder / NORMALIZE_FOLDER).mkdir()
        names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
        write_json(folder / NORMALIZE_FOLDER / "config.json", names)


def _check_plain(folder: Path) -> None:
    """Raises if something in the folder would be run, or would have to be."""
    check_no_pickles(folder)
    code = sorted(path.name for path in folder.rglob("*.py"))
    configs = [path for path in folder.glob("*.json") if path.stat().st_size < 1_000_000]
    mapped = [path.name for path in configs if '"auto_map"' in path.read_text(encoding="utf-8")]
    if code or mapped:
        raise NativeError(f"a native release holds no code, and this one has {', '.join(code + mapped)}.")


def _readme(card: ReleaseCard, config: Any, prompts: dict[str, str]) -> str:
    return render_template(
        "native.md",
        card_data=card_data(card).to_yaml(),
        name=card.name,
        repo_id=card.native_id or card.name,
        original=card.repo_id or card.name,
        on_hub=card.on_hub,
        backbone=config.vlm_config.model_type,
        pooling=config.pooling,
        normalize=config.normalize,
        prompts=list(prompts),
    )
