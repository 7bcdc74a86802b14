"""What all losses share: settings and source for the model card, checks of shapes, and full precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class EmbeddingLoss(nn.Module):
    """A loss over vectors, called by keyword.

    Every loss takes the keywords that it needs and ignores the rest, so that one call can serve several of them.
    A missing keyword is Python's own `TypeError`, which names the loss and the keyword.
    """

    citation: str = ""
    """BibTeX of the source; empty where there is none."""

    mean_over_pairs: bool = False
    """Whether a batch may be cut and the values averaged by their numbers of pairs, because no pair meets another."""

    needs_images: bool = False
    """Whether it compares images with something, so that a corpus without any teaches it nothing."""

    stands_alone: bool = True
    """Whether it is enough to train on; one that is not goes into a sum with one that is."""

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the settings."""
        return {}

    def extra_repr(self) -> str:
        """The settings, as `print(loss)` shows them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())


def is_mean_over_pairs(loss: nn.Module) -> bool:
    """Whether a loss is a mean over pairs; one that does not say so is not."""
    return bool(getattr(loss, "mean_over_pairs", False))


def describe(loss: nn.Module) -> dict[str, Any]:
    """A loss's class name and settings."""
    settings = loss.get_config_dict() if isinstance(loss, EmbeddingLoss) else {}
    return {"name": type(loss).__name__, "settings": settings}


def join_citations(citations: Sequence[str]) -> str:
    """Several sources as one text, each once."""
    entries = [entry for citation in citations for entry in citation.split("\n\n") if entry]
    return "\n\n".join(dict.fromkeys(entries))


def check_vectors(loss: nn.Module, **vectors: torch.Tensor) -> None:
    """Checks that all vectors of a call have the same shape `(B, D)`.

    Args:
        loss: Whose name the error gives.
        **vectors: The tensors by keyword.

    Raises:
        ValueError: They differ, have no rows or are not two-dimensional.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in vectors.items()}
    first = next(iter(shapes.values()))
    if len(first) != 2 or 0 in first or any(shape != first for shape in shapes.values()):
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{type(loss).__name__} compares vectors (B, D) row by row; found {listed}.")


def check_row_labels(loss: nn.Module, name: str, count: int, rows: int) -> None:
    """Checks that there is one label for each of `rows` vectors.

    Raises:
        ValueError: There are more or fewer.
    """
    if count != rows:
        raise ValueError(f"{type(loss).__name__} needs one entry of {name} for each vector: {count} for {rows}.")


def full_precision(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or in float64 if that is what it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
