import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2io_jax.rl.losses import importance_ratio, importance_weights

RATIOS = jnp.array([0.1, 0.5, 0.9, 1.0, 1.9, 2.1, 5.0, 5.1, 400.0])
BOUNDS = dict(low=0.5, high=5.0)


def test_truncated_and_masked_by_hand():
    truncated = importance_weights(RATIOS, "truncate", **BOUNDS)
    np.testing.assert_array_equal(truncated, jnp.array([0.1, 0.5, 0.9, 1.0, 1.9, 2.1, 5.0, 5.0, 5.0]))
    masked = importance_weights(RATIOS, "mask", **BOUNDS)
    np.testing.assert_array_equal(masked, jnp.array([0, 0.5, 0.9, 1.0, 1.9, 2.1, 5.0, 0, 0]))
    with pytest.raises(ValueError, match="'clip'"):
        importance_weights(RATIOS, "clip", **BOUNDS)


def test_the_ratio_is_the_trainers_over_the_samplers_and_has_no_gradient():
    own, rollout = jnp.log(jnp.array([0.2, 0.3])), jnp.log(jnp.array([0.1, 0.6]))
    np.testing.assert_allclose(importance_ratio(own, rollout), [2.0, 0.5], rtol=1e-6)
    assert not jax.grad(lambda x: importance_ratio(x, rollout).sum())(own).any()
    assert np.isfinite(importance_ratio(jnp.array([0.0]), jnp.array([-1e4]))).all()


def test_wide_weights_turn_the_samplers_expectation_into_the_trainers():
    generator = np.random.default_rng(0)
    ours, theirs = (jax.nn.log_softmax(jnp.asarray(generator.normal(size=9))) for _ in range(2))
    values = jnp.asarray(generator.normal(size=9))
    for how in ("truncate", "mask"):
        weights = importance_weights(importance_ratio(ours, theirs), how, low=0.0, high=1e9)
        found = (jnp.exp(theirs) * weights * values).sum()
        np.testing.assert_allclose(found, (jnp.exp(ours) * values).sum(), rtol=1e-5)
