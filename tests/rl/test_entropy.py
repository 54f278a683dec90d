import pytest

from m2io_jax.rl.entropy import adapted_coefficient

RULE = dict(target=0.2, delta=0.005, most=0.02)


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
    assert adapted_coefficient(coef, entropy, **RULE) == pytest.approx(expected, abs=1e-15)


def test_an_entropy_that_follows_the_bonus_is_held_at_the_target():
    coef, entropies = 0.0, []
    for _ in range(100):
        entropies.append(0.05 + 12 * coef)
        coef = adapted_coefficient(coef, entropies[-1], **RULE)
    assert max(abs(entropy - 0.2) for entropy in entropies[10:]) <= 12 * 0.005
