import pytest

from m2io_jax.rl.kl import kl_coefficient

# OThink-MR1's visual counting: from 0.07 down to 0.04 at w = 30 of t = 100 steps, then up to 0.10
COUNTING = {0: 0.07, 15: 0.055, 30: 0.04, 65: 0.07, 100: 0.10}
GEOMETRY = {0: 0.01, 15: 0.005, 30: 0.0, 65: 0.01, 100: 0.02}


@pytest.mark.parametrize("low, high, at", [(0.04, 0.10, COUNTING), (0.0, 0.02, GEOMETRY)])
def test_grpo_d_is_equation_3(low, high, at):
    for step, expected in at.items():
        weight = kl_coefficient("grpo_d", step / 100, low=low, high=high, turn=0.3)
        assert weight == pytest.approx(expected, abs=1e-12)


def test_grpo_d_falls_then_rises_and_does_not_jump():
    weights = [kl_coefficient("grpo_d", step / 1000, low=0.0, high=1.0, turn=0.3) for step in range(1001)]
    assert weights.index(min(weights)) == 300
    moves = [after - before for before, after in zip(weights, weights[1:], strict=False)]
    assert all(move == pytest.approx(-0.5 / 300) for move in moves[:300])
    assert all(move == pytest.approx(1 / 700) for move in moves[300:])


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_without_a_first_phase_it_is_linear_and_without_a_range_constant(progress):
    bounds = dict(low=0.2, high=0.6)
    rising = kl_coefficient("linear", progress, **bounds, turn=0.3)
    assert rising == pytest.approx({0.0: 0.2, 0.25: 0.3, 1.0: 0.6}[progress])
    assert kl_coefficient("grpo_d", progress, **bounds, turn=0.0) == pytest.approx(rising)
    assert kl_coefficient("constant", progress, **bounds, turn=0.3) == 0.6
    assert kl_coefficient("grpo_d", progress, low=0.6, high=0.6, turn=0.3) == pytest.approx(0.6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "grpo_d"])
def test_a_run_bounded_by_time_that_ends_late_stays_at_the_end(schedule):
    bounds = dict(low=0.2, high=0.6, turn=0.3)
    assert kl_coefficient(schedule, 1.5, **bounds) == kl_coefficient(schedule, 1.0, **bounds) == pytest.approx(0.6)


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="'cosine'"):
        kl_coefficient("cosine", 0.5, low=0.0, high=1.0, turn=0.3)
