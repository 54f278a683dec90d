"""Differences between arms, worked out by hand, and what is concluded from them."""

import numpy as np
import pytest

from m2io_jax.reproduce.compare import HOLDS, REVERSED, UNDECIDED, difference

NAN = np.nan


def test_pairs_are_made_by_episode_and_by_seed():
    better = np.array([[1.0, 1.0, 0.0, NAN], [1.0, 0.0, 0.0, 1.0]])
    than = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, NAN]])
    found = difference(better, than)
    assert found.by_seed == pytest.approx((100 / 3, 0.0))  # of three pairs each
    # by episode: (1 + 1) / 2, (0 - 1) / 2, 0; the last has no pair
    assert found.mean == pytest.approx(100 * (1 - 0.5 + 0) / 3)
    assert -50 <= found.low <= found.mean <= found.high <= 100


def test_an_arm_made_once_stands_against_every_seed():
    better, once = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0, 1.0]])
    assert difference(better, once).by_seed == (50.0, 0.0)
    assert difference(once, better).by_seed == (-50.0, 0.0)


def test_pairing_takes_the_episodes_difficulty_out():
    random = np.random.default_rng(0)
    hard = random.random((1, 400)) < 0.5
    than = hard.astype(float)
    better = than.copy()
    better[0, np.flatnonzero(than[0] == 0)[:12]] = 1.0  # never worse, better on 3%
    found = difference(better, than)
    assert found.mean == pytest.approx(3.0) and found.verdict == HOLDS  # unpaired, the interval would be 14 wide


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [((0.9, 0.8), HOLDS), ((0.1, 0.2), REVERSED), ((0.9, 0.45), UNDECIDED), ((0.52, 0.52), UNDECIDED)],
)
def test_interval_and_every_seed_must_say_the_same(shares, verdict):
    """Of 200 episodes such shares are won, the others lost. The third's interval is above 0, but one seed is not."""
    rows = np.array([np.arange(200) < share * 200 for share in shares], float)
    found = difference(rows, 1 - rows)
    assert found.verdict == verdict
    assert found.by_seed == pytest.approx([100 * (2 * share - 1) for share in shares])


def test_seeds_without_a_pair_are_refused():
    with pytest.raises(ValueError):
        difference(np.array([[1.0, 0.0], [NAN, NAN]]), np.zeros((2, 2)))
