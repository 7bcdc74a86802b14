"""What in a loaded model stands for which stored tensor.

What transformers loads has other names than what is stored, and `save_pretrained` does not bring all of them back. So
each stored tensor is followed through the loader's own renaming, and counts only if what arrives is the stored value.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from .staging import ExportError
from .stored_tensors import StoredTensors, is_same

Pair = tuple[torch.Tensor, torch.Tensor]
"""A stored tensor's value as the original's model holds it, and as the trained one does."""


def pairs_of_values(
    stored: StoredTensors, before: PreTrainedModel, after: Mapping[str, torch.Tensor]
) -> dict[str, Pair]:
    """What stands for each stored tensor in the models, for those for which something does, proven by its value."""
    state = before.state_dict()
    places = loaded_names(before, stored.files)
    pairs = {key: (state[name], after[name]) for key, (name, converted) in places.items() if not converted}
    converted = [key for key, (_, is_converted) in places.items() if is_converted]
    if converted:
        rest = state.keys() - {places[key][0] for key in pairs}
        pairs |= _reverted(converted, before, *({name: each[name] for name in rest} for each in (state, after)))
    proven = {key: pair for key, pair in pairs.items() if is_same(pair[0], stored.read(key))}
    for key, (old, new) in pairs.items():
        if key not in proven and not is_same(new, old):
            raise ExportError(
                f"{key} was taught, and what the original stores is not what its model holds in that place, so nothing "
                "can be put there: the tensor is quantized, or the files changed while they were read."
            )
    return proven


def loaded_names(model: PreTrainedModel, keys: Iterable[str]) -> dict[str, tuple[str, bool]]:
    """Where the loader of transformers puts stored tensors.

    Args:
        model: The model, which may lie on the meta device.
        keys: Names in the checkpoint.

    Returns:
        For each name that has a place: the parameter, and whether the values are converted, not just renamed.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    state, prefix = model.state_dict(), model.base_model_prefix
    places = {}
    for key in sorted(keys, key=dot_natural_key):  # some renamings wait for a key that comes first
        name, pattern = rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:
            name, pattern = key, None
        if name in state:
            places[key] = (name, pattern is not None)
    return places


def _reverted(
    keys: list[str], model: PreTrainedModel, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> dict[str, Pair]:
    """The pairs of tensors that the loader converts, by its own way back, which may leave a prefix out.

    Raises:
        ExportError: transformers has no way back.
    """
    try:
        old, new = revert_weight_conversion(model, before), revert_weight_conversion(model, after)
    except (NotImplementedError, ValueError) as error:
        raise ExportError(
            f"transformers converts {keys[0]} when it loads it, and has no way back ({error})."
        ) from error
    names = {key: [name for name in old if key == name or key.endswith(f".{name}")] for key in keys}
    longest = {key: max(ends, key=len) for key, ends in names.items() if ends}
    return {key: (old[name], new[name]) for key, name in longest.items()}


def tied_keys(stored: StoredTensors, model: PreTrainedModel, placed: Mapping[str, Any]) -> dict[str, str]:
    """Stored tensors that the model has no place for and that are another's copy, such as a tied `lm_head`.

    The class that the configuration names says what is tied; a copy that it does not tie is a weight of its own. Where
    transformers has no such class, the configuration's `tie_word_embeddings` says so of copies of the embeddings.

    Args:
        stored: The checkpoint.
        model: The model as it was loaded from it, without a head.
        placed: The stored tensors that it has a place for.

    Returns:
        The tensor that is tied to each.
    """
    rest = [key for key in stored.files if key not in placed]
    whole = _whole_model(model.config) if rest else None
    partners = _partners(rest, placed, stored, whole) if whole is not None else _embeddings(rest, placed, model)
    return {key: other for key, other in partners.items() if _are_equal(stored.read(key), stored.read(other))}


def _partners(
    rest: Iterable[str], placed: Iterable[str], stored: StoredTensors, whole: PreTrainedModel
) -> dict[str, str]:
    """Those of the rest that are, in the whole model, the same parameter as one that has a place."""
    parameters = dict(whole.named_parameters(remove_duplicate=False))
    names = {key: name for key, (name, _) in loaded_names(whole, stored.files).items() if name in parameters}
    owners = {id(parameters[names[key]]): key for key in placed if key in names}
    shared = {key: id(parameters[names[key]]) for key in rest if key in names}
    return {key: owners[parameter] for key, parameter in shared.items() if parameter in owners}


def _embeddings(rest: Iterable[str], placed: Iterable[str], model: PreTrainedModel) -> dict[str, str]:
    """The key of the input embeddings for each of the rest, if the configuration ties anything to them."""
    if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return {}
    parameters, embeddings = dict(model.named_parameters()), model.get_input_embeddings().weight
    owner = [key for key, (name, _) in loaded_names(model, placed).items() if parameters.get(name) is embeddings]
    return dict.fromkeys(rest, owner[0]) if owner else {}


def _are_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _whole_model(config: Any) -> PreTrainedModel | None:
    """The model with its head that a configuration names, without weights; `None` if transformers has no such class."""
    whole = getattr(transformers, next(iter(config.architectures or []), ""), None)
    if whole is None:
        return None
    with torch.device("meta"):
        return whole(copy.deepcopy(config))
