"""Whether a model with activated adapters has the vectors of its base, bit for bit, wherever no language is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xvlm2vec.modeling.language_adapters import languages_of
from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel
from xvlm2vec.modeling.processing_xvlm2vec import XVLM2VecProcessor

from .golden import golden_inputs, golden_vectors, image_size, rows_for


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
    size, rows = image_size(processor), rows_for(processor)
    texts, images = golden_inputs(size, rows)
    moved = set()
    alone = [golden_vectors(one, processor, size).numpy() for one in (model, base)]
    together = [one.encode(texts, images=images, processor=processor, show_progress=False) for one in (model, base)]
    for mine, theirs in (alone, together):
        moved |= {row.name for row, *pair in zip(rows, mine, theirs, strict=True) if not np.array_equal(*pair)}
    shown = [place for place, row in enumerate(rows) if row.text is None]
    for language in languages_of(model) if shown else ():
        pictured = [images[place] for place in shown]
        told = model.encode(images=pictured, language=language, processor=processor, show_progress=False)
        theirs = base.encode(images=pictured, processor=processor, show_progress=False)
        places = zip(shown, told, theirs, strict=True)
        moved |= {f"{rows[place].name} in {language}" for place, *pair in places if not np.array_equal(*pair)}
    return ZeroDrift(languages_of(model), len(rows), sorted(moved))
