"""Whole updates by objectives that are not the default's: what they must not depend on, and what they must do."""

from functools import partial

import jax
import numpy as np
import pytest
from small_model import SMALL, STRUCTURE, mixed_rows, random_completions, small_params

from m2io_jax.config import MeshConfig, OptimizerConfig, RunConfig
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.models.inputs import Completions
from m2io_jax.parallel.mesh import make_mesh, on_mesh
from m2io_jax.parallel.sharding import place, place_batch
from m2io_jax.rl.grpo import grpo_update
from m2io_jax.rl.learner import Schedules
from m2io_jax.rl.losses import LOSSES
from m2io_jax.rl.rollout import GroupBatch
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.training.optimizer import make_optimizer
from m2io_jax.training.state import TrainState, split_trained, state_shardings

close = partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5)
# All that is taken over the whole batch, and all that tells tokens and completions apart.
WHOLE_BATCH = dict(
    loss="gspo",
    clip_epsilon=0.05,
    clip_epsilon_high=0.05,
    advantage="batch_std",
    loss_aggregation="token_mean",
    kl_beta=0.1,
    kl_estimator="k3+",
    entropy_coef=0.05,
    rollout_correction="mask",
    overlong_penalty=0.3,
    overlong_buffer=4,
    overlong_filter=True,
    updates_per_rollout=2,
)


def config(micro_batches=1, **grpo) -> RunConfig:
    # A large eps: Adam turns a gradient that is 0 but for rounding into a whole step, which would measure the rounding.
    optimizer = OptimizerConfig(eps=1e-2, max_grad_norm=0.5, micro_batches=micro_batches)
    batch = {"prompts": 8, "completion_length": 6}
    return RunConfig(name="update", objective="grpo", steps=1, optimizer=optimizer, batch=batch, grpo=grpo)


def given(likely: float):
    """Rollouts of another policy for eight prompts, about half of them cut off; a group without variance.

    `likely`: about the log-probability of the tokens that they drew.
    """
    random, completions = np.random.default_rng(0), random_completions(8, 3)
    last = np.arange(6) == completions.mask.sum(-1, keepdims=True) - 1
    ends = random.random((8, 3, 1)) < 0.5
    tokens = np.where(last & ends, SMALL.special.eos, completions.tokens)
    log_probs, own, reference = (
        np.where(completions.mask, random.normal(likely, 0.4, tokens.shape), 0).astype(np.float32) for _ in range(3)
    )
    rewards = random.uniform(size=(8, 3)).astype(np.float32)
    rewards[3] = 0.4
    return Rollouts(Completions(tokens, completions.mask), log_probs), rewards, reference, own


def updated(config: RunConfig, devices: dict | None = None, likely: float = -4.2):
    """Parameters and metrics after one update."""
    sizes = devices or dict(data=1)
    mesh = make_mesh(MeshConfig(**sizes), jax.devices()[: int(np.prod(list(sizes.values())))])
    optimizer = make_optimizer(config.optimizer)
    params, frozen = split_trained(jax.tree.map(np.asarray, small_params()), config)
    moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(optimizer.init, params))
    shardings = state_shardings(small_params(), optimizer, mesh)
    state = place(TrainState(params, moments, np.zeros((), np.int32)), shardings)
    prompts = place_batch(stack_prompts([*mixed_rows(), *mixed_rows()]), mesh)
    rollouts, rewards, reference, own = place_batch(given(likely), mesh)
    if config.grpo.updates_per_rollout == 1:
        own = None
    update = on_mesh(mesh, partial(grpo_update, STRUCTURE, optimizer, config))
    update = jax.jit(update, out_shardings=(shardings, None, None))
    batch = GroupBatch(prompts, None, rollouts, rewards, None, reference, own)
    state, metrics, _ = update(state, frozen, batch, Schedules(0.1, config.grpo.kl_beta))
    return jax.device_get((state.params, metrics))


@pytest.fixture(scope="module")
def by_the_whole_batch():
    return updated(config(**WHOLE_BATCH))


def test_every_part_of_that_objective_does_something(by_the_whole_batch):
    params, metrics = by_the_whole_batch
    assert metrics["sampling/importance_sampling_ratio/min"] < 0.5 < metrics["sampling/importance_sampling_ratio/mean"]
    assert metrics["clip_ratio/low_mean"] > 0 and metrics["clip_ratio/high_mean"] > 0
    assert -1 < metrics["rewards/overlong/mean"] < 0
    assert metrics["kl_coef"] == np.float32(0.1)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, small_params())
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_micro_batches_change_nothing(by_the_whole_batch):
    jax.tree.map(close, updated(config(micro_batches=4, **WHOLE_BATCH)), by_the_whole_batch)


def test_groups_weigh_what_their_weights_say():
    settings = config(advantage="none", kl_beta=0.0)
    optimizer = make_optimizer(settings.optimizer)
    update = jax.jit(partial(grpo_update, STRUCTURE, optimizer, settings))
    rollouts, rewards, _, _ = given(likely=-4.2)
    prompts, weights = stack_prompts([*mixed_rows(), *mixed_rows()]), np.arange(8, dtype=np.float32) / 4
    found = []
    for each, weight in ((rewards, weights), (rewards * weights[:, None], np.ones(8, np.float32))):
        params, frozen = split_trained(jax.tree.map(np.asarray, small_params()), settings)
        state = TrainState(params, optimizer.init(params), np.zeros((), np.int32))
        batch = GroupBatch(prompts, None, rollouts, each, weight)
        state, metrics, advantages = update(state, frozen, batch, Schedules(0.1, 0.0))
        np.testing.assert_allclose(advantages, rewards * weights[:, None], rtol=1e-6)
        found.append(jax.device_get((state.params, metrics)))
    jax.tree.map(close, *found)
    assert found[0][1]["grad_norm"] > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [dict(data=2), dict(data=4), dict(data=8), dict(data=2, fsdp=2, tensor=2)], ids=str)
def test_devices_change_nothing(by_the_whole_batch, sizes):
    jax.tree.map(close, updated(config(**WHOLE_BATCH), sizes), by_the_whole_batch)


@pytest.mark.slow
def test_at_its_own_log_probabilities_every_loss_moves_the_weights_alike():
    # The trust region is around the policy itself, where each loss has the gradient of REINFORCE. Every token was so
    # unlikely where it was drawn that its weight is truncated to 1.
    alike = dict(rollout_correction="truncate", rollout_weight_max=1.0, kl_beta=0.0)
    expected, metrics = updated(config(loss="clip", **alike), likely=-20)
    assert metrics["grad_norm"] > 0.01 and metrics["sampling/importance_sampling_ratio/min"] > 1
    for loss in LOSSES.keys() - {"clip"}:
        jax.tree.map(close, updated(config(loss=loss, **alike), likely=-20)[0], expected)
