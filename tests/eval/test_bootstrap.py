from __future__ import annotations

import itertools

import numpy as np
import pytest

from xvlm2vec.eval.bootstrap import bootstrap_ci, paired_test


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        low, high = bootstrap_ci(generator.random(150) < 0.3, samples=400, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 300 <= 0.985


def test_width_is_that_of_the_normal_approximation() -> None:
    values = np.tile([0.0, 1.0], 500)
    low, high = bootstrap_ci(values, samples=4000)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(1000), rel=0.06)


def test_seeded_and_blocks_fit_together() -> None:
    values = np.random.default_rng(1).random(9000)
    assert bootstrap_ci(values, seed=3) == bootstrap_ci(values, seed=3) != bootstrap_ci(values, seed=4)


def test_constant_values_have_no_width() -> None:
    assert bootstrap_ci(np.ones(7)) == (1.0, 1.0)
    assert bootstrap_ci(np.ones(1)) == (1.0, 1.0)


def test_paired_p_value_is_that_of_all_sign_flips() -> None:
    first, second = np.zeros(8), np.array([1, 1, 1, 1, 1, 0, -1, 0.5])
    sums = [abs(np.dot(signs, second)) for signs in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(np.array(sums) >= abs(second.sum()) - 1e-9)
    test = paired_test(first, second, samples=20_000)
    assert test.p_value == pytest.approx(exact, abs=0.012)
    assert test.difference == pytest.approx(second.mean())
    assert test.low < test.difference < test.high


def test_equal_models_do_not_differ() -> None:
    values = np.random.default_rng(0).random(20)
    test = paired_test(values, values)
    assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        bootstrap_ci(np.zeros(0))
    with pytest.raises(ValueError, match="same rows"):
        paired_test(np.zeros(3), np.zeros(4))
