"""Loading without silence: every weight of a checkpoint lands, or an error lists those that did not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError


class CheckpointError(ValueError):
    """A checkpoint does not fit the model: keys are missing, unexpected or of another shape."""


@contextmanager
def readable_files(source: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the errors of missing and broken weight files into a `CheckpointError` that names the checkpoint."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{os.fspath(source)!r} is incomplete: {error}. Copy or download it again.") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{os.fspath(source)!r} has a broken file: {error}. Copy or download it again."
        ) from error


def check_loading(info: Any, source: str | os.PathLike[str], ignorable: Iterable[str] = (), most: int = 8) -> None:
    """Raises if a checkpoint did not land key by key.

    Args:
        info: What `from_pretrained(..., output_loading_info=True)` returned beside the model.
        source: What the error calls the checkpoint.
        ignorable: Endings of unexpected keys that are left behind on purpose.
        most: How many keys of each kind the error lists.

    Raises:
        CheckpointError: Keys are missing, unexpected or of another shape.
    """
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith(tuple(ignorable) or ("\0",))]
    found = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(unexpected),
        "of another shape": sorted(str(key) for key in info["mismatched_keys"]),
    }
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:most])}{', ...' if len(keys) > most else ''})"
        for kind, keys in found.items()
        if keys
    ]
    if faults:
        raise CheckpointError(
            f"{os.fspath(source)!r} does not fit {info.get('model', 'the model')}: keys {'; '.join(faults)}. Vectors "
            "from a model loaded like this would be wrong. Is it the right checkpoint, and complete?"
        )
