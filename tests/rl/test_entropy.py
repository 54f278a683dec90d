import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m2io_jax.rl.kl import adapt_entropy_coef, entropy_shaping_weights

RULE = dict(target=0.2, delta=0.005, high=0.02)


@pytest.mark.parametrize(
    "coef, entropy, expected",
    [
        (0.01, 0.1, 0.015),
        (0.01, 0.3, 0.005),
        (0.01, 0.2, 0.01),
        (0.0, 0.3, 0.0),
        (0.02, 0.1, 0.02),
        (0.018, 0.0, 0.02),
    ],
)
def test_one_step_by_hand(coef, entropy, expected):
    assert adapt_entropy_coef(coef, entropy, **RULE) == pytest.approx(expected, abs=1e-15)


def test_an_entropy_that_follows_the_bonus_is_held_at_the_target():
    coef, entropies = 0.0, []
    for _ in range(100):
        entropies.append(0.05 + 12 * coef)
        coef = adapt_entropy_coef(coef, entropies[-1], **RULE)
    assert max(abs(entropy - 0.2) for entropy in entropies[10:]) <= 12 * 0.005


def test_advantages_grow_with_entropy_up_to_a_share_of_their_size():
    advantages, entropy = jnp.array([2.0, -2.0, 0.0]), jnp.array([[0.5, 5.0]] * 3)
    weights = np.asarray(entropy_shaping_weights(advantages, entropy, weight=0.4, bound=2.0))
    # 0.4 * 0.5 = 0.2 and at most 2/2 = 1 are added; to nothing, nothing
    np.testing.assert_allclose(weights * np.array([2.0, -2.0, 0.0])[:, None], [[2.2, 3], [-1.8, -1], [0, 0]], rtol=1e-6)
    assert (weights > 0).all() and weights[2].tolist() == [1, 1]
    slope = jax.grad(lambda given: entropy_shaping_weights(advantages, given, weight=0.4, bound=2.0).sum())(entropy)
    assert not np.asarray(slope).any()
