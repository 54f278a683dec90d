"""The data-side methods on cases worked by hand."""

from dataclasses import replace
from math import cos, exp, pi, sqrt

import numpy as np
import pytest

from m2io_jax.config.data import CurriculumConfig, DataConfig, FilterConfig, SingleConfig
from m2io_jax.rl.data import METHODS
from m2io_jax.rl.data.curriculum import Curriculum, difficulty_weights, length_rewards
from m2io_jax.rl.data.filter import Filter, within
from m2io_jax.rl.data.history import History
from m2io_jax.rl.data.method import Scored, mean_of_scored
from m2io_jax.rl.data.noise import diffused, noise_step
from m2io_jax.rl.data.replay import ReplayBuffer, replay_probabilities
from m2io_jax.rl.data.single import Single, decay, started, visited

NAN = np.nan


def groups(outcomes, rewards=None, keys=None, lengths=None) -> Scored:
    outcomes = np.array(outcomes, float)
    rows = len(outcomes)
    return Scored(
        keys=tuple(keys or map(str, range(rows))),
        rewards=outcomes if rewards is None else np.array(rewards, float),
        outcomes=outcomes,
        lengths=np.full(outcomes.shape, 10.0) if lengths is None else np.array(lengths, float),
        largest=np.ones(rows),
        weights=np.ones(rows),
        kept=np.ones(rows, bool),
    )


def test_every_method_of_groups_has_its_setting():
    assert set(METHODS) <= set(DataConfig.model_fields)


def test_means_are_over_what_was_scored(recwarn):
    assert mean_of_scored(np.array([[0, 1], [NAN, 0.5]])).tolist() == [0.5, 0.5]
    assert np.isnan(mean_of_scored(np.array([[NAN, NAN]]))).all() and not recwarn.list


def test_the_filter_goes_by_the_outcome_and_both_bounds_are_inside():
    outcomes = np.array([[0, 0], [0, 1], [1, 1], [0.25, 0.25], [NAN, NAN], [NAN, 1]])
    assert within(outcomes, 0.01, 0.99).tolist() == [False, True, False, True, False, False]
    assert within(outcomes, 0.25, 1).tolist() == [False, True, True, True, False, True]
    # a group of wrong completions whose rewards differ, by their length say, has nothing to teach
    given = groups([[0, 0], [0, 1], [1, 1]], rewards=[[-0.1, -0.4], [0, 1], [1, 1]])
    found, done = Filter(FilterConfig()).scored(given)
    assert found.kept.tolist() == [False, True, False]
    assert done == {"data/filter/dropped_low": 1.0, "data/filter/dropped_high": 1.0}


def test_what_another_method_dropped_stays_dropped_and_is_not_counted_twice():
    given = replace(groups([[0, 1], [0, 0]]), kept=np.array([False, False]))
    found, done = Filter(FilterConfig()).scored(given)
    assert not found.kept.any() and done["data/filter/dropped_low"] == 0


def test_history_leaves_out_what_was_all_right_and_nothing_else():
    history = History(True)
    given = groups([[1, 1], [1, 0], [0, 0], [1, NAN]], keys=["all", "mixed", "none", "unknown"])
    assert all(history.admits(key) for key in given.keys)
    history.scored(given)
    assert [history.admits(key) for key in given.keys] == [False, True, True, True]
    done = history.scored(groups([[1, 0]], keys=["mixed"]))[1]
    assert done == {"data/history/solved": 1.0, "data/history/skipped": 1.0, "data/history/forgotten": 0.0}


def test_where_all_is_solved_history_begins_anew():
    history = History(True)
    history.scored(groups([[1, 1], [1, 1]], keys=["a", "b"]))
    # the end of an epoch and the beginning of the next are four visits
    assert [history.admits(key) for key in "abbaab"] == [False, False, False, False, True, True]
    assert history.memory == {"solved": {}}
    assert history.scored(groups([[0, 1]], keys=["a"]))[1]["data/history/forgotten"] == 1


@pytest.mark.parametrize(
    "difficulty, expected",
    [
        ("easy", [0, sqrt(0.5), 1, 1, 1]),
        ("medium", [0, sqrt(0.5), 1, sqrt(0.5), 0]),
        ("hard", [0.25, 1, 1, sqrt(0.5), 0]),
    ],
)
def test_groups_weigh_by_their_difficulty(difficulty, expected):
    accuracy = np.array([0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(difficulty_weights(accuracy, difficulty), expected, atol=1e-15)


def test_other_difficulties_are_refused():
    with pytest.raises(ValueError, match="'simple': easy, medium, hard"):
        difficulty_weights(np.zeros(1), "simple")


def test_a_wrong_completion_is_to_be_as_long_as_the_right_ones():
    # the right ones have 10 and 30 tokens, so the aim is 20; 5 is a quarter of the way
    outcomes, lengths = np.array([[1, 1, 0, 0, 0, 0, NAN]]), np.array([[10, 30, 0, 5, 20, 40, 3]])
    found = length_rewards(lengths, outcomes, target=750, limit=4096)
    np.testing.assert_allclose(found, [[0, 0, -0.5, -0.25 * (1 + cos(pi / 4)), 0, -0.5, 0]], atol=1e-15)
    beyond = length_rewards(np.array([[20, 30.0]]), np.array([[1, 0.4]]), target=750, limit=4096)
    np.testing.assert_allclose(beyond, [[0, -0.25]], atol=1e-15)  # cos(3 pi/2) is 0


def test_where_none_is_right_there_is_a_fixed_length():
    lengths = np.array([[0, 375, 750, 4095, 4096]])
    found = length_rewards(lengths, np.zeros((1, 5)), target=750, limit=4096)
    np.testing.assert_allclose(found, [[-0.5, -0.25, 0, 0, -0.5]], atol=1e-15)


def test_a_curriculum_weighs_groups_and_adds_to_rewards():
    settings = CurriculumConfig(difficulty="hard", length_weight=0.5, length_target=20, length_limit=40)
    given = groups([[1, 0], [0, 0], [NAN, NAN]], lengths=[[20, 10], [10, 40], [5, 5]])
    found, done = Curriculum(settings).scored(given)
    np.testing.assert_allclose(found.weights, [1, 0.25, 0])
    np.testing.assert_allclose(found.rewards, [[1, -0.125], [-0.125, -0.25], [NAN, NAN]], atol=1e-15)
    assert done["data/curriculum/weight"] == pytest.approx(1.25 / 3)
    assert done["data/curriculum/length_reward"] == pytest.approx(-0.5 / 6)
    assert "data/curriculum/length_reward" not in Curriculum(CurriculumConfig()).scored(given)[1]


def test_a_prompts_past_counts_less_and_less():
    assert started(0.5, 0.875) == (4, 4) and started(0.25, 0.96)[0] == pytest.approx(6.25)
    a, b = visited(4, 4, 1, 0.875)
    assert (a, b) == (4.5, 3.5)
    assert visited(a, b, 0.25, 0.96) == pytest.approx((4.57, 4.11))


def test_the_decay_follows_the_kl_and_jumps_at_the_target():
    rule = dict(target=0.01, low=0.875, high=0.96)
    assert decay([], **rule) == pytest.approx(0.9175)
    assert decay([0.0], **rule) == 0.875, "the less the policy moves the less is kept: as the authors have it"
    assert decay([0.005], **rule) == pytest.approx(0.9175)
    assert decay([0.01], **rule) == pytest.approx(0.96)
    assert decay([np.nextafter(0.01, 1)], **rule) == 0.875, "from the highest to the lowest in one step"
    assert decay([5.0], **rule) == 0.875
    assert decay([9.0] + [0.01] * 10, **rule) == pytest.approx(0.96), "only the last ten count"
    assert decay([-0.02], **rule) == 0.875, "an estimate can be negative; the decay stays in its bounds"


def test_single_takes_from_rewards_what_was_expected():
    single = Single(SingleConfig(start=0.5))
    given = replace(groups([[1.5], [0.0], [NAN]], keys=["a", "b", "c"]), largest=np.array([2.0, 2.0, 2.0]))
    found, done = single.scored(given)
    np.testing.assert_allclose(found.rewards, [[0.5], [-1.0], [NAN]])  # 2 * 1/2 was expected of each
    # 8 visits, half of them right, then 0.75 and 0 at the middle decay
    keep = 0.9175
    assert single.memory["prompts"] == {
        "a": pytest.approx([4 * keep + 0.75, 4 * keep + 0.25]), "b": pytest.approx([4 * keep, 4 * keep + 1])
    }  # fmt: skip
    assert done == {"data/single/expected": 0.5, "data/single/decay": keep, "data/single/prompts": 2.0}
    for _ in range(12):
        single.learned({"kl": 0.02, "loss": 1.0})
    single.learned({"loss": 1.0})
    assert single.memory["kl"] == [0.02] * 10
    found, done = single.scored(given)
    expected = 2 * (4 * keep + 0.75) / (8 * keep + 1)
    np.testing.assert_allclose(found.rewards[0], [1.5 - expected])
    assert done["data/single/decay"] == 0.875


def test_of_several_rollouts_the_mean_is_one_visit_and_what_was_added_does_not_count_beyond_the_bounds():
    single = Single(SingleConfig(start=0.0))
    single.scored(groups([[1, 0, NAN]], rewards=[[1, 0, NAN]], keys=["a"]))
    assert single.memory["prompts"]["a"] == pytest.approx([0.5, 8 * 0.9175 + 0.5])
    single.scored(groups([[0, 0]], rewards=[[-0.5, -0.5]], keys=["b"]))
    assert single.memory["prompts"]["b"] == pytest.approx([0, 8 * 0.9175 + 1])


def test_replay_goes_by_the_size_of_advantages():
    np.testing.assert_allclose(replay_probabilities(np.array([1, 3, 4]), 1), [1 / 8, 3 / 8, 1 / 2])
    np.testing.assert_allclose(replay_probabilities(np.array([1, 3]), 2), [0.1, 0.9])
    np.testing.assert_allclose(replay_probabilities(np.array([1, 3]), 0), [0.5, 0.5])


def test_the_buffer_is_first_in_first_out_and_keeps_no_group_without_advantages():
    buffer = ReplayBuffer(3)
    buffer.add([("a", 1.0), ("b", 0.0), ("c", 2.0)])
    assert buffer.items == ["a", "c"] and len(buffer) == 2
    buffer.add([("d", 1.0), ("e", 1.0)])
    assert buffer.items == ["c", "d", "e"]


def test_draws_are_different_ones_by_their_chances():
    buffer = ReplayBuffer(3)
    assert buffer.draw(2, 1.0, np.random.default_rng(0)) == []
    buffer.add([("a", 1.0), ("b", 2.0), ("c", 5.0)])
    assert buffer.draw(9, 1.0, np.random.default_rng(0)) == ["a", "b", "c"] == buffer.items
    random = np.random.default_rng(0)
    draws = [buffer.draw(1, 1.0, random)[0] for _ in range(4000)]
    shares = [draws.count(item) / 4000 for item in "abc"]
    np.testing.assert_allclose(shares, [1 / 8, 2 / 8, 5 / 8], atol=4 * 0.5 / sqrt(4000))
    again = [buffer.draw(1, 1.0, np.random.default_rng((0, 3)))[0] for _ in range(2)]
    assert again[0] == again[1]


def test_noise_fades_over_the_run():
    rule = dict(steps=500, steepness=30.0, middle=0.6)
    assert [noise_step(share, **rule) for share in (0, 0.6, 1)] == [499, 250, int(500 * (1 - 1 / (1 + exp(-12))))]
    assert noise_step(0.55, **rule) == int(500 * (1 - 1 / (1 + exp(1.5))))


def test_noise_is_forward_diffusion():
    betas = [1e-5 + (5e-3 - 1e-5) / (1 + exp(-(-6 + 12 * i / 999))) for i in range(1000)]
    kept = np.prod([1 - beta for beta in betas[:501]])
    pixels = np.full(200_000, 0.5)
    noisy = diffused(pixels, 500, np.random.default_rng(0))
    plain = np.sqrt(kept) * 0.5 + np.sqrt(1 - kept) * np.random.default_rng(0).standard_normal(200_000)
    np.testing.assert_allclose(noisy, np.clip(plain, 0, 1), atol=1e-12)
    assert 0.1 < noisy.std() < 0.5 and noisy.min() == 0 and noisy.max() == 1
    first = diffused(pixels, 0, np.random.default_rng(0))
    assert first.std() == pytest.approx(sqrt(betas[0]), rel=0.01), "the first step leaves a picture nearly as it is"
