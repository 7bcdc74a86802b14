"""LoRA adapters on the language model of a backbone, through peft."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

EMBEDDINGS = "embed_tokens"


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapter to train.

    Args:
        rank: Of the two matrices.
        alpha: The product is scaled by `alpha / rank`; twice the rank if `None`.
        dora: Weight-decomposed (DoRA) instead of plain LoRA.
        train_embeddings: Also train (and save) the token embeddings, which a language in a script that the model has
            never seen needs.
    """

    rank: int = 16
    alpha: int | None = None
    dora: bool = False
    train_embeddings: bool = False


class AdapterError(ValueError):
    """An adapter does not fit its base: the message lists the keys."""


def add_adapter(model: XVLM2VecModel, config: AdapterConfig) -> PeftModel:
    """Puts a fresh adapter on every linear layer of the language model; everything else is frozen.

    Vision towers share names such as `q_proj` with language models, so the targets are whole module paths.
    """
    peft_config = LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=config.rank,
        lora_alpha=config.alpha if config.alpha is not None else 2 * config.rank,
        lora_dropout=0.0,  # the student without its adapter must be the teacher, exactly
        use_dora=config.dora,
        target_modules=language_linears(model),
        modules_to_save=[EMBEDDINGS] if config.train_embeddings else None,
    )
    return get_peft_model(model, peft_config)


def load_adapter(model: XVLM2VecModel, folder: str | Path) -> PeftModel:
    """Puts a saved adapter on its base, with every key accounted for.

    Raises:
        AdapterError: A key of the adapter found no module, or a module found no key.
    """
    wrapped = get_peft_model(model, PeftConfig.from_pretrained(str(folder)))
    try:
        result: Any = wrapped.load_adapter(str(folder), "default", is_trainable=False)
    except KeyError as error:  # peft looks up the modules that were saved whole without checking
        raise AdapterError(f"The adapter in {folder} lacks {error}.") from error
    missing = [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
    faults = [*(f"missing {key}" for key in missing), *(f"unexpected {key}" for key in result.unexpected_keys)]
    if faults:
        raise AdapterError(f"The adapter in {folder} does not fit its base: {'; '.join(faults[:8])}.")
    return wrapped.eval()


def language_linears(model: XVLM2VecModel) -> str:
    """A regular expression for the paths of the linear layers in the backbone's language model."""
    paths = {id(module): name for name, module in model.named_modules()}
    root = paths[id(model.get_input_embeddings())].rpartition(".")[0] + "."
    leaves = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(root)
    }
    return rf"{re.escape(root)}.*\.(?:{'|'.join(sorted(leaves))})"
