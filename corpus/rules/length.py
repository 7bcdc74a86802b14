"""Translations that are far too short or far too long for their language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .batch import Batch
from .rule import Finding, shown

# Characters of a translation for each one of English, in texts of the kind that captions are.
RATIOS = {
    "zh": 0.32, "yue": 0.32, "ja": 0.46, "ko": 0.5, "am": 0.7, "he": 0.82, "ar": 0.88, "th": 0.95, "lo": 0.95,
    "fa": 0.97, "ur": 1.0, "hi": 1.0, "bn": 1.0, "gu": 0.98, "mr": 1.0, "ne": 1.0, "pa": 1.0, "my": 1.15, "km": 1.1,
    "ta": 1.2, "ml": 1.2, "te": 1.05, "kn": 1.05, "de": 1.14, "fr": 1.17, "es": 1.12, "it": 1.12, "pt": 1.1,
    "nl": 1.1, "el": 1.14, "pl": 1.05, "hu": 1.07, "ru": 1.07, "cs": 0.98, "fi": 1.06, "tr": 1.02, "ca": 1.1,
}  # fmt: skip
USUAL_RATIO = 1.05
_SLACK = 12
"""Characters by which short texts may differ."""
_FACTOR = 2.4


def length_ratio(batch: Batch, ratios: Mapping[str, float] | None = None) -> Iterator[Finding]:
    """Translations whose length is more than 2.4 times, or less than that part of, what their source's promises.

    Args:
        batch: The rows.
        ratios: Characters of a translation for each one of English, by language; for others a table is used.
    """
    known = {**RATIOS, **(ratios or {})}
    ratio = np.array([known.get(code) or known.get(code.split("-")[0], USUAL_RATIO) for code in batch.codes])
    expected = batch.english.lengths * ratio
    factor = (batch.text.lengths + _SLACK) / (expected + _SLACK)
    for row in ((factor > _FACTOR) | (factor < 1 / _FACTOR)).nonzero()[0].tolist():
        found = f"{batch.text.lengths[row]} characters, about {expected[row]:.0f} are usual"
        yield Finding(row, f"{found}: {shown(batch.text.texts[row])}")
