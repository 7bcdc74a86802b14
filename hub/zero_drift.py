"""Whether a model with activated adapters has the vectors of its base, bit for bit, wherever no language is told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xvlm2vec.modeling.language_adapters import languages_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .fresh_process import loader_job, run_job
from .golden import Golden, GoldenRow, draw_checked, draw_image, image_size, one_language_each, rows_for
from .loader_check import BASE, encode_in_all_ways

LOADER = "adapters"


@dataclass(frozen=True)
class ZeroDrift:
    """What was compared.

    Attributes:
        languages: Those that the adapters speak.
        rows: Number of fixed rows: texts, images, and both.
        moved: Names of those whose vector is not that of the base.
    """

    languages: Sequence[str]
    rows: int
    moved: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether the drift is zero."""
        return not self.moved

    def summary(self) -> str:
        """One sentence."""
        spoken = ", ".join(self.languages)
        if self.ok:
            return (
                f"Zero drift: with its adapters for {spoken} the model gives {self.rows} fixed rows of text, images "
                "and both the vectors of its base, bit for bit."
            )
        moved = ", ".join(self.moved)
        return f"The adapters for {spoken} move the vectors of {moved}: do not use them beside stored vectors."


def compare_with_base(model: XVLM2VecModel, base: XVLM2VecModel, processor: XVLM2VecProcessor) -> ZeroDrift:
    """Compares the vectors of the golden rows, alone and in one batch, and of images in rows of every language.

    Args:
        model: A base with adapters beside it.
        base: The same base, loaded by itself.
        processor: Its processor.
    """
    rows, languages = rows_for(processor), languages_of(model)
    spoken = list(one_language_each(model).values())
    mine = encode_in_all_ways(model, processor, _drawn(rows, processor), {code: code for code in spoken})
    return drift_between(mine, vectors_of_base(base, processor, rows, spoken), rows, languages)


def compare_released(
    folder: str | os.PathLike[str], golden: Golden, base: XVLM2VecModel, processor: XVLM2VecProcessor
) -> ZeroDrift:
    """As `compare_with_base`, of a release that is loaded by its own code in a fresh process without this package.

    Args:
        folder: The release, with adapters.
        golden: Its golden rows.
        base: The base as it was before the release, loaded here.
        processor: Its processor.

    Raises:
        LoadingFailed: The release does not load.
    """
    dtype = str(base.dtype).removeprefix("torch.")
    job = loader_job(golden, os.fspath(folder), LOADER, [dtype], base.device.type)
    found, _ = run_job(job, draw_checked(golden))
    expected = vectors_of_base(base, processor, golden.rows, golden.checked_languages)
    return drift_between(found[dtype], expected, golden.rows, sorted(golden.languages))


def drift_of_job(vectors: Mapping[str, torch.Tensor], golden: Golden) -> ZeroDrift:
    """The drift between a release and its base as one process loaded both."""
    base = {way.removeprefix(BASE): part for way, part in vectors.items() if way.startswith(BASE)}
    return drift_between(vectors, base, golden.rows, sorted(golden.languages))


def vectors_of_base(
    base: XVLM2VecModel, processor: XVLM2VecProcessor, rows: Sequence[GoldenRow], languages: Sequence[str]
) -> dict[str, torch.Tensor]:
    """What a model with adapters for languages must give where the base speaks."""
    vectors: dict[str, torch.Tensor] = encode_in_all_ways(
        base, processor, _drawn(rows, processor), dict.fromkeys(languages)
    )
    return vectors


def drift_between(
    mine: Mapping[str, torch.Tensor],
    base: Mapping[str, torch.Tensor],
    rows: Sequence[GoldenRow],
    languages: Sequence[str],
) -> ZeroDrift:
    """What differs in any bit, of vectors that were computed in the same ways."""
    shown = [row.name for row in rows if row.text is None]
    names = {way: [row.name for row in rows] for way in ("alone", "one batch")}
    names |= {way: [f"{name} in{way.removeprefix('images in')}" for name in shown] for way in base if way not in names}
    moved = {
        name
        for way, expected in base.items()
        for name, ours, theirs in zip(names[way], mine[way], expected, strict=True)
        if not np.array_equal(ours.float().cpu().numpy(), theirs.float().cpu().numpy())
    }
    return ZeroDrift(list(languages), len(rows), sorted(moved))


def _drawn(rows: Sequence[GoldenRow], processor: XVLM2VecProcessor) -> list[dict[str, Any]]:
    size = image_size(processor)
    # Each once: rows that show the same object are embedded together, and otherwise they would be rounded otherwise.
    images = {name: draw_image(name, size) for row in rows for name in row.images}
    return [{"text": row.text, "images": [images[name] for name in row.images]} for row in rows]
