"""PPO (arXiv 1707.06347) with a critic, as for language models (InstructGPT, arXiv 2203.02155). A step samples and
scores as GRPO's does; from there read `ActorCriticUpdates.__call__` from the top:

    groups ──critic──▶ values ──rewards, KL──▶ advantages and returns of tokens ──update──▶ policy ──update──▶ critic
"""

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
from m2io_jax.rl.advantages import explained_variance, generalized_advantages, token_rewards, whiten
from m2io_jax.rl.grpo import (
    GRPO,
    loss_mask,
    overlong_metrics,
    overlong_penalty,
    penalized_rewards,
    policy_update,
)
from m2io_jax.rl.kl import k1
from m2io_jax.rl.learner import LearnerInputs, Schedules, Updates
from m2io_jax.rl.losses import SumAndDenominator, completion_mean, sum_over_tokens
from m2io_jax.rl.rewards import mask_unscored
from m2io_jax.rl.rollout import GroupBatch, truncate
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.training.programs import Runner
from m2io_jax.training.state import (
    TrainState,
    abstract_state,
    gradient_step,
    in_parts,
    join,
    new_state,
    state_shardings,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PPOState:
    """The states of the policy and of its critic: each has weights, moments and a count of its updates."""

    policy: TrainState
    critic: TrainState

    @property
    def params(self) -> nnx.State:
        """The policy's trained weights."""
        return self.policy.params

    @property
    def opt_state(self) -> optax.OptState:
        """The moments of the policy's optimizer."""
        return self.policy.opt_state

    @property
    def step(self) -> Int[Array, ""]:
        """Steps of the run so far."""
        return self.policy.step

    def at(self, step: Int[Array, ""]) -> "PPOState":
        """Return the state with another step count."""
        return replace(self, policy=self.policy.at(step))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Estimates:
    """Advantages and returns of each token, fixed for all updates of a step.

    Attributes:
        rollouts: with the loss mask as their mask.
        per_completion: the mean of the advantages over a completion's tokens, to be shown.
    """

    rollouts: Rollouts
    advantages: Float[Array, "rows group time"]
    returns: Float[Array, "rows group time"]
    per_completion: Float[Array, "rows group"]


class ActorCriticUpdates(Updates):
    """Updates of the policy by its critic's advantages, and of the critic towards the returns."""

    def __init__(self, length: int, inputs: LearnerInputs):
        super().__init__(length, inputs, ppo_update)
        config, model, mesh, optimizer = inputs.config, inputs.policy.config, inputs.mesh, inputs.optimizer
        structure, rows = critic_structure(model), batch_sharding(mesh)
        shardings = state_shardings(critic_start(inputs.trained, model), optimizer, mesh)
        self.critic_frozen = without_logits(inputs.frozen)
        highest = config.optimizer.learning_rate
        self.critic_rate = (config.ppo.critic_learning_rate or highest) / highest  # as a multiple of the policy's
        value = partial(critic_values, structure, length, config.optimizer.micro_batches)
        estimate = partial(estimate_advantages, config, model.special.stops, length)
        fit = partial(critic_update, structure, optimizer, config)
        self.value = self.program("values", jax.jit(on_mesh(mesh, value), out_shardings=rows))
        self.estimate = self.program("advantages", jax.jit(on_mesh(mesh, estimate), out_shardings=(rows, None)))
        fit = jax.jit(on_mesh(mesh, fit), donate_argnums=0, out_shardings=(shardings, None))
        self.fit = self.program("critic", fit)

    def __call__(
        self, run: Runner, state: PPOState, batch: GroupBatch, schedules: Schedules
    ) -> tuple[PPOState, dict, Float[Array, "rows group"]]:
        """Return state, metrics and the completions' advantages (the mean of their tokens') after the updates."""
        batch = self.with_old_and_ref_log_probs(run, state.params, batch)
        critic = join(state.critic.params, self.critic_frozen)
        values = run(self.value, critic, batch.prompts, batch.pictures, batch.rollouts.completions)
        estimates, measured = run(self.estimate, batch, values, schedules.kl_coef)
        (policy, learned, advantages), (critic, fitted) = run.run_jobs(
            lambda: self.run_updates(run, state.policy, batch, estimates, schedules),
            lambda: self.fit_critic(run, state.critic, batch, estimates, values, schedules),
        )
        return PPOState(policy, critic), learned | fitted | measured, advantages

    def fit_critic(
        self, run: Runner, critic: TrainState, batch: GroupBatch, estimates: Estimates, values, schedules: Schedules
    ):
        """Run as many updates of the critic as of the policy."""
        rate = schedules.learning_rate * self.critic_rate
        for _ in range(self.config.grpo.updates_per_rollout):
            critic, metrics = run(self.fit, critic, self.critic_frozen, batch, estimates, values, rate)
        return critic, metrics


class PPO(GRPO):
    """The PPO trainer: GRPO's prompts, completions and rewards, other updates. Its state has a critic, which no saved
    policy contains."""

    @staticmethod
    def make_updates(length: int, inputs: LearnerInputs) -> Updates:
        """Return the updates on completions of at most `length` tokens."""
        return ActorCriticUpdates(length, inputs)

    def init_state(self, params: nnx.State) -> PPOState:
        """Return the state of step 0; the critic starts from the policy's weights."""
        policy = super().init_state(params)
        critic = critic_start(policy.params, self.encoder.model)
        return PPOState(policy, new_state(critic, self.optimizer, self.mesh))

    def abstract_state(self) -> PPOState:
        """Return the shapes and shardings of what `init_state` returns."""
        critic = critic_start(self.trained, self.encoder.model)
        return PPOState(super().abstract_state(), abstract_state(critic, self.optimizer, self.mesh))


def critic_values(
    structure: nnx.GraphDef,
    length: int,
    micro_batches: int,
    params: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    completions: Completions,
) -> Float[Array, "rows group {length}"]:
    """Compute the values of the states before the first `length` tokens, one micro-batch after another."""

    def values(rows):
        prompts, pictures, completions = rows
        return nnx.merge(structure, params).values(prompts, completions, pictures)

    return in_parts(values, micro_batches, (prompts, pictures, truncate(completions, length)))


def estimate_advantages(
    config: RunConfig,
    stops: tuple[int, ...],
    length: int,
    batch: GroupBatch,
    values: Float[Array, "rows group {length}"],
    kl_coef: Float[Array, ""],
) -> tuple[Estimates, dict[str, Float[Array, ""]]]:
    """Compute advantages and returns of tokens by GAE over the full batch, and their metrics.

    The KL is that of the sampling policy, whose log-probs the rollouts have, from the reference.

    Args:
        stops: the stop tokens; a completion without one was truncated.
    """
    settings, rewards, reference = config.ppo, batch.rewards, batch.ref_log_probs
    rollouts = truncate(batch.rollouts, length)
    full_mask = rollouts.completions.mask
    rollouts = mask_unscored(rollouts, rewards)
    mask = loss_mask(config.grpo, rollouts.completions, stops)
    rollouts = replace(rollouts, completions=replace(rollouts.completions, mask=mask))
    kl = jnp.zeros_like(values) if reference is None else k1(rollouts.log_probs, reference)
    per_token = token_rewards(penalized_rewards(config, full_mask, rewards), kl, mask, kl_coef=kl_coef)
    discounts = dict(discount=settings.discount, gae_lambda=settings.gae_lambda)
    advantages, returns = generalized_advantages(per_token, values, mask, **discounts)
    metrics = estimate_metrics(advantages, values, returns, mask) | {"kl_coef": jnp.asarray(kl_coef)}
    if reference is not None:
        metrics |= kl_metrics(kl, mask, kl_coef)
    if config.grpo.overlong_penalty:
        metrics |= overlong_metrics(overlong_penalty(config, full_mask), rewards)
    if settings.whiten:
        advantages = whiten(advantages, mask)
    if batch.weights is not None:
        advantages = advantages * batch.weights[:, None, None]
    return Estimates(rollouts, advantages, returns, completion_mean(advantages, mask)), metrics


def estimate_metrics(
    advantages: Float[Array, "rows group time"],
    values: Float[Array, "rows group time"],
    returns: Float[Array, "rows group time"],
    mask: Bool[Array, "rows group time"],
) -> dict[str, Float[Array, ""]]:
    """Average over tokens, under verl's names; advantages before whitening."""
    means = {"advantages": advantages, "values": values, "returns": returns}
    metrics = {f"critic/{name}/mean": jnp.where(mask, each, 0.0).sum() / _count(mask) for name, each in means.items()}
    return metrics | {"critic/vf_explained_var": explained_variance(values, returns, mask)}


def kl_metrics(
    kl: Float[Array, "rows group time"], mask: Bool[Array, "rows group time"], kl_coef: Float[Array, ""]
) -> dict[str, Float[Array, ""]]:
    """Average the KL over tokens, and what it took from the rewards over completions (TRL's name)."""
    total = jnp.where(mask, kl, 0.0).sum()
    return {"kl": total / _count(mask), "objective/non_score_reward": -kl_coef * total / _count(mask.any(-1))}


def ppo_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    batch: GroupBatch,
    estimates: Estimates,
    schedules: Schedules,
) -> tuple[TrainState, dict[str, Float[Array, ""]], Float[Array, "rows group"]]:
    """Compute the policy's loss and gradient and update it, in one program.

    Returns:
        The new state, metrics, and the completions' advantages.
    """
    batch = replace(batch, rollouts=estimates.rollouts, ref_log_probs=None)  # the KL is in the rewards
    given = (state, frozen, batch, estimates.advantages, schedules)
    return *policy_update(structure, optimizer, config, *given), estimates.per_completion


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
    """Compute the value loss and its gradient and update the critic, in one program."""

    def loss(trained, rows):
        prompts, pictures, completions, old_values, returns = rows
        values = nnx.merge(structure, trained, frozen).values(prompts, completions, pictures)
        return value_loss(values, old_values, returns, completions.mask, clip=config.ppo.value_clip)

    rows = (batch.prompts, batch.pictures, estimates.rollouts.completions, old_values, estimates.returns)
    parts = config.optimizer.micro_batches
    critic, _, metrics = gradient_step(critic, loss, rows, optimizer, learning_rate, parts)
    renamed = {"critic/grad_norm": metrics.pop("grad_norm"), "critic/lr": metrics.pop("learning_rate")}
    return critic, metrics | renamed


def value_loss(
    values: Float[Array, "*batch time"],
    old_values: Float[Array, "*batch time"],
    returns: Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    clip: float | None,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumAndDenominator]]:
    """Compute half the squared error of the values, the larger of two (as in the code published with PPO):

        max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2

    A token has no gradient once its value has moved by more than c and is nearer to its return than the clipped value.

    Args:
        old_values: before the first of the updates that go by these returns.
        clip: c, in the rewards' unit; None: the first of the two alone.

    Returns:
        The sum, the number of tokens, and metrics under TRL's names, each a (sum, denominator) too.
    """
    values, old_values, returns = (jnp.where(mask, each, 0.0) for each in (values, old_values, returns))
    error = jnp.square(values - returns)
    largest = error
    if clip is not None:
        near = jnp.clip(values, old_values - clip, old_values + clip)
        largest = jnp.maximum(error, jnp.square(near - returns))
    total, tokens = sum_over_tokens(largest / 2, mask)
    clipped = sum_over_tokens((largest > error).astype(jnp.float32), mask)
    return total, tokens, {"loss/value_avg": (total, tokens), "val/clipfrac_avg": clipped}


def _count(mask: Bool[Array, "..."]) -> Float[Array, ""]:
    return jnp.maximum(mask.sum(), 1).astype(jnp.float32)
