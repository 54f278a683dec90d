import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2io_jax.rl.kl import KL_ESTIMATORS, k1, k2, k3


@pytest.mark.parametrize("x", [-3.0, -0.5, -1e-4, 0.0, 1e-4, 0.5, 3.0])
def test_against_float64(x):
    policy, reference = np.float32(x - 1), np.float32(-1)
    x = np.float64(policy) - np.float64(reference)
    np.testing.assert_allclose(k1(policy, reference), x, rtol=1e-6)
    np.testing.assert_allclose(k2(policy, reference), x**2 / 2, rtol=1e-6)
    # Near 0 the value is x**2 / 2: what float32 can hold of x is the limit.
    np.testing.assert_allclose(k3(policy, reference), min(np.exp(-x) - 1 + x, 10), rtol=1e-5, atol=1e-11)


def test_one_absurd_token_cannot_outweigh_the_rest():
    far = jnp.array([-50.0, 50.0])
    assert k1(far, jnp.zeros(2)).tolist() == [-20, 20]
    assert k2(far, jnp.zeros(2)).tolist() == [200, 200]
    assert k3(far, jnp.zeros(2)).tolist() == [10, 10]
    gradient = jax.vmap(jax.grad(lambda x: k3(x, 0.0)))(jnp.array([-1000.0, -50.0, 0.0, 50.0, 1000.0]))
    assert gradient.tolist() == [0, 0, 0, 0, 0]


def test_one_absurd_token_has_no_gradient_in_the_corrected_forms_either():
    for name in ("k1+", "k3+"):
        gradient = jax.vmap(jax.grad(lambda x, name=name: KL_ESTIMATORS[name](x, 0.0)))(jnp.array([-50.0, 3.0, 50.0]))
        assert gradient.tolist() == [0, 3, 0]


def distributions():
    """Logits of a policy, log-probabilities of a reference; the divergence from the reference, and the reverse."""
    generator = np.random.default_rng(0)
    logits, reference = (jnp.asarray(generator.normal(size=9), jnp.float32) for _ in range(2))
    reference = jax.nn.log_softmax(reference)

    def divergence(logits):
        log_probs = jax.nn.log_softmax(logits)
        return (jnp.exp(log_probs) * (log_probs - reference)).sum()

    def reverse(logits):
        return (jnp.exp(reference) * (reference - jax.nn.log_softmax(logits))).sum()

    return logits, reference, divergence, reverse


@pytest.mark.parametrize("name", ["k1", "k3", "k1+", "k3+"])
def test_what_an_estimator_expects_is_the_divergence(name):
    logits, reference, divergence, _ = distributions()
    found = (jax.nn.softmax(logits) * KL_ESTIMATORS[name](jax.nn.log_softmax(logits), reference)).sum()
    np.testing.assert_allclose(found, divergence(logits), rtol=1e-5)


@pytest.mark.parametrize("name", KL_ESTIMATORS)
def test_what_the_gradient_of_an_estimator_expects(name):
    logits, reference, divergence, reverse = distributions()
    probabilities = jax.nn.softmax(logits)  # of what is sampled: no gradient flows through it
    found = jax.grad(lambda x: (probabilities * KL_ESTIMATORS[name](jax.nn.log_softmax(x), reference)).sum())(logits)
    right, other = jax.grad(divergence)(logits), jax.grad(reverse)(logits)
    expected = {"k1": jnp.zeros(9), "k3": other}.get(name, right)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(right).max() > 0.1 and np.abs(right - other).max() > 0.05
