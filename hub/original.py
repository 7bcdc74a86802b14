"""Gives a taught embedder back in the form in which it came: its files, with the taught tensors and a card."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from xvlm2vec.common.files import write_text

from .original_files import copy_original
from .original_modules import TaughtHead, add_modules, inner_path, read_modules
from .original_tensors import TensorChanges, write_backbone, write_tensors
from .staging import MANIFEST, ExportError, staged_folder
from .stored_tensors import StoredTensors

CARD = "README.md"
_MOST_NAMES = 3
Changes = list[tuple[str, TensorChanges]]
"""What was written, by the folder in the original."""


@dataclass(frozen=True)
class OriginalDiff:
    """How a folder that was given back differs from the original. Files are named by their paths in the folder.

    Args:
        unchanged_files: The same bytes in both.
        changed_files: In both, with other bytes.
        added_files: Only in what was given back.
        left_out: Only in the original, and why.
        changed_tensors: Stored tensors with new values, by their folder and key, such as `"2_Dense/linear.weight"`.
        unchanged_tensors: Those with the same bytes, of the backbone and of taught heads.
        not_stored: Parameters of the backbone that the original's files do not hold, so that every load makes them
            anew. What is given back does not hold them either: no vector may depend on them.
    """

    unchanged_files: list[str]
    changed_files: list[str]
    added_files: list[str]
    left_out: dict[str, str]
    changed_tensors: list[str]
    unchanged_tensors: list[str]
    not_stored: list[str]

    def summary(self) -> list[str]:
        """Lines that tell people the difference."""
        total = len(self.changed_tensors) + len(self.unchanged_tensors)
        lines = [
            f"the same bytes: {len(self.unchanged_files)} files",
            f"changed: {_names(self.changed_files)}",
            f"taught: {len(self.changed_tensors)} of {total} stored tensors: {_names(self.changed_tensors)}",
            f"added: {_names(self.added_files)}",
            *(f"left out: {name}: {reason}" for name, reason in self.left_out.items()),
        ]
        if self.not_stored:
            lines.append(f"not stored by the original, and not here: {_names(self.not_stored)}")
        return lines


def write_original(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    backbone: PreTrainedModel,
    heads: Sequence[TaughtHead] = (),
    *,
    card_text: str | None = None,
    weights_folder: str | None = None,
    kind: str = "model",
    finish: Callable[[Path], object] | None = None,
    write_card: Callable[[Path, OriginalDiff], object] | None = None,
) -> OriginalDiff:
    """Writes an embedder's folder again, with taught weights under their old names, and everything else as it was.

    The folder appears whole or not at all, and only after its weights were loaded and compared with the taught ones.

    Args:
        source: The original: a folder in the layout of sentence-transformers or transformers, or a snapshot in the
            cache of the Hub's client. It is read, never changed.
        folder: Where to write: missing, empty, or an earlier export of this kind, which is replaced.
        backbone: The taught model, of the class and with the parameters that loading the original gives. Its class
            loads the original once more, so no other code runs than what is loaded already.
        heads: Taught or new modules behind it: new are those whose folder the original does not have.
        card_text: What `README.md` says; without it, the original's stays.
        weights_folder: Where in the original the backbone lies, if not where the first entry of `modules.json` says
            (a route of a `Router`).
        kind: What the export's manifest calls it.
        finish: Called with the folder before it takes its place, to prove it or to add to it; if it raises, nothing is
            written.
        write_card: Called at the end with the folder and the difference, to write `README.md`; instead of `card_text`.

    Raises:
        ExportError: The backbone still holds an adapter, a taught value has no proven place in the original's form, a
            link leads out of the original, or one of the folders lies in the other.
        CheckpointError: A file of the original is missing or damaged.
    """
    origin = Path(source).resolve()
    check_apart(origin, Path(folder).resolve())
    if not isinstance(backbone, PreTrainedModel):
        raise ExportError(f"a {type(backbone).__name__} is no model of transformers; merge its adapter first.")
    modules = read_modules(origin)
    place = inner_path(weights_folder) if weights_folder is not None else _backbone_folder(origin, modules)
    present = {head.folder for head in heads if (origin / inner_path(head.folder)).is_dir()}

    def write_weights(staging: Path) -> Changes:
        stored = StoredTensors(staging / place)
        changes = [(place, write_backbone(stored, origin / place, backbone))]
        for head in heads:
            if head.folder in present:
                changes.append((head.folder, write_tensors(StoredTensors(staging / head.folder), head.tensors)))
        add_modules(staging, modules, [head for head in heads if head.folder not in present])
        if card_text is not None:
            write_text(staging / CARD, card_text)
        return changes

    return write_form(origin, folder, write_weights, kind=kind, finish=finish, write_card=write_card)


def write_form(
    origin: Path,
    folder: str | os.PathLike[str],
    write_weights: Callable[[Path], Changes],
    *,
    kind: str = "model",
    finish: Callable[[Path], object] | None = None,
    write_card: Callable[[Path, OriginalDiff], object] | None = None,
) -> OriginalDiff:
    """Writes an embedder's folder again, its weights by a function; it appears whole or not at all.

    Args:
        origin: The original, apart from what is written (`check_apart`).
        folder: As in `write_original`, like the others.
        write_weights: Called with a copy of the original's files, to write taught values into it; says which.
        kind: What the export's manifest calls it.
        finish: As there.
        write_card: As there.
    """
    with staged_folder(folder, kind) as staging:
        left_out = copy_original(origin, staging)
        changes = write_weights(staging)
        if finish is not None:
            finish(staging)
        diff = _compare(origin, staging, left_out, changes, has_card=write_card is not None)
        if write_card is not None:
            write_card(staging, diff)
    return diff


def check_apart(origin: Path, target: Path) -> None:
    """Raises an `ExportError` where one of two folders, the original and what is to be written, lies in the other."""
    if not origin.is_dir():
        raise ExportError(f"there is no folder {origin}.")
    if origin.is_relative_to(target) or target.is_relative_to(origin):
        raise ExportError(f"{target} and the original, {origin}, lie in each other; name another folder.")


def _backbone_folder(origin: Path, modules: list[dict[str, str]]) -> str:
    place = modules[0]["path"] if modules else ""
    if not (origin / place / "config.json").is_file():
        raise ExportError(f"{place or 'the root'} of {origin} has no config.json; say where the backbone's files lie.")
    return place


def _compare(
    origin: Path,
    staging: Path,
    left_out: dict[str, str],
    changes: Changes,
    has_card: bool,
) -> OriginalDiff:
    """The difference, read from the two folders rather than told by who wrote them; a card is still to be written."""
    files = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
    if has_card and CARD not in files:
        files.append(CARD)
    both = [name for name in files if (origin / name).is_file()]
    same = {name for name in both if filecmp.cmp(origin / name, staging / name, shallow=False)}
    same -= {CARD} if has_card else set()

    def keys(which: str) -> list[str]:
        return [f"{place}/{key}" if place else key for place, change in changes for key in getattr(change, which)]

    return OriginalDiff(
        unchanged_files=sorted(same),
        changed_files=[name for name in both if name not in same],
        added_files=[*(name for name in files if name not in both), MANIFEST],
        left_out={name: reason for name, reason in left_out.items() if name not in files},
        changed_tensors=keys("changed"),
        unchanged_tensors=keys("unchanged"),
        not_stored=keys("not_stored"),
    )


def _names(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return (", ".join(names[:_MOST_NAMES]) or "nothing") + (f" and {more} more" if more > 0 else "")
