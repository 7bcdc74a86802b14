"""What a training wrote down beside its model, as cards tell it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xvlm2vec.hub.card import LossNote

EMISSIONS_FILE = "emissions.csv"
_FIELDS = {"loss": dict, "settings": dict, "versions": dict, "start": str}


def measured_emissions(folder: Path) -> dict[str, Any]:
    """What CodeCarbon measured in a training (`--report-to codecarbon`), as a card tells it; empty without it."""
    paths = [path for path in (folder / EMISSIONS_FILE, folder / "checkpoints" / EMISSIONS_FILE) if path.is_file()]
    if not paths:
        return {}
    with paths[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        grams = 1000 * sum(float(row["emissions"]) for row in rows)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{paths[0]} is no emissions file of CodeCarbon ({error}); remove it.") from error
    last = rows[-1] if rows else {}
    hardware = ", ".join(last[name] for name in ("gpu_model", "cpu_model") if last.get(name))
    place = last.get("country_name", "")
    return {
        "emissions": round(grams, 3),
        "source": "codecarbon",
        **({"hardware_used": hardware} if hardware else {}),
        **({"geographical_location": place} if place else {}),
    }


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
    for name, kind in _FIELDS.items():
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
