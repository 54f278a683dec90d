"""The groups that are kept, by hand."""

import numpy as np
import pytest

from m2io_jax.rl.data.buffer import signal, strongest

# spread of each row: 0, 0.5, 0.25, 0.5
REWARDS = np.array([[1, 1], [0, 1], [0.5, 1], [1, 0]], np.float32)


def test_signal_is_the_spread_or_the_distance_from_a_baseline():
    assert signal(REWARDS).tolist() == [0, 0.5, 0.25, 0.5]
    assert signal(REWARDS, "none") == pytest.approx([1, 0.5**0.5, 0.625**0.5, 0.5**0.5])
    assert signal(np.full((1, 3), 0.1, np.float32)).tolist() == [0], "rounding of the mean is none"


def test_signal_is_of_the_advantages_that_are_asked_for():
    given = np.array([[1, 1], [0, 0], [0.5, 0.5]], np.float32)  # nothing differs within a group
    assert signal(given).tolist() == signal(given, "leave_one_out").tolist() == [0, 0, 0]
    assert signal(given, "batch").tolist() == [0.5, 0.5, 0]
    assert signal(given, "none").tolist() == [1, 0, 0.5]
    assert signal(np.full((2, 3), 0.1, np.float32), "batch").tolist() == [0, 0]


def test_the_largest_stay_in_the_order_of_the_batch():
    signals = signal(REWARDS)
    assert strongest(signals, 2).tolist() == [1, 3]
    assert strongest(signals, 3).tolist() == [1, 2, 3]
    assert strongest(signals, 9).tolist() == [0, 1, 2, 3]


def test_equal_ones_are_taken_from_the_front():
    assert strongest(np.ones(4), 2).tolist() == [0, 1]


def test_what_was_not_scored_says_nothing():
    rewards = np.array([[np.nan, 1, 1], [np.nan] * 3, [0, np.nan, 0.5], [np.nan, np.nan, 9]], np.float32)
    assert signal(rewards).tolist() == [0, 0, 0.25, 0]
    assert signal(rewards, "none")[[1, 3]].tolist() == [0, 9]
    assert signal(rewards[1:2], "batch").tolist() == [0]
