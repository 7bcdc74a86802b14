"""Confidence intervals and paired significance from per-row values, by resampling rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from .metrics import row_blocks

_BLOCK = 1 << 22  # values of one block of resamplings or sign flips: 32 MB of float64

FloatArray = npt.NDArray[np.floating]


class PairedTest(NamedTuple):
    """Comparison of two models on the same rows.

    Attributes:
        difference: Mean of the second minus mean of the first.
        low: Lower end of the percentile bootstrap interval of the difference.
        high: Its upper end.
        p_value: Two-sided, from random exchanges of the two models' values within rows.
        n: Number of rows.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def bootstrap_ci(
    values: FloatArray, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over rows (Efron and Tibshirani, 1993).

    Raises:
        ValueError: There are no rows.
    """
    array = _rows(values)
    if len(array) == 1:
        return float(array[0]), float(array[0])
    interval = bootstrap(
        (array,), np.mean, n_resamples=samples, batch=max(1, _BLOCK // len(array)), vectorized=True,
        confidence_level=confidence, method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def paired_test(
    first: FloatArray, second: FloatArray, samples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> PairedTest:
    """Is the second model better than the first on the same rows?

    The interval is a bootstrap over rows. The p value is that of the sign-flip permutation test on the differences; the
    observed signs count as one of the permutations, so it is never 0.

    Raises:
        ValueError: The two models were not scored on the same number of rows, or on none.
    """
    first, second = _rows(first), _rows(second)
    if len(first) != len(second):
        raise ValueError(f"a paired test needs the same rows of both models, got {len(first)} and {len(second)}")
    differences = second - first
    low, high = bootstrap_ci(differences, samples, confidence, seed)
    return PairedTest(
        float(differences.mean()), low, high, _sign_flip_p_value(differences, samples, seed + 1), len(differences)
    )


def _sign_flip_p_value(differences: FloatArray, samples: int, seed: int) -> float:
    changed = differences[differences != 0]  # rows without a difference add nothing under either sign
    observed = abs(changed.sum())
    generator = np.random.default_rng(seed)
    as_far = 0
    for block in row_blocks(samples, len(changed), _BLOCK):
        signs = generator.integers(0, 2, size=(block.stop - block.start, len(changed)), dtype=np.int8) * 2 - 1
        as_far += int(np.count_nonzero(np.abs(signs @ changed) >= observed - 1e-9))
    return (as_far + 1) / (samples + 1)


def _rows(values: FloatArray) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"need one value for each of at least one row, got shape {array.shape}")
    return array
