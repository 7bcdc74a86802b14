"""Several processes: FSDP2 through accelerate, also on CPUs, with the layers to shard found in the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.hooks import RemovableHandle

from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

from .vision_parameters import vision_modules, vision_parameters


def with_its_class(model: nn.Module) -> nn.Module:
    """A model that FSDP2 has sharded, as an object of the class that it had before; any other model as it is.

    FSDP2 puts a class of its own, defined in torch, in place of a model's; a model that is saved with its code would
    be saved with torch's. The object shares all parts of the model, which is left as it is.
    """
    if not isinstance(model, FSDPModule):
        return model
    kind: Any = next(kind for kind in type(model).__mro__[1:] if not issubclass(kind, FSDPModule))
    view = kind.__new__(kind)
    view.__dict__ = model.__dict__
    return view


def fsdp_is_asked_for() -> bool:
    """Whether `accelerate launch` was told to divide weights among processes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def let_cpus_shard() -> None:
    """Has accelerate shard on CPUs, where it would train whole copies without a word.

    FSDP2 itself runs over gloo; accelerate only asks whether the processes have accelerators. To be called between
    the making of `TrainingArguments`, which sets up the processes, and of the accelerator.
    """
    state = PartialState()
    if fsdp_is_asked_for() and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU  # all objects of the class share their attributes


def choose_layers(accelerator: Accelerator, model: nn.Module, embedder: XVLM2VecModel) -> None:
    """Has FSDP2 shard each layer of the language model as a unit, unless the configuration names classes itself.

    Args:
        accelerator: One with an FSDP2 plugin.
        model: Still whole.
        embedder: The `XVLM2VecModel` in it. Its vision tower has no units of its own; what is frozen of it is not
            sharded at all.
    """
    plugin = accelerator.state.fsdp_plugin
    if plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = layer_classes(model, vision_modules(embedder))
    frozen = nn.ParameterList(weight for weight in vision_parameters(embedder) if not weight.requires_grad)
    if plugin.ignored_modules is None and len(frozen):
        plugin.ignored_modules = [frozen.to(accelerator.device)]


def layer_classes(model: nn.Module, but: Iterable[nn.Module] = ()) -> list[str]:
    """Class names of the layers that a model repeats: the elements of its outermost lists of modules.

    `_no_split_modules` would be the place to look, but for some families of transformers it names classes that the
    model does not hold (LLaVA-NeXT, Gemma 3), which accelerate refuses, or parts of a layer only (Idefics3).

    Args:
        model: Any model.
        but: Parts that do not count.
    """
    left_out = {id(module) for part in but for module in part.modules()}
    return sorted({type(layer).__name__ for layer in repeated_layers(model) if id(layer) not in left_out})


def repeated_layers(module: nn.Module) -> Iterator[nn.Module]:
    """The elements of the outermost lists of modules inside a module that have parameters."""
    for child in module.children():
        if isinstance(child, nn.ModuleList) and len(child) > 1:
            yield from (layer for layer in child if next(layer.parameters(), None) is not None)
        else:
            yield from repeated_layers(child)


def use_vision_in_every_pass(embedder: XVLM2VecModel) -> RemovableHandle:
    """Adds zero times the trained weights of the vision tower to the token embeddings, so that each pass uses them.

    Without it, a process without images would have no gradients of the tower to send, while the others wait; and one
    process alone would leave the tower out of a step without images, in which momentum moves it among several. It is
    the embeddings that get them because FSDP2 sends a layer's gradients earlier where the layer's input has one: below
    an adapter the tokens have none, and processes with and without images would send theirs in different orders.
    """

    def add_nothing(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():  # weights are looked up each time, as FSDP2 puts gathered ones in their places
            weights = [weight for weight in vision_parameters(embedder) if weight.requires_grad]
            output = output + 0 * sum(weight.sum() for weight in weights)
        return output

    return embedder.get_input_embeddings().register_forward_hook(add_nothing)
