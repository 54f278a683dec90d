from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from m2io_jax.rl.advantages import (
    ADVANTAGES,
    batch_std_advantages,
    group_advantages,
    has_equal_rewards,
    leave_one_out_advantages,
    no_baseline,
    reinforce_baseline_advantages,
)


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
        assert np.asarray(has_equal_rewards(rewards)).all()


def test_zero_variance_names_the_groups():
    rewards = np.array([[0.5, 0.5], [0.5, 0.6], [0.0, 0.0]], np.float32)
    assert np.asarray(has_equal_rewards(rewards)).tolist() == [True, False, True]


@pytest.mark.parametrize("scale", [True, False])
def test_completions_that_were_not_scored_have_no_part_in_their_group(scale):
    nan, random = np.nan, np.random.default_rng(1)
    rewards = np.array([[1.0, nan, 3.0, 0.0, 4.0], [nan] * 5, [nan, 2.0, nan, nan, nan], [1, 1, nan, 1, 1]], np.float32)
    found = np.asarray(group_advantages(rewards, scale=scale))
    alone = np.asarray(group_advantages(rewards[:1, [0, 2, 3, 4]], scale=scale))
    np.testing.assert_allclose(found[0, [0, 2, 3, 4]], alone[0], rtol=1e-6)
    assert found[0, 1] == 0 and not found[1:].any()
    assert np.asarray(has_equal_rewards(rewards)).tolist() == [False, True, True, True]
    for _ in range(50):
        rewards = random.integers(0, 3, (1, 6)).astype(np.float32)
        kept = random.random(6) < 0.6
        among = np.asarray(group_advantages(np.where(kept, rewards, nan), scale=scale))
        assert not among[0, ~kept].any()
        if kept.any():
            expected = group_advantages(rewards[:, kept], scale=scale)
            np.testing.assert_allclose(among[:, kept], expected, rtol=1e-5, atol=1e-6)


def test_the_other_estimators_by_hand():
    # group means 2 and 4; differences [-2, 2] and [-1, 1]
    rewards = np.array([[0.0, 4.0], [3.0, 5.0]], np.float32)
    close = partial(np.testing.assert_allclose, rtol=2e-6)
    close(leave_one_out_advantages(rewards), [[0 - 4, 4 - 0], [3 - 5, 5 - 3]])
    # all rewards: mean 3, variance (9 + 1 + 0 + 4) / 4; all differences: mean 0, variance (4 + 4 + 1 + 1) / 4
    close(batch_std_advantages(rewards), np.array([[-2, 2], [-1, 1]]) / np.sqrt(14 / 4))
    close(reinforce_baseline_advantages(rewards), np.array([[-2, 2], [-1, 1]]) / np.sqrt(10 / 4))
    np.testing.assert_array_equal(no_baseline(rewards), rewards)


@pytest.mark.parametrize("name", [name for name in ADVANTAGES if name != "none"])
def test_against_sums_in_float64_with_a_dead_group(name):
    rewards = np.random.default_rng(1).random((5, 4)).astype(np.float32)
    rewards[2] = 0.7
    exact = rewards.astype(np.float64)
    expected = np.zeros_like(exact)
    for row, group in enumerate(exact):
        for i, reward in enumerate(group):
            others = np.delete(group, i)
            baseline = {"leave_one_out": others.mean(), "batch": exact.mean()}.get(name, group.mean())
            expected[row, i] = reward - baseline
    scales = {
        "group": exact.std(1, keepdims=True) + 1e-6,
        "batch_std": exact.std() + 1e-6,
        "batch": exact.std() + 1e-6,
        "reinforce_baseline": expected.std() + 1e-6,
    }
    expected = expected / scales.get(name, 1.0)
    found = np.asarray(ADVANTAGES[name](rewards))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    assert name == "batch" or not found[2].any()
    assert not np.asarray(ADVANTAGES[name](np.full((3, 7), 0.1, np.float32))).any()


@pytest.mark.parametrize("name", ADVANTAGES)
def test_under_jit_on_eight_devices_the_batch_is_all_of_them(name):
    rewards = np.random.default_rng(2).random((16, 4)).astype(np.float32) * np.arange(1, 17)[:, None]
    rows = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))
    spread = jax.jit(ADVANTAGES[name], out_shardings=rows)(jax.device_put(rewards, rows))
    np.testing.assert_allclose(spread, ADVANTAGES[name](rewards), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_what_was_not_scored_is_in_no_statistic_of_the_batch(name):
    rewards = np.random.default_rng(3).random((6, 4)).astype(np.float32)
    rewards[0, 1] = rewards[2, 0] = rewards[2, 3] = np.nan
    rewards[4] = np.nan
    exact = rewards.astype(np.float64)
    scored = ~np.isnan(exact)
    expected = np.zeros_like(exact)
    for row, group in enumerate(exact):
        for i in np.flatnonzero(scored[row]):
            others = group[scored[row]] if name != "leave_one_out" else np.delete(group, i)[np.delete(scored[row], i)]
            expected[row, i] = group[i] - {"none": 0, "batch": exact[scored].mean()}.get(name, others.mean())
    whole = exact[scored].std()
    spread = {"batch_std": whole, "batch": whole, "reinforce_baseline": expected[scored].std()}
    if name == "group":
        expected[scored.any(1)] /= np.nanstd(exact[scored.any(1)], axis=1, keepdims=True)
    found = np.asarray(ADVANTAGES[name](rewards))
    np.testing.assert_allclose(found, expected / spread.get(name, 1.0), rtol=1e-4, atol=1e-5)
