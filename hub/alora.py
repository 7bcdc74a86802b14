"""Activated adapters in PEFT's own form (aLoRA), for whoever loads the published class of the base without our code.

There an adapter acts from the last place on where a sequence of tokens stands in a row. Where a layout has such a
sequence right before every text, an adapter of ours acts from it on, too (`Recipe.start_mark`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from xvlm2vec.modeling.activated import adapter_weights
from xvlm2vec.modeling.language_adapters import ADAPTER_FILE
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.packing import common_prefix, token_groups
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor
from xvlm2vec.modeling.rows import TextImageRow

from .golden import draw_image, image_size
from .staging import ExportError

OURS = "base_model.model.backbone."
TEXTS = ("Ein roter Hund", "雨の日", "12 % ?")
"""They begin with different tokens, so that what rows of them have in common belongs to the layout."""
_KEPT = ("r", "lora_alpha", "lora_dropout", "use_rslora", "bias", "inference_mode")


class AloraError(ExportError):
    """PEFT has no word for what an adapter does; the message is one sentence that says what."""


def export_alora(model: XVLM2VecModel, processor: XVLM2VecProcessor, name: str, folder: Path) -> Path:
    """Writes one of a model's adapters as an activated LoRA of PEFT, under the names of the base's published class.

    Args:
        model: The base with adapters beside it.
        processor: Its processor.
        name: Of the adapter.
        folder: Where to write.

    Raises:
        AloraError: PEFT cannot express it.
    """
    config = model.language_adapters[name].config
    prefix = _published_prefix(model)
    if config.get("use_dora"):
        raise AloraError("PEFT has no activated DoRA, only an activated LoRA.")
    if config.get("modules_to_save"):
        raise AloraError("PEFT would use the trained token embeddings for all tokens, those of the base included.")
    kept = {key: config[key] for key in _KEPT}
    settings = LoraConfig(
        task_type="CAUSAL_LM",  # for others PEFT looks for no tokens, and the adapter would act nowhere
        target_modules=_published_targets(model, name),
        alora_invocation_tokens=invocation_tokens(processor),
        **kept,
    )
    folder.mkdir(parents=True, exist_ok=True)
    settings.save_pretrained(str(folder))
    weights = adapter_weights(model, name)
    tensors = {key.replace(OURS, prefix, 1): part.detach().contiguous().cpu() for key, part in weights.items()}
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    return folder


def invocation_tokens(processor: XVLM2VecProcessor) -> list[int]:
    """The tokens with which what adapters act on begins, in rows of every kind.

    Raises:
        AloraError: There are none, or they stand in a row once more, behind the place where its text begins.
    """
    rows = [_ids_and_start(processor, row) for row in _sample(processor)]
    tokens = common_prefix([[*ids[start:], -1] for ids, start in rows])
    if not processor.recipe.start_mark or not tokens:
        raise AloraError("No sequence of tokens stands right before every text in this layout, for which PEFT looks.")
    if any(_last(ids, tokens) != start for ids, start in rows):
        raise AloraError("The tokens before a text stand in a row once more, where PEFT would find them.")
    return tokens


def _sample(processor: XVLM2VecProcessor) -> list[TextImageRow]:
    """Rows with text of all kinds that a model takes, with an instruction and without."""
    image = draw_image("disc", image_size(processor))
    shown = [()] + ([(image,)] if "image+text" in processor.recipe.forms else [])
    return [TextImageRow(text, images, said) for text in TEXTS for images in shown for said in ("", "Find it: ")]


def _ids_and_start(processor: XVLM2VecProcessor, row: TextImageRow) -> tuple[list[int], int]:
    (group,), _ = token_groups(processor, [[row]], starts=True)
    starts = group.starts or [0]
    return group.prefix + group.texts[0], len(group.prefix) + starts[0]


def _last(ids: list[int], tokens: list[int]) -> int:
    """The last place where a sequence stands."""
    return next(at for at in reversed(range(len(ids))) if ids[at : at + len(tokens)] == tokens)


def _published_prefix(model: XVLM2VecModel) -> str:
    """What the published class of a backbone puts before the names of its tensors, as PEFT writes them."""
    whole_class: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(model.backbone.config), None)
    if whole_class is None:
        return OURS.replace("backbone.", "")
    return f"base_model.model.{whole_class.base_model_prefix}."


def _published_targets(model: XVLM2VecModel, name: str) -> list[str]:
    """The paths of the layers that an adapter changes, in the published class."""
    inner = _published_prefix(model).removeprefix("base_model.model.")
    paths = [path for path, module in model.named_modules() if name in getattr(module, "activated", ())]
    return [inner + path.removeprefix("backbone.") for path in paths]
