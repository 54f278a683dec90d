"""Bootstrap intervals: coverage on data of a known mean, and the normal approximation for many values."""

import numpy as np
import pytest

from m2io_jax.evaluation.bootstrap import bootstrap_mean


def test_the_interval_agrees_with_the_normal_one_for_many_values():
    values = np.random.default_rng(0).normal(3, 2, 2000)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_about_nineteen_in_twenty_intervals_hold_the_mean():
    rng = np.random.default_rng(1)
    intervals = [bootstrap_mean(rng.exponential(1, 100), resamples=400, seed=i) for i in range(300)]
    share = np.mean([each.low <= 1 <= each.high for each in intervals])
    assert 0.89 <= share <= 0.98


def test_seed_level_and_edges():
    values = [0.0, 1.0, 1.0, 0.5]
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    narrow, wide = bootstrap_mean(values, level=0.5), bootstrap_mean(values, level=0.99)
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    one = bootstrap_mean([0.25])
    assert (one.mean, one.low, one.high) == (0.25, 0.25, 0.25)
    for bad in ([], [np.nan], [[1.0]]):
        with pytest.raises(ValueError):
            bootstrap_mean(bad)
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean(values, level=95)
