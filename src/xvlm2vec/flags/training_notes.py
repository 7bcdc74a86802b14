"""What a training wrote down beside its model, as cards take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xvlm2vec.hub.card import LossNote

_NOTES = {"loss": dict, "settings": dict, "versions": dict, "start": str}


def training_notes(folder: Path) -> dict[str, Any]:
    """What the distillation wrote down beside its model; empty if there is nothing.

    Raises:
        ValueError: It is no JSON, or a field is of the wrong type.
    """
    from xvlm2vec.trainer.distillation import SUMMARY_FILE

    path = folder / SUMMARY_FILE
    try:
        notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}); repair it, or remove it to do without it.") from error
    wrong = _wrong_field(notes)
    if wrong:
        raise ValueError(f"{path}: {wrong}; repair it, or remove it to do without it.")
    return notes


def _wrong_field(notes: Any) -> str | None:
    """The first field of a training's notes that is not of its type."""
    if not isinstance(notes, dict):
        return f"a {type(notes).__name__} instead of fields"
    for name, kind in _NOTES.items():
        if name in notes and not isinstance(notes[name], kind):
            return f"{name} is a {type(notes[name]).__name__} instead of a {kind.__name__}"
    for name in ("name", "citation"):
        if "loss" in notes and not isinstance(notes["loss"].get(name), str):
            return f"loss.{name} is not there, or is no text"
    return None


def loss_notes(notes: dict[str, Any]) -> tuple[LossNote, ...]:
    """The loss of a training as a card names it."""
    from xvlm2vec.hub.card import LossNote

    loss = notes.get("loss")
    return (LossNote(loss["name"], loss["citation"]),) if loss else ()
