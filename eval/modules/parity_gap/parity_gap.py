"""How far each language lies below a reference language, usually English.

The mean score of the reference language minus that of the language. Negative values are languages ahead of it. Given
per language, with the widest and the mean gap.
"""

from typing import Any

import datasets
import evaluate
import numpy as np

from .metrics import parity_gap

_INPUTS = """
Args:
    predictions (list of float): a score per row, such as hit@1 (0 or 1, or between where ties are shared).
    references (list of str): the language of each row.
    reference_language (str): what the others are held against (default "en").

Returns:
    parity_gap: gap by language. widest: the largest gap. widest_language: where it is. mean: over the languages.

Examples:
    >>> parity_gap = evaluate.load("parity_gap")
    >>> parity_gap.compute(predictions=[1, 1, 1, 0], references=["en", "en", "de", "de"])
    {'parity_gap': {'de': 0.5}, 'widest': 0.5, 'widest_language': 'de', 'mean': 0.5}
"""


class ParityGap(evaluate.Metric):
    """Distance of every language to the reference language."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: list[float], references: list[str], reference_language: str = "en"
    ) -> dict[str, Any]:
        languages = np.asarray(references)
        values = np.asarray(predictions, dtype=np.float64)
        means = {code: float(values[languages == code].mean()) for code in dict.fromkeys(references)}
        if reference_language not in means or len(means) < 2:
            raise ValueError(
                f"need rows in {reference_language!r} and in another language; there are: {', '.join(sorted(means))}"
            )
        gaps = parity_gap(means, reference_language)
        widest = max(gaps, key=lambda code: gaps[code])
        return {
            "parity_gap": gaps,
            "widest": gaps[widest],
            "widest_language": widest,
            "mean": float(np.mean(list(gaps.values()))),
        }
