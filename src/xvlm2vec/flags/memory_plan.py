"""`xvlm2vec distill --plan` and `contrast --plan`: the memory that a run will take, as a table."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from xvlm2vec.trainer.plan import MemoryPlan, plan_memory

from .models import adapter_base, model_kind, read_json

if TYPE_CHECKING:
    from xvlm2vec.trainer.contrastive_config import ContrastiveConfig
    from xvlm2vec.trainer.distillation_config import SelfDistillationConfig

    from .adapters import AdapterFlags

DEVICES = (1, 2, 4, 8)
CARDS = (16, 24, 40, 48, 80, 141)
"""Gigabytes of usual GPUs."""
TOWERS = {"forms": {"text": "{text}", "image": ""}, "two_towers": True}
"""All that a plan needs to know of the recipe of two towers."""
ROOM = 0.9
"""The share of a GPU's memory that a run can use: the rest goes to the driver, the libraries and fragments."""


EXAMPLE = (768, 24, 4)
"""Tokens of a row's images and of each text, and its translations."""


def meta_model(source: str, dtype: torch.dtype | None) -> nn.Module:
    """The embedder that a folder or Hub id describes, without weights; only its `config.json` is read.

    Args:
        source: An `XVLM2VecModel`, an adapter on one, an embedder of sentence-transformers (whose heads do not count),
            two towers, or a vision-language model of transformers.
        dtype: Number format of the weights; that of the configuration if `None`.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no model.
    """
    from transformers import AutoConfig

    import xvlm2vec.modeling  # noqa: F401  (registers the Auto classes)
    from xvlm2vec.common.adoption.kinds import TWO_TOWERS
    from xvlm2vec.modeling.configuration_xvlm2vec import XVLM2VecConfig
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

    kind = model_kind(source)
    if kind == "adapter":
        return meta_model(adapter_base(source).source, dtype)
    chain = read_json(source, "modules.json") if kind == "sentence-transformers" else None
    place = PurePosixPath(chain[0].get("path", "") if chain else "", "config.json").as_posix()
    if not (read_json(source, place) or {}).get("model_type"):
        raise ValueError(
            f"{source} does not begin with a model of transformers, whose layers a plan would count; leave --plan out."
        )
    config = AutoConfig.from_pretrained(source, subfolder=chain[0].get("path", "") if chain else "")
    stored = config.dtype or getattr(config, "vlm_config", config).get_text_config().dtype or torch.float32
    if not isinstance(config, XVLM2VecConfig):
        config = XVLM2VecConfig(vlm_config=config, recipe=TOWERS if config.model_type in TWO_TOWERS else None)
    with torch.device("meta"):
        model: Any = XVLM2VecModel(config)
        return model.to(dtype or stored)


def run_plan(source: str, args: SelfDistillationConfig, flags: AdapterFlags, teacher: str | None = None) -> str:
    """The table of a run.

    Args:
        source: Folder or Hub id of the model.
        args: Settings of the training.
        flags: What is trained instead of all weights, if that is an adapter, and the number format of the weights.
        teacher: Folder or Hub id of another embedder that teaches.
    """
    from xvlm2vec.modeling.model_parts import embedder_of
    from xvlm2vec.trainer.activated import add_activated
    from xvlm2vec.trainer.adapters import add_adapter
    from xvlm2vec.trainer.vision_parameters import set_up_vision

    model: Any = meta_model(source, flags.weights_dtype())
    adapter = flags.config(train_vision=not args.freeze_vision)
    if adapter is not None:
        with torch.device("meta"):
            model = add_activated(model, adapter) if adapter.activated else add_adapter(model, adapter)
    set_up_vision(embedder_of(model), args.freeze_vision)
    other = None if teacher is None else meta_model(teacher, None)
    plan = plan_memory(model, args, flags.lora_4bit, other)
    unit = f"one micro-pack: {args.max_tokens_per_forward:,} tokens"
    shown = table(plan, unit, bool(args.activation_checkpointing), "Fewer --max-tokens-per-forward shrink")
    return shown + (_of_activated(plan, args) if flags.activated else "")


def run_contrast_plan(source: str, args: ContrastiveConfig, flags: AdapterFlags, row_tokens: int) -> str:
    """The table of a contrastive run.

    Args:
        source: Folder or Hub id of the model.
        args: Settings of the training.
        flags: What is trained instead of all weights, if that is an adapter, and the number format of the weights.
        row_tokens: Tokens of a text with its images; all rows count as so long.
    """
    from xvlm2vec.trainer.adapters import add_adapter

    model: Any = meta_model(source, flags.weights_dtype())
    adapter = flags.config()
    if adapter is not None:
        with torch.device("meta"):
            model = add_adapter(model, adapter)
    # Without a mini-batch, the activations of queries and positives stay until the loss has seen both.
    rows = args.mini_batch_size or 2 * args.per_device_train_batch_size
    batch = 2 * args.per_device_train_batch_size * row_tokens
    plan = plan_memory(model, args, flags.lora_4bit, tokens=rows * row_tokens, batch_tokens=batch)
    if args.mini_batch_size:
        unit = f"one mini-batch: {rows} rows of {row_tokens:,} tokens"
        hint = "A smaller --mini-batch-size shrinks"
    else:
        unit = f"one batch: {rows} rows (queries and positives; negatives come on top) of {row_tokens:,} tokens"
        hint = "A --mini-batch-size shrinks"
    shown = table(plan, unit, bool(args.activation_checkpointing), hint)
    return shown + (
        f"\nA batch's images are all on the GPU before it is cut into pieces: counted as if images filled all "
        f"{2 * args.per_device_train_batch_size} queries and positives."
    )


def _of_activated(plan: MemoryPlan, args: SelfDistillationConfig) -> str:
    """What is to be known of an adapter that acts on translations only."""
    prefix, text, languages = EXAMPLE
    share = languages * text / (prefix + (languages + 1) * text)
    return (
        "\nOnly translations have gradients. The activations above are those of a micro-pack of nothing else; of rows "
        f"with {prefix} image tokens and {languages} translations of {text} tokens about "
        f"{share * plan.activations / 1e9:.2f} GB are kept. No teacher is stored, copied or run."
    )


def table(plan: MemoryPlan, unit: str, twice: bool, hint: str) -> str:
    """Gigabytes (10^9 bytes) on each device, by what they are for.

    Args:
        plan: The bytes.
        unit: What the activations are those of.
        twice: Whether activations are computed again in the backward pass.
        hint: What would shrink them, the beginning of a sentence.
    """
    columns = {devices: plan.per_device(devices) for devices in DEVICES}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    titles = ["one" if devices == 1 else f"FSDP2, {devices}" for devices in DEVICES]
    lines = [
        f"{plan.parameters / 1e9:.2f} billion weights, {plan.trained_parameters / 1e6:,.1f} million of them trained",
        unit + (", activations computed twice" if twice else ", all activations kept"),
        "",
        f"{'GB on each GPU':<18}" + "".join(f"{title:>12}" for title in titles),
    ]
    for name in names:
        cells = "".join(
            f"{column[name] / 1e9:>12.2f}" if name in column else f"{'-':>12}" for column in columns.values()
        )
        lines.append(f"{name:<18}{cells}")
    totals = [sum(column.values()) for column in columns.values()]
    lines.append(f"{'in all':<18}" + "".join(f"{total / 1e9:>12.2f}" for total in totals))
    lines.append(f"{'fits a GPU of':<18}" + "".join(f"{_card(total):>12}" for total in totals))
    lines += [
        "",
        f"An estimate: a tenth of each GPU is left free. DDP takes as much on each GPU as one GPU alone, and the "
        f"gradients once more ({plan.gradients / 1e9:.2f} GB). {hint} the activations.",
    ]
    return "\n".join(lines)


def _card(total: int) -> str:
    fits = next((card for card in CARDS if total <= ROOM * card * 1e9), None)
    return f"{fits} GB" if fits else "none"
