"""PPO (arXiv 1707.06347) as language models have it (InstructGPT, arXiv 2203.02155). A step samples and scores as
GRPO's does; from there it reads from top to bottom in `ActorCriticUpdates.__call__`:

    groups ──critic──▶ values ──rewards, KL──▶ advantages and returns of tokens ──update──▶ policy ──update──▶ critic
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from m2io_jax.config import RunConfig
from m2io_jax.models.critic import critic_start, critic_structure, without_logits
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.sharding import batch_sharding
from m2io_jax.rl.aggregation import completion_mean
from m2io_jax.rl.gae import explained_variance, generalized_advantages, token_rewards, value_loss, whitened
from m2io_jax.rl.kl import k1
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.training.group_sampler import shortened
from m2io_jax.training.groups import GroupBatch
from m2io_jax.training.grpo import GRPO
from m2io_jax.training.learner import (
    Learner,
    Rates,
    Start,
    Updates,
    overlong_metrics,
    overlong_penalty,
    policy_update,
    with_penalty,
)
from m2io_jax.training.objective import learnt_from
from m2io_jax.training.programs import Runner
from m2io_jax.training.scoring import without_unscored
from m2io_jax.training.state import TrainState, gradient_step, in_parts, state_shardings
from m2io_jax.training.trained import join


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PPOState:
    """Of the policy, and of its critic: each has weights, moments and a count of its updates."""

    policy: TrainState
    critic: TrainState

    @property
    def params(self) -> nnx.State:
        """The policy's."""
        return self.policy.params

    @property
    def opt_state(self) -> optax.OptState:
        """The policy's."""
        return self.policy.opt_state

    @property
    def step(self) -> Int[Array, ""]:
        """Steps of the run."""
        return self.policy.step

    def at(self, step: Int[Array, ""]) -> "PPOState":
        return replace(self, policy=self.policy.at(step))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Estimates:
    """What the updates of a step go by, of each token.

    Attributes:
        rollouts: of which only tokens that are learnt from are left in the mask.
        of_completions: the mean of the advantages over a completion's tokens, to be shown.
    """

    rollouts: Rollouts
    advantages: Float[Array, "rows group time"]
    returns: Float[Array, "rows group time"]
    of_completions: Float[Array, "rows group"]


class ActorCriticUpdates(Updates):
    """Of the policy by advantages that its critic gives, and of the critic by what it should have said."""

    def __init__(self, length: int, start: Start):
        super().__init__(length, start, ppo_update)
        config, model, mesh, optimizer = start.config, start.policy.config, start.mesh, start.optimizer
        structure, rows = critic_structure(model), batch_sharding(mesh)
        shardings = state_shardings(critic_start(start.begin, model), optimizer, mesh)
        self.critic_frozen = without_logits(start.frozen)
        highest = config.optimizer.learning_rate
        self.critic_rate = (config.ppo.critic_learning_rate or highest) / highest  # in the policy's
        value = partial(critic_values, structure, length, config.optimizer.micro_batches)
        estimate = partial(estimated, config, model.special.stops, length)
        fit = partial(critic_update, structure, optimizer, config)
        self.value = self.program("values", jax.jit(on_mesh(mesh, value), out_shardings=rows))
        self.estimate = self.program("advantages", jax.jit(on_mesh(mesh, estimate), out_shardings=(rows, None)))
        fit = jax.jit(on_mesh(mesh, fit), donate_argnums=0, out_shardings=(shardings, None))
        self.fit = self.program("critic", fit)

    def __call__(
        self, run: Runner, state: PPOState, batch: GroupBatch, rates: Rates
    ) -> tuple[PPOState, dict, Float[Array, "rows group"]]:
        """State, metrics and the completions' advantages (the mean of their tokens') after the updates."""
        batch = self.compared(run, state.params, batch)
        critic = join(state.critic.params, self.critic_frozen)
        values = run(self.value, critic, batch.prompts, batch.pictures, batch.rollouts.completions)
        estimates, measured = run(self.estimate, batch, values, rates.kl_beta)
        (policy, learned, advantages), (critic, fitted) = run.together(
            lambda: self.updated(run, state.policy, batch, estimates, rates),
            lambda: self.fitted(run, state.critic, batch, estimates, values, rates),
        )
        return PPOState(policy, critic), learned | fitted | measured, advantages

    def fitted(self, run: Runner, critic: TrainState, batch: GroupBatch, estimates: Estimates, values, rates: Rates):
        """The critic after its updates, as many as the policy's."""
        rate = rates.learning_rate * self.critic_rate
        for _ in range(self.config.grpo.updates_per_rollout):
            critic, metrics = run(self.fit, critic, self.critic_frozen, batch, estimates, values, rate)
        return critic, metrics


class ActorCritic(Learner):
    """Updates the policy and its critic."""

    of_length = ActorCriticUpdates


class PPO(GRPO):
    """Trains by PPO on what GRPO would train on: the same prompts, completions and rewards. Its state has a critic,
    which is in no policy that is saved."""

    learns = ActorCritic

    def state(self, make: Callable) -> PPOState:
        """As GRPO's, for both."""
        critic = make(critic_start(self.begin, self.encoder.model), self.optimizer, self.mesh)
        return PPOState(super().state(make), critic)


def critic_values(
    structure: nnx.GraphDef,
    length: int,
    micro_batches: int,
    params: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    completions: Completions,
) -> Float[Array, "rows group {length}"]:
    """Values of the states before the first `length` tokens of the completions, computed for so many micro-batches one
    after another."""

    def of(rows):
        prompts, pictures, completions = rows
        return nnx.merge(structure, params).values(prompts, completions, pictures)

    return in_parts(of, micro_batches, (prompts, pictures, shortened(completions, length)))


def estimated(
    config: RunConfig,
    stops: tuple[int, ...],
    length: int,
    batch: GroupBatch,
    values: Float[Array, "rows group {length}"],
    kl_beta: Float[Array, ""],
) -> tuple[Estimates, dict[str, Float[Array, ""]]]:
    """Advantages and returns of tokens, by `rl/gae.py`, of the whole batch at once; and what they are, on average.

    The KL is of the policy that sampled, whose log-probabilities the rollouts have.

    Args:
        stops: tokens of which a completion that was not cut off ends with one.
        batch: of which completions that could not be scored teach nothing.
    """
    settings, rewards, reference = config.ppo, batch.rewards, batch.reference_log_probs
    rollouts = shortened(batch.rollouts, length)
    whole = rollouts.completions.mask
    rollouts = without_unscored(rollouts, rewards)
    mask = learnt_from(config.grpo, rollouts.completions, stops)
    rollouts = replace(rollouts, completions=replace(rollouts.completions, mask=mask))
    kl = jnp.zeros_like(values) if reference is None else k1(rollouts.log_probs, reference)
    earned = token_rewards(with_penalty(config, whole, rewards), kl, mask, kl_beta=kl_beta)
    discounts = dict(discount=settings.discount, gae_lambda=settings.gae_lambda)
    advantages, returns = generalized_advantages(earned, values, mask, **discounts)
    metrics = estimate_metrics(advantages, values, returns, mask) | {"kl_coef": jnp.asarray(kl_beta)}
    if reference is not None:
        metrics |= kl_metrics(kl, mask, kl_beta)
    if config.grpo.overlong_penalty:
        metrics |= overlong_metrics(overlong_penalty(config, whole), rewards)
    if settings.whiten:
        advantages = whitened(advantages, mask)
    if batch.weights is not None:
        advantages = advantages * batch.weights[:, None, None]
    return Estimates(rollouts, advantages, returns, completion_mean(advantages, mask)), metrics


def estimate_metrics(
    advantages: Float[Array, "rows group time"],
    values: Float[Array, "rows group time"],
    returns: Float[Array, "rows group time"],
    mask: Bool[Array, "rows group time"],
) -> dict[str, Float[Array, ""]]:
    """Means over tokens by verl's names; advantages before they are whitened."""
    means = {"advantages": advantages, "values": values, "returns": returns}
    metrics = {f"critic/{name}/mean": jnp.where(mask, each, 0.0).sum() / _count(mask) for name, each in means.items()}
    return metrics | {"critic/vf_explained_var": explained_variance(values, returns, mask)}


def kl_metrics(
    kl: Float[Array, "rows group time"], mask: Bool[Array, "rows group time"], kl_beta: Float[Array, ""]
) -> dict[str, Float[Array, ""]]:
    """The KL of a token, and (TRL's name) what it took from a completion's reward."""
    total = jnp.where(mask, kl, 0.0).sum()
    return {"kl": total / _count(mask), "objective/non_score_reward": -kl_beta * total / _count(mask.any(-1))}


def ppo_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    batch: GroupBatch,
    estimates: Estimates,
    rates: Rates,
) -> tuple[TrainState, dict[str, Float[Array, ""]], Float[Array, "rows group"]]:
    """The policy's loss, gradient and update in one program; returns state, metrics and advantages of completions."""
    learnt = replace(batch, rollouts=estimates.rollouts, reference_log_probs=None)  # the KL is in the rewards
    given = (state, frozen, learnt, estimates.advantages, rates)
    return *policy_update(structure, optimizer, config, *given), estimates.of_completions


def critic_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    critic: TrainState,
    frozen: nnx.State,
    batch: GroupBatch,
    estimates: Estimates,
    old_values: Float[Array, "rows group time"],
    learning_rate: Float[Array, ""],
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """The value loss, its gradient and the critic's update in one program."""

    def loss(trained, rows):
        prompts, pictures, completions, old_values, returns = rows
        values = nnx.merge(structure, trained, frozen).values(prompts, completions, pictures)
        return value_loss(values, old_values, returns, completions.mask, clip=config.ppo.value_clip)

    rows = (batch.prompts, batch.pictures, estimates.rollouts.completions, old_values, estimates.returns)
    parts = config.optimizer.micro_batches
    critic, _, metrics = gradient_step(critic, loss, rows, optimizer, learning_rate, parts)
    of_its_own = {"critic/grad_norm": metrics.pop("grad_norm"), "critic/lr": metrics.pop("learning_rate")}
    return critic, metrics | of_its_own


def _count(mask: Bool[Array, "..."]) -> Float[Array, ""]:
    return jnp.maximum(mask.sum(), 1).astype(jnp.float32)
