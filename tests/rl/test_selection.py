"""The groups that are kept, by hand."""

import numpy as np
import pytest

from m2io_jax.rl.selection import most_signal

# spread of each row: 0, 0.5, 0.25, 0.5
REWARDS = np.array([[1, 1], [0, 1], [0.5, 1], [1, 0]], np.float32)


def test_the_largest_spread_stays_in_the_order_of_the_batch():
    assert most_signal(REWARDS, 2).tolist() == [1, 3]
    assert most_signal(REWARDS, 3).tolist() == [1, 2, 3]
    assert most_signal(REWARDS, 4).tolist() == [0, 1, 2, 3]


def test_equal_spreads_are_taken_from_the_front():
    assert most_signal(np.ones((4, 3), np.float32), 2).tolist() == [0, 1]


def test_what_was_not_scored_says_nothing():
    rewards = np.array([[np.nan, 1, 1], [np.nan] * 3, [0, np.nan, 0.5], [np.nan, np.nan, 9]], np.float32)
    assert most_signal(rewards, 1).tolist() == [2] and most_signal(rewards, 2).tolist() == [0, 2]


def test_every_shard_keeps_rows_of_its_own():
    assert most_signal(REWARDS, 2, shards=2).tolist() == [1, 1]
    assert most_signal(REWARDS[[0, 2, 1, 3]], 2, shards=2).tolist() == [1, 0]


@pytest.mark.parametrize("keep, shards", [(3, 2), (3, 3)])
def test_what_cannot_be_shared_out_is_refused(keep, shards):
    with pytest.raises(ValueError, match="evenly"):
        most_signal(REWARDS, keep, shards)
