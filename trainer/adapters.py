"""LoRA adapters on the language model of a backbone, through peft."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import BitsAndBytesConfig

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.trainer.vision import VISION_PARTS

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


def check_four_bit() -> None:
    """Raises where a base in 4 bits cannot be had.

    Raises:
        ValueError: There is no CUDA GPU, or bitsandbytes is not installed.
    """
    if not torch.cuda.is_available():
        raise ValueError(
            "A base in 4 bits (QLoRA) needs a CUDA GPU, and this machine has none; train a plain LoRA adapter instead."
        )
    if find_spec("bitsandbytes") is None:
        raise ValueError("A base in 4 bits (QLoRA) needs bitsandbytes: pip install bitsandbytes.")


def four_bit_config() -> BitsAndBytesConfig:
    """How QLoRA (arXiv 2305.14314) stores the base: NF4 with quantized scales, computing in bfloat16.

    Vision towers keep their format: they are small, and what they see is not trained.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16,  # FSDP2 shards weights of one format only
        llm_int8_skip_modules=list(VISION_PARTS),
    )


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
    """A regular expression for the paths of the linear layers in the backbone's language model.

    Where the token embeddings lie beside the vision tower (Phi-3.5-V), the tower's paths are shut out.
    """
    paths = {id(module): name for name, module in model.named_modules()}
    root = paths[id(model.get_input_embeddings())].rpartition(".")[0] + "."
    linears = [
        name.removeprefix(root).split(".")
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(root)
    ]
    leaves = sorted({path[-1] for path in linears if not set(path) & set(VISION_PARTS)})
    towers = sorted({part for path in linears for part in path if part in VISION_PARTS})
    but = rf"(?!(?:.*\.)?(?:{'|'.join(towers)})\.)" if towers else ""
    return rf"{re.escape(root)}{but}.*\.(?:{'|'.join(leaves)})"
