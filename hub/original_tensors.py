"""Trained tensors under the names, in the files, shapes and dtypes of the checkpoint that they were loaded from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from xvlm2vec.modeling.loading import readable_files

from .original_names import pairs_of_values, tied_keys
from .staging import ExportError
from .stored_tensors import StoredTensors, is_same


@dataclass
class TensorChanges:
    """What was written, by the names that the checkpoint's files use.

    Args:
        changed: Tensors with new values.
        unchanged: Those whose bytes are the same.
        not_stored: Parameters of the model that the checkpoint has no tensor for: its loader makes them anew.
    """

    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    not_stored: list[str] = field(default_factory=list)


def write_backbone(stored: StoredTensors, original: Path, trained: PreTrainedModel) -> TensorChanges:
    """Writes a trained model's values over those of the checkpoint that it was loaded from, and loads them to prove it.

    Args:
        stored: A copy of the checkpoint's files, which is changed.
        original: The folder of the checkpoint itself.
        trained: The model, of the class and with the names that it was loaded with.

    Returns:
        What was written. Tensors that did not change keep their bytes, whatever dtype the model was trained in.

    Raises:
        ExportError: A parameter changed and has no proven place in the files, or does not arrive when loaded.
        CheckpointError: A file of the original is damaged.
    """
    after = {name: value.detach().cpu() for name, value in trained.state_dict().items()}
    before, missing = _load(original, trained)
    _check_same_parameters(before.state_dict(), after)
    pairs = pairs_of_values(stored, before, after)
    pairs |= {key: pairs[partner] for key, partner in tied_keys(stored, before, pairs).items()}
    changes = TensorChanges(not_stored=missing)
    for key in stored.files:
        new = _new_value(stored.read(key), *pairs[key]) if key in pairs else None
        if new is not None:
            stored.write(key, new)
        (changes.unchanged if new is None else changes.changed).append(key)
    del before, pairs  # as large as the model that is loaded next
    _check_arrival(stored, trained, after, missing)
    return changes


def write_tensors(stored: StoredTensors, values: Mapping[str, torch.Tensor]) -> TensorChanges:
    """Writes taught values over those of a module that transformers has no part in.

    Args:
        stored: A copy of the module's files, which is changed.
        values: The values by the names in the files.

    Raises:
        ExportError: The files hold no tensor of that name and shape.
    """
    changes = TensorChanges()
    strange = sorted(values.keys() - stored.files.keys())
    if strange:
        raise ExportError(f"{strange[0]} was taught, and {stored.folder.name} of the original has no such tensor.")
    for key in stored.files:
        changed = key in values and not _is_as_stored(values[key].detach().cpu(), stored.read(key))
        if changed:
            stored.write(key, values[key])
        (changes.changed if changed else changes.unchanged).append(key)
    return changes


def _load(folder: Path, like: PreTrainedModel) -> tuple[PreTrainedModel, list[str]]:
    """A folder's model, of the class of another one, and the names of what its files do not hold."""
    with readable_files(folder):
        model_class: Any = type(like)
        model, info = model_class.from_pretrained(folder, output_loading_info=True)
    return model, sorted(info["missing_keys"])


def _check_same_parameters(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> None:
    for name in [*after, *before]:
        shapes = [tuple(state[name].shape) if name in state else "nothing" for state in (before, after)]
        if shapes[0] != shapes[1]:
            raise ExportError(
                f"the original's form has no place for what was taught: {name} is {shapes[0]} there, {shapes[1]} now."
            )


def _new_value(stored: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor | None:
    """What to write for a tensor, or `None` if training left it alone: it may have been loaded in another dtype."""
    return None if is_same(after, before) or _is_as_stored(after, stored) else after


def _is_as_stored(value: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether a value is the stored one in its own dtype, or in the stored one's."""
    return is_same(value, stored) or is_same(stored, value)


def _check_arrival(
    stored: StoredTensors, trained: PreTrainedModel, after: Mapping[str, torch.Tensor], missing: list[str]
) -> None:
    """Loads what was written, and raises an `ExportError` if a parameter is not what was taught."""
    dtypes = stored.dtypes()
    written = _load(stored.folder, trained)[0].state_dict()
    for name, value in after.items():
        arrived = written[name]
        rounded = any(torch.equal(arrived, value.to(dtype).to(arrived.dtype)) for dtype in dtypes)
        if name not in missing and not rounded and not is_same(value, arrived):
            raise ExportError(
                f"{name} was taught, and no tensor of the original stands for it alone, so it cannot be given back in "
                "the original's form."
            )
