"""Gives back an embedder that runs by its own code: its folder, with the taught values where its files hold them."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from xvlm2vec.common.adoption.black_box import WEIGHTS, BlackBoxModel
from xvlm2vec.common.adoption.oracle import load_oracle
from xvlm2vec.common.adoption.sources import ORIGIN_FILE, open_source
from xvlm2vec.common.files import write_json

from .chain_tensors import WHOLE, Place, places_of, stored_values
from .original import Changes, OriginalDiff, check_apart, write_form
from .original_tensors import TensorChanges
from .staging import MANIFEST, ExportError
from .stored_tensors import StoredTensors, is_same

logger = logging.getLogger(__name__)

PREFIX = "backbone.modules_of_source."
"""Before the names of the chain's own weights in a `BlackBoxModel`."""
FORM = ".given-back"
"""In the folder of a training, while its result is written."""

State = Mapping[str, torch.Tensor]


def freeze_unplaced(model: BlackBoxModel, source: Path, output: Path) -> None:
    """Stops training what could not be given back: weights that no tensor in the original's files stands for.

    Args:
        model: The embedder.
        source: The original's folder.
        output: The training's folder, where the result will be given back.

    Raises:
        ExportError: That is so of all weights, or the two folders lie in each other.
    """
    check_apart(source.resolve(), (output / FORM).resolve())
    modules = model.modules_of_source
    placed = set(places_of(stored_values(source), _load(source, model.processor.oracle.trust_remote_code)).values())
    kept = {id(weight) for name, weight in modules.named_parameters() if name in placed}
    unplaced = [name for name, weight in modules.named_parameters() if id(weight) not in kept]
    if not kept:
        raise ExportError(
            f"none of the weights of {model.config.name_or_path} is in its files as its own code holds it, so nothing "
            "that was taught could be given back."
        )
    for name, weight in modules.named_parameters():
        weight.requires_grad_(weight.requires_grad and name not in unplaced)
    if unplaced:
        logger.warning(
            "%d of %d weights stay as they are, as it is not certain which tensors in the files stand for them: %s",
            len(unplaced),
            len(unplaced) + len(kept),
            ", ".join(unplaced[:3]) + ", ..." * (len(unplaced) > 3),
        )


def give_back(model: BlackBoxModel, source: Path, weights: Path, output: Path) -> None:
    """Writes the result of a training into its folder, in the form in which the embedder came.

    Args:
        model: The embedder; only its settings are used.
        source: The original's folder.
        weights: The folder of the taught weights.
        output: The training's folder.

    Raises:
        ExportError: A taught value has no proven place in the files, or the original has changed.
    """
    taught = {name.removeprefix(PREFIX): value for name, value in load_file(weights / WEIGHTS).items()}
    form = output / FORM
    shutil.rmtree(form, ignore_errors=True)  # of a run that was killed
    write_chain(source, form, taught, model.processor.oracle.trust_remote_code)
    for path in sorted(form.rglob("*")):
        place = output / path.relative_to(form)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        elif path.name != MANIFEST:
            os.replace(path, place)
    shutil.rmtree(form)
    write_json(output / ORIGIN_FILE, dict(model.config.adopted))


def taught_weights(model: BlackBoxModel) -> State:
    """The weights of an embedder that runs by its own code, by the names that this code gives them."""
    state: State = model.modules_of_source.state_dict()
    return state


def write_chain(
    source: Path,
    folder: str | os.PathLike[str],
    taught: State,
    trust_remote_code: bool,
    *,
    finish: Callable[[Path], object] | None = None,
    write_card: Callable[[Path, OriginalDiff], object] | None = None,
) -> OriginalDiff:
    """Writes the folder of an embedder that runs by its own code again, with taught weights.

    What stands where is found by loading the original once more, and proven by loading what was written.

    Args:
        source: The original.
        folder: As in `write_original`.
        taught: The taught weights, by the names that the embedder's own code gives them.
        trust_remote_code: Whether that code comes from its folder.
        finish: As in `write_original`.
        write_card: Likewise.

    Raises:
        ExportError: A taught value has no proven place in the files, or does not arrive when they are loaded.
        CheckpointError: A file of the original is missing or damaged.
    """

    def write_weights(staging: Path) -> Changes:
        before, stored = _load(source, trust_remote_code), stored_values(staging)
        places = places_of(stored, before)
        elsewhere = _unplaced(before, taught, set(places.values()))
        if elsewhere:
            _check_drawn(elsewhere, before, _load(source, trust_remote_code))
        files = sorted({place.file for place in stored})
        changes = [(file.rpartition("/")[0], _write(staging, file, places, before, taught)) for file in files]
        del before
        _check_arrival(_load(staging, trust_remote_code), taught, elsewhere)
        return changes

    check_apart(source.resolve(), Path(folder).resolve())
    return write_form(source.resolve(), folder, write_weights, finish=finish, write_card=write_card)


def _load(folder: Path, trust_remote_code: bool) -> State:
    """The weights of a folder's model, as its own code loads them, in `WHOLE`."""
    oracle = load_oracle(
        open_source(str(folder)), dtype=WHOLE, device="cpu", trust_remote_code=trust_remote_code, image_first=True
    )
    state: State = oracle.model.to(WHOLE).state_dict()
    return state


def _unplaced(before: State, taught: State, placed: set[str]) -> set[str]:
    """The names of values that are other ones now, and that no tensor in the files stands for.

    Raises:
        ExportError: The model has other names or shapes than the original.
    """
    tied = {before[name].data_ptr() for name in placed}
    for name in [*before, *taught]:
        shapes = [tuple(state[name].shape) if name in state else "nothing" for state in (before, taught)]
        if shapes[0] != shapes[1]:
            raise ExportError(
                f"the original's form has no place for what was taught: {name} is {shapes[0]} there, {shapes[1]} now."
            )
    changed = {name for name, value in taught.items() if not is_same(value.cpu(), before[name])}
    return {name for name in changed if before[name].data_ptr() not in tied}


def _check_drawn(names: set[str], before: State, again: State) -> None:
    """Raises unless values are drawn anew by each load, as of a pooler that the files lack; no vector depends on such.

    Raises:
        ExportError: One is the same in both loads, so it was taught.
    """
    taught = sorted(name for name in names if is_same(again[name], before[name]))
    if taught:
        raise ExportError(
            f"{taught[0]} was taught, and it is not certain which tensor of the original stands for it, so it cannot "
            "be given back in the original's form."
        )


def _write(staging: Path, file: str, places: Mapping[Place, str], before: State, taught: State) -> TensorChanges:
    """Writes what was taught into a copy of one of the original's files."""
    stored, changes = StoredTensors(staging, [staging / file]), TensorChanges()
    for key in stored.files:
        name = places.get(Place(file, key))
        value = None if name is None else taught[name].detach().cpu()
        if name is None or value is None or is_same(value, before[name]) or is_same(value, stored.read(key)):
            changes.unchanged.append(key)
            continue
        stored.write(key, value)
        changes.changed.append(key)
    return changes


def _check_arrival(arrived: State, taught: State, drawn: set[str]) -> None:
    """Raises where what comes out of the files again is not what was taught, rounded as they are."""
    for name in taught.keys() - drawn:
        value, here = taught[name].detach().cpu(), arrived[name]
        rounded = value.is_floating_point() and any(
            torch.equal(here, value.to(dtype).to(here.dtype)) for dtype in (WHOLE, torch.bfloat16, torch.float16)
        )
        if not rounded and not is_same(value, here):
            raise ExportError(
                f"{name} was taught, and its value does not come out of the files again, so it cannot be given back in "
                "the original's form."
            )
