"""LoRA adapters on the language model of a backbone, and on what sees its images, through peft."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import BitsAndBytesConfig

from xvlm2vec.modeling.hub_ids import is_path
from xvlm2vec.modeling.lora_settings import LoraSettings
from xvlm2vec.modeling.model_parts import language_model_path, path_of_embeddings
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

from .vision_parameters import CONNECTORS, VISION_PARTS, vision_modules


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapter to train.

    Args:
        rank: Columns of the one matrix and rows of the other.
        alpha: The product of the two is scaled by `alpha / rank`; twice the rank if `None`.
        dora: Weight-decomposed (DoRA) instead of plain LoRA.
        train_embeddings: Also train (and save) the token embeddings, in float32, which a language in a script that the
            model has never seen needs.
        train_vision: Also put it on the vision tower and the connector; goes with the trainer's `freeze_vision=False`.
        train_connector: Also train (and save) the whole connector between vision tower and language model, in float32,
            which one that nobody has trained needs.
        rslora: Scaled by `alpha / sqrt(rank)` (rank-stabilised, arXiv 2312.03732).
        activated: It acts on the tokens of translations only, so that images and English texts keep their vectors: see
            `activated.add_activated`, which takes it.
    """

    rank: int = 16
    alpha: int | None = None
    dora: bool = False
    train_embeddings: bool = False
    train_vision: bool = False
    train_connector: bool = False
    rslora: bool = False
    activated: bool = False


class AdapterError(ValueError):
    """An adapter does not fit its base: the message lists the keys."""


def add_adapter(model: XVLM2VecModel, config: AdapterConfig) -> PeftModel:
    """Puts a fresh adapter on every linear layer of the language model; everything else is frozen.

    Args:
        model: The embedder; its layers are replaced in place.
        config: The adapter; with `train_vision` the linear layers of vision tower and connector get it, too.
    """
    peft_config = LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=config.rank,
        lora_alpha=config.alpha if config.alpha is not None else 2 * config.rank,
        lora_dropout=0.0,  # the student without its adapter must be the teacher, exactly
        use_dora=config.dora,
        use_rslora=config.rslora,
        target_modules=linear_layers(model, config.train_vision),
        modules_to_save=trained_whole(model, config) or None,
    )
    adapted = get_peft_model(model, peft_config)
    base = peft_config.base_model_name_or_path
    if base and is_path(base):  # a relative path would be looked up from another folder, or on the Hub
        peft_config.base_model_name_or_path = str(Path(base).resolve())
    train_in_float32(adapted)
    return adapted


def trained_whole(model: XVLM2VecModel, config: AdapterConfig) -> list[str]:
    """Whole paths of the modules that are trained beside an adapter's matrices.

    PEFT looks for modules that end so: a name alone would also be that of Phi-3.5-V's `vision_embed_tokens`.

    Raises:
        ValueError: The connector is to be trained, and is also to get an adapter, or there is none.
    """
    embeddings = [path_of_embeddings(model)] if config.train_embeddings else []
    if not config.train_connector:
        return embeddings
    if config.train_vision:
        raise ValueError("The connector is trained whole or by an adapter: leave train_vision or train_connector out.")
    names = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in CONNECTORS]
    if not names:
        kind = type(model.backbone).__name__
        raise ValueError(f"A {kind} has no part called {', '.join(CONNECTORS)} that could be trained whole.")
    return [*embeddings, *names[:1]]  # the first is the outermost


def train_in_float32(adapted: nn.Module) -> None:
    """Keeps the modules that are trained whole in float32, as PEFT does with an adapter's matrices.

    At the rates of fine-tuning most updates are smaller than what half precision can add to a weight. What the modules
    give is in the format of the base.
    """
    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            dtype = next(module.original_module.parameters()).dtype
            module.modules_to_save.float()
            if dtype != torch.float32:
                module.register_forward_hook(partial(_cast_output, dtype))


def _cast_output(dtype: torch.dtype, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """A forward hook, once its dtype is bound; unlike a closure it can be pickled."""
    return output.to(dtype)


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

    Vision towers keep their format: they are small.
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
        AdapterError: A key of the adapter found no module, or a module found no key; or it acts on texts in its
            languages only, and merged would move every vector.
    """
    stored = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    if LoraSettings(stored).is_activated:
        raise AdapterError(
            f"The adapter in {folder} acts on texts in its languages only and is never merged: load it with "
            "XVLM2VecModel.from_pretrained, which keeps it beside its base."
        )
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


def linear_layers(model: XVLM2VecModel, vision: bool = False) -> str:
    """A regular expression for the paths of the linear layers in the backbone's language model.

    The paths are whole ones: vision towers share names such as `q_proj` with language models, and in Phi-3.5-V the
    tower lies beside the token embeddings.

    Args:
        model: The embedder.
        vision: Whether those of vision tower and connector count, too.
    """
    root = language_model_path(model) + "."
    seeing = {id(module) for part in vision_modules(model) for module in part.modules()}
    chosen = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        # Its parent would take the weight alone and pass over what is put on it.
        and not isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention)
        and "pooler" not in name.split(".")  # of BERT-like models, whose vectors do not depend on it
        and (vision if id(module) in seeing else name.startswith(root))
    ]
    leaves: dict[str, set[str]] = {}
    for name in chosen:
        parent, _, leaf = name.rpartition(".")
        leaves.setdefault(re.sub(r"\\\.\d+(?=\\\.|$)", r"\\.\\d+", re.escape(parent)), set()).add(re.escape(leaf))
    return "|".join(rf"{parent}\.(?:{'|'.join(sorted(names))})" for parent, names in sorted(leaves.items()))
