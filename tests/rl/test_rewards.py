"""Scores of completions, and an update in which some could not be scored, against one in which these never were."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx
from small_model import STRUCTURE, mixed_rows, random_completions, small_params

from m2io_jax.config import OptimizerConfig, RunConfig
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.episodes.episode import Episode
from m2io_jax.models.inputs import Completions
from m2io_jax.rl.grpo import grpo_update
from m2io_jax.rl.learner import Schedules
from m2io_jax.rl.rewards import score_completions
from m2io_jax.rl.rollout import GroupBatch
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.training.optimizer import make_optimizer
from m2io_jax.training.state import TrainState
from m2io_jax.verification.pool import Unverified

EPISODE = Episode("e", "", (), (), (), (), answer="2")


class FakeTask:
    """Scores `0.5` as that, and fails as it is told."""

    name, rewards = "fake", ("right", "short")

    def score(self, completion, episode):
        if completion in ("error", "timeout"):
            raise Unverified(completion, "as told")
        return {"right": float(completion), "short": 1.0}


@dataclass(frozen=True)
class Row:
    episode: Episode = EPISODE
    task: FakeTask = FakeTask()


def test_scores_by_hand():
    texts = [["1", "0", "error"], ["0.5", "timeout", "timeout"], ["error"] * 3]
    scores = score_completions([Row()] * 3, texts, {"right": 2.0, "short": 0.5, "other": 9.0})
    nan = np.nan
    np.testing.assert_array_equal(scores.rewards, np.array([[2.5, 0.5, nan], [1.5, nan, nan], [nan] * 3], np.float32))
    assert scores.parts[0] == [{"right": 1.0, "short": 1.0}, {"right": 0.0, "short": 1.0}, None]
    assert scores.unverified == {"error": 4, "timeout": 2}
    assert scores.metrics() == {
        "reward": 1.5,  # of 2.5, 0.5, 1.5
        "reward_std": 0.5,  # of 1 and 0, in the two groups that have any
        "frac_reward_zero_std": pytest.approx(2 / 3),
        "rewards/right/mean": 0.5,
        "rewards/right/std": pytest.approx(np.std([1, 0, 0.5])),
        "rewards/short/mean": 1.0,
        "rewards/short/std": 0.0,
        "verifier/errors": 4.0,
        "verifier/timeouts": 2.0,
    }


def test_where_nothing_was_scored_there_is_no_mean_and_no_warning(recwarn):
    metrics = score_completions([Row()], [["error", "error"]], {"right": 1.0}).metrics()
    assert np.isnan(metrics["reward"]) and np.isnan(metrics["reward_std"]) and metrics["verifier/errors"] == 2.0
    assert not recwarn.list


def test_other_errors_are_bugs_and_are_raised():
    with pytest.raises(ValueError):
        score_completions([Row()], [["no number", "1"]], {"right": 1.0})


CONFIG = RunConfig(name="x", objective="grpo", steps=1, optimizer=OptimizerConfig(eps=1e-2), grpo={"kl_beta": 0.1})
OPTIMIZER = make_optimizer(CONFIG.optimizer)


@jax.jit
def after_update(params, prompts, rollouts, rewards, reference):
    state = TrainState(params, OPTIMIZER.init(params), np.zeros((), np.int32))
    update = partial(grpo_update, STRUCTURE, OPTIMIZER, CONFIG)
    batch = GroupBatch(prompts, None, rollouts, rewards, ref_log_probs=reference)
    state, metrics, _ = update(state, nnx.State({}), batch, Schedules(0.1, 0.1))
    return state.params, metrics


def test_an_update_without_scores_equals_one_without_the_completions():
    prompts, completions = stack_prompts(mixed_rows()), random_completions(4, 5)
    random = np.random.default_rng(2)
    shape = completions.tokens.shape
    log_probs = random.uniform(-5, -3, shape).astype(np.float32)
    reference = log_probs + random.uniform(-0.3, 0.3, shape).astype(np.float32)
    rewards = random.uniform(size=shape[:2]).astype(np.float32)
    # one or more of each group has no reward, at other places; the last keep two
    unscored = np.zeros(shape[:2], bool)
    unscored[[0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [4, 0, 1, 3, 0, 2, 3, 1, 2, 4]] = True
    unscored[0, [1, 2]] = True
    given = Rollouts(completions, log_probs), np.where(unscored, np.nan, rewards), reference
    params, metrics = after_update(small_params(), prompts, *given)

    kept = [np.flatnonzero(~row) for row in unscored]
    assert {len(places) for places in kept} == {2}

    def without(values):
        return np.stack([each[places] for each, places in zip(np.asarray(values), kept, strict=True)])

    fewer = Rollouts(Completions(without(completions.tokens), without(completions.mask)), without(log_probs))
    expected, expected_metrics = after_update(small_params(), prompts, fewer, without(rewards), without(reference))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, params, expected)
    assert set(metrics) == set(expected_metrics)
    for name in metrics:
        close(metrics[name], expected_metrics[name], err_msg=name)
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, small_params()))
    assert min(moved) > 0


def test_a_batch_in_which_nothing_was_scored_moves_nothing():
    prompts, completions = stack_prompts(mixed_rows()), random_completions(4, 5)
    log_probs = np.full(completions.tokens.shape, -4.0, np.float32)
    rewards = np.full(log_probs.shape[:2], np.nan, np.float32)
    params, metrics = after_update(small_params(), prompts, Rollouts(completions, log_probs), rewards, log_probs)
    jax.tree.map(np.testing.assert_array_equal, params, small_params())
    assert metrics["loss"] == 0 and metrics["grad_norm"] == 0
