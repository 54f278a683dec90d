import numpy as np
import pytest

from m2io_jax.rl.advantages import group_advantages, zero_variance


def test_worked_by_hand():
    # mean 2, population variance (1 + 1 + 4 + 4) / 4 = 2.5
    rewards = np.array([[1.0, 3.0, 0.0, 4.0]], np.float32)
    np.testing.assert_array_equal(group_advantages(rewards, scale=False), [[-1, 1, -2, 2]])
    expected = np.array([[-1, 1, -2, 2]]) / np.sqrt(2.5)
    np.testing.assert_allclose(group_advantages(rewards, scale=True), expected, rtol=2e-6)


@pytest.mark.parametrize("scale", [True, False])
def test_groups_do_not_see_each_other_and_advantages_add_up_to_nothing(scale):
    rewards = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    together = np.asarray(group_advantages(rewards, scale=scale))
    for row in range(6):
        alone = group_advantages(rewards[row : row + 1], scale=scale)
        np.testing.assert_allclose(together[row], np.asarray(alone)[0], rtol=1e-6)
    np.testing.assert_allclose(together.sum(-1), 0, atol=1e-5)
    if scale:
        np.testing.assert_allclose(together.std(-1), 1, rtol=1e-4)
        moved = group_advantages(7 * rewards + 3, scale=True)
        np.testing.assert_allclose(moved, together, atol=2e-5)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("group", [1, 3, 7, 8])
def test_equal_rewards_give_exactly_nothing(scale, group):
    for reward in (0.0, 0.1, 0.7, 1 / 3, 1.0, -2.3):
        rewards = np.full((2, group), reward, np.float32)
        assert not np.asarray(group_advantages(rewards, scale=scale)).any()
        assert np.asarray(zero_variance(rewards)).all()


def test_zero_variance_names_the_groups():
    rewards = np.array([[0.5, 0.5], [0.5, 0.6], [0.0, 0.0]], np.float32)
    assert np.asarray(zero_variance(rewards)).tolist() == [True, False, True]


@pytest.mark.parametrize("scale", [True, False])
def test_completions_that_were_not_scored_have_no_part_in_their_group(scale):
    nan, random = np.nan, np.random.default_rng(1)
    rewards = np.array([[1.0, nan, 3.0, 0.0, 4.0], [nan] * 5, [nan, 2.0, nan, nan, nan], [1, 1, nan, 1, 1]], np.float32)
    found = np.asarray(group_advantages(rewards, scale=scale))
    alone = np.asarray(group_advantages(rewards[:1, [0, 2, 3, 4]], scale=scale))
    np.testing.assert_allclose(found[0, [0, 2, 3, 4]], alone[0], rtol=1e-6)
    assert found[0, 1] == 0 and not found[1:].any()
    assert np.asarray(zero_variance(rewards)).tolist() == [False, True, True, True]
    for _ in range(50):
        rewards = random.integers(0, 3, (1, 6)).astype(np.float32)
        kept = random.random(6) < 0.6
        among = np.asarray(group_advantages(np.where(kept, rewards, nan), scale=scale))
        assert not among[0, ~kept].any()
        if kept.any():
            expected = group_advantages(rewards[:, kept], scale=scale)
            np.testing.assert_allclose(among[:, kept], expected, rtol=1e-5, atol=1e-6)
