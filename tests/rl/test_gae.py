"""Advantages of tokens against the papers' sums in float64, token by token; by hand; and by what must hold."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from paper_sums import slopes

from m2io_jax.rl.advantages import explained_variance, generalized_advantages, token_rewards, whiten
from m2io_jax.rl.ppo import value_loss

ROWS, GROUP, TIME = 4, 3, 7
close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def ragged(seed=0):
    """Rewards of completions, KL and values of tokens, mask; lengths from 0 to all, and NaN wherever no token is."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, TIME + 1, (ROWS, GROUP))
    lengths[0, 0], lengths[1, 1] = 0, TIME
    mask = np.arange(TIME) < lengths[..., None]
    kl, values = (np.where(mask, random.normal(size=mask.shape), np.nan) for _ in range(2))
    rewards = random.normal(size=(ROWS, GROUP))
    rewards[0, 0] = np.nan
    return rewards, kl, values, mask


def sums(rewards, kl, values, mask, beta, gamma, lam):
    """Equation 16, each advantage a sum of its own."""
    advantages = np.zeros(mask.shape)
    for where in np.ndindex(rewards.shape):
        length = int(mask[where].sum())
        earned = [-beta * kl[where][t] + (rewards[where] if t == length - 1 else 0.0) for t in range(length)]
        expected = [*values[where][:length], 0.0]
        errors = [earned[t] + gamma * expected[t + 1] - expected[t] for t in range(length)]
        for t in range(length):
            advantages[where][t] = sum((gamma * lam) ** (later - t) * errors[later] for later in range(t, length))
    return advantages


@pytest.mark.parametrize("gamma, lam", [(1.0, 1.0), (0.9, 0.8), (1.0, 0.0), (0.5, 1.0), (0.0, 0.7)])
def test_equal_the_papers_sums_on_ragged_completions(gamma, lam):
    for seed in range(3):
        rewards, kl, values, mask = ragged(seed)
        earned = token_rewards(rewards, kl, mask, kl_coef=0.3)
        found, returns = generalized_advantages(earned, values, mask, discount=gamma, gae_lambda=lam)
        expected = sums(rewards, kl, values, mask, 0.3, gamma, lam)
        close(found, expected)
        close(returns, np.where(mask, expected + values, 0))
        assert np.abs(expected[mask]).min() > 1e-3


def test_by_hand():
    mask = np.array([[True, True, True, False]])
    # -0.5 * 2, -0.5 * -1, -0.5 * 4 + 3
    earned = token_rewards(np.array([3.0]), np.array([[2.0, -1.0, 4.0, 9.0]]), mask, kl_coef=0.5)
    close(earned, [[-1.0, 0.5, 1.0, 0.0]])
    # errors: -1 + 0.5 * 4 - 2 = -1; 0.5 + 0.5 * 6 - 4 = -0.5; 1 - 6 = -5
    # advantages: -5; -0.5 + 0.25 * -5 = -1.75; -1 + 0.25 * -1.75 = -1.4375
    found, returns = generalized_advantages(
        earned, np.array([[2.0, 4.0, 6.0, 8.0]]), mask, discount=0.5, gae_lambda=0.5
    )
    close(found, [[-1.4375, -1.75, -5.0, 0.0]])
    close(returns, [[0.5625, 2.25, 1.0, 0.0]])


def test_lambda_1_is_what_was_earned_less_the_value_and_lambda_0_the_error_of_one_step():
    rewards, kl, values, mask = ragged()
    earned = np.asarray(token_rewards(rewards, kl, mask, kl_coef=0.2))
    values = np.where(mask, values, 0)
    whole, returns = generalized_advantages(earned, values, mask, discount=1.0, gae_lambda=1.0)
    to_go = np.where(mask, np.cumsum(earned[..., ::-1], -1)[..., ::-1], 0)
    close(whole, to_go - values)
    close(returns, to_go)
    one, _ = generalized_advantages(earned, values, mask, discount=0.9, gae_lambda=0.0)
    close(one, np.where(mask, earned + 0.9 * np.append(values[..., 1:], np.zeros((ROWS, GROUP, 1)), -1) - values, 0))


def test_right_values_leave_no_advantage():
    rewards, kl, _, mask = ragged()
    earned = token_rewards(rewards, kl, mask, kl_coef=0.2)
    _, right = generalized_advantages(earned, np.zeros(mask.shape), mask, discount=0.9, gae_lambda=1.0)
    for lam in (0.0, 0.5, 1.0):
        found, returns = generalized_advantages(earned, right, mask, discount=0.9, gae_lambda=lam)
        close(found, 0)
        close(returns, right)


def test_whitened_over_all_tokens_of_the_batch():
    rewards, kl, values, mask = ragged()
    found = np.asarray(whiten(values, mask))
    close(found[mask], (values[mask] - values[mask].mean()) / (values[mask].std() + 1e-6))
    assert not found[~mask].any()
    assert not np.asarray(whiten(np.full((3, 7), 0.7, np.float32), np.ones((3, 7), bool))).any()
    assert not np.asarray(whiten(values, mask & False)).any()


def test_whitened_under_jit_on_eight_devices_the_batch_is_all_of_them():
    random = np.random.default_rng(2)
    advantages, mask = random.normal(size=(16, 2, 5)) * np.arange(1, 17)[:, None, None], random.random((16, 2, 5)) < 0.7
    rows = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))
    spread = jax.jit(whiten, out_shardings=rows)(*jax.device_put((advantages, mask), rows))
    close(spread, whiten(advantages, mask))


def errors_of(values, old, returns, mask, clip):
    total, clipped = 0.0, 0
    for where in np.argwhere(mask):
        v, o, r = (each[tuple(where)] for each in (values, old, returns))
        error, other = (v - r) ** 2, (min(max(v, o - clip), o + clip) - r) ** 2
        total, clipped = total + max(error, other) / 2, clipped + (other > error)
    return total, clipped


def test_the_value_loss_and_its_gradient_by_finite_differences():
    random, (_, old, values, mask) = np.random.default_rng(3), ragged(1)
    returns = np.where(mask, random.normal(size=mask.shape), np.nan)
    for clip in (0.2, 1.0, 1e9):
        total, tokens, metrics = value_loss(values, old, returns, mask, clip=clip)
        expected, clipped = errors_of(values, old, returns, mask, clip)
        close(total, expected)
        assert tokens == mask.sum() and metrics["val/clipfrac_avg"] == (clipped, mask.sum())
        assert (0 < clipped < mask.sum()) == (clip < 1e9)
        close(metrics["loss/value_avg"], (expected, mask.sum()))
        gradient = jax.grad(lambda v, clip=clip: value_loss(v, old, returns, mask, clip=clip)[0])(jnp.asarray(values))
        slope = slopes(lambda v, clip=clip: errors_of(v, old, returns, mask, clip)[0], np.where(mask, values, 0))
        np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-8)
        assert np.asarray(gradient)[mask].any() and (not np.asarray(gradient)[mask].all()) == (clip < 1e9)
    close(value_loss(values, old, returns, mask, clip=None)[0], errors_of(values, old, returns, mask, 1e9)[0])


def test_explained_variance():
    returns, mask = np.array([[1.0, 3.0, 5.0, np.nan]]), np.array([[True, True, True, False]])
    # variance of the returns 8/3; what is left of it: of [1, 1, 3] about 5/3, (4 + 4 + 16)/9/3 = 8/9
    close(explained_variance(np.array([[0.0, 2.0, 2.0, 9.0]]), returns, mask), 1 - 1 / 3)
    close(explained_variance(returns + 2, returns, mask), 1)
    close(explained_variance(np.ones((1, 4)), returns, mask), 0)
    assert explained_variance(-returns, returns, mask) < 0
    assert explained_variance(returns, np.ones((1, 4)), mask) == 0
    assert explained_variance(returns, returns, mask & False) == 0
