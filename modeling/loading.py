"""Loading without silence: every weight of a checkpoint lands, or an error lists those that did not."""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

NEEDS = ("torchvision", "timm", "num2words")
"""What models and processors of transformers want beyond its own requirements."""


class CheckpointError(ValueError):
    """A checkpoint does not fit the model: keys are missing, unexpected or of another shape."""


@contextmanager
def readable_files(source: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the errors of missing and broken weight files into a `CheckpointError` that names the checkpoint."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{os.fspath(source)!r} is incomplete: {error}. Copy or download it again.") from error
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise _broken(source, error) from error
    except RuntimeError as error:
        if "PytorchStreamReader" not in str(error):
            raise
        raise _broken(source, error) from error


def read_pickle(file: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The tensors of a `.bin` file, whose code is never run.

    Args:
        file: The file.
        device: Where the tensors go; `"meta"` reads only their names and shapes.

    Raises:
        CheckpointError: The file is damaged, or holds more than tensors.
    """
    with readable_files(file):
        try:
            content: dict[str, torch.Tensor] = torch.load(file, map_location=device, weights_only=True)
        except OSError as error:  # torch seeks before the beginning of short files
            raise _broken(file, error) from error
    return content


def _broken(source: str | os.PathLike[str], error: Exception) -> CheckpointError:
    reason = str(error).partition("\n")[0]
    return CheckpointError(f"{os.fspath(source)!r} has a broken file: {reason}. Copy or download it again.")


def check_loading(
    info: Any, source: str | os.PathLike[str] | None, ignorable: Iterable[str] = (), most: int = 8
) -> None:
    """Raises if a checkpoint did not land key by key.

    Args:
        info: What `from_pretrained(..., output_loading_info=True)` returned beside the model.
        source: What the error calls the checkpoint; `None` for weights in memory.
        ignorable: Endings of unexpected keys that are left behind on purpose.
        most: How many keys of each kind the error lists.

    Raises:
        CheckpointError: Keys are missing, unexpected or of another shape.
    """
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith(tuple(ignorable) or ("\0",))]
    shapes = [f"{key} {list(stored)} for {list(needed)}" for key, stored, needed in info["mismatched_keys"]]
    keys_of = {"missing": sorted(info["missing_keys"]), "unexpected": sorted(unexpected), "of another shape": shapes}
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:most])}{', ...' if len(keys) > most else ''})"
        for kind, keys in keys_of.items()
        if keys
    ]
    faults += map(str, info.get("error_msgs") or ())
    if faults:
        raise CheckpointError(
            f"{os.fspath(source or 'state_dict')!r} does not fit {info.get('model', 'the model')}: keys "
            f"{'; '.join(faults)}. Vectors from a model loaded like this would be wrong. Is it the right checkpoint, "
            "and complete?"
        )


def missing_packages() -> list[str]:
    """Those of `NEEDS` that are not installed."""
    return [package for package in NEEDS if importlib.util.find_spec(package) is None]


def needs_extra(error: Exception) -> str:
    """A sentence that names the extra to install for what failed without it."""
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return f"It may need {', '.join(missing_packages())}: pip install 'xvlm2vec[vision]' ({reason})."
