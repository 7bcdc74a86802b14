"""Stops a training whose loss or gradient is no number, before the weights take it, and keeps the batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from xvlm2vec.common.files import write_json

from .collators import ParallelBatch

ROWS_FILE = "rows.json"


class NonFiniteLossError(RuntimeError):
    """The loss is a NaN or infinite; the message names the folder with the batch."""


def stop_at(folder: str | Path, step: int, what: str, batches: Sequence[ParallelBatch]) -> NonFiniteLossError:
    """Saves the batches of a step that went wrong and makes the error that stops the training.

    Args:
        folder: Folder of the run; the batches go into `bad-batch-<step>` below it.
        step: The step that was not taken.
        what: What is no number.
        batches: All batches of this process that may be the cause.
    """
    place = Path(folder) / f"bad-batch-{step}"
    try:
        save_batches(place, batches)
        saved = f"Its rows are in {place / ROWS_FILE}, the tensors beside it"
    except OSError as error:  # on a full disk the message matters more than the file
        saved = f"Its rows could not be saved ({error})"
    names = [name for batch in batches for name in batch.ids]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return NonFiniteLossError(
        f"{what} in step {step} (rows {shown}); the weights are as they were before. {saved}. Look for empty or "
        "broken rows there; if there are none, lower the learning rate, or train in float32. The same command goes on "
        "from the newest checkpoint."
    )


def save_batches(folder: Path, batches: Sequence[ParallelBatch]) -> None:
    """Writes the rows of batches as JSON, and what the model was given as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for number, batch in enumerate(batches):
        tensors |= {f"batch{number}.{name}": value for name, value in _tensors(batch).items()}
    save_file(tensors, folder / "inputs.safetensors")
    rows = [row for batch in batches for row in _rows(batch)]
    write_json(folder / ROWS_FILE, rows)


def _rows(batch: ParallelBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"id": name, "image": digest is not None, "text_en": text, "translations": []}
        for name, digest, text in zip(batch.ids, batch.digests, batch.texts, strict=True)
    ]
    for row, language, text in zip(batch.row_of_pair.tolist(), batch.languages, batch.translations, strict=True):
        rows[row]["translations"].append({"lang": language, "text": text})
    return rows


def _tensors(batch: ParallelBatch) -> dict[str, torch.Tensor]:
    named: dict[str, torch.Tensor] = {}
    for kind in ("english", "translated", "images_only", "translations_only"):
        named |= {f"{kind}.{name}": value for name, value in (getattr(batch, kind) or {}).items()}
    for number, group in enumerate(batch.groups or ()):
        named |= {f"row{number}.{name}": value for name, value in group.images.items()}
        named[f"row{number}.prefix"] = torch.tensor(group.prefix, dtype=torch.long)
        named |= {f"row{number}.text{i}": torch.tensor(ids, dtype=torch.long) for i, ids in enumerate(group.texts)}
    return {name: value.detach().cpu().contiguous().clone() for name, value in named.items()}
