"""PPO (arXiv 1707.06347) as language models have it (InstructGPT, arXiv 2203.02155). A step samples and scores as
GRPO's does; from there it reads from top to bottom in `ActorCritic.__call__`:

    groups ──critic──▶ values ──rewards, KL──▶ advantages and returns of tokens ──update──▶ policy ──update──▶ critic
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from m2io_jax.config import RunConfig
from m2io_jax.models.critic import critic_start, critic_structure, without_logits
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.policy import Policy
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.sharding import batch_sharding, own_rows
from m2io_jax.rl.aggregation import completion_mean
from m2io_jax.rl.gae import explained_variance, generalized_advantages, token_rewards, value_loss, whitened
from m2io_jax.rl.kl import k1
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.training.compiling import Ahead, returned, side_by_side
from m2io_jax.training.group_sampler import shortened
from m2io_jax.training.groups import Group
from m2io_jax.training.grpo import GRPO
from m2io_jax.training.learner import Learner, overlong_metrics, overlong_penalty, policy_update, with_penalty
from m2io_jax.training.objective import learnt_from
from m2io_jax.training.scoring import without_unscored
from m2io_jax.training.state import TrainState, gradient_step, in_parts, state_shardings
from m2io_jax.training.stopwatch import Stopwatch
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


class ActorCritic(Learner):
    """Updates the policy by advantages that its critic gives, and the critic by what it should have said. Its arguments
    are `Learner`'s.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        mesh: Mesh,
        optimizer,
        begin: nnx.State,
        frozen: nnx.State,
        reference: nnx.State | None,
        *,
        takes_pictures: bool,
    ):
        starts = (optimizer, begin, frozen, reference)
        super().__init__(config, policy, mesh, *starts, takes_pictures=takes_pictures, update=policy_update)
        structure, rows = critic_structure(policy.config), batch_sharding(mesh)
        shardings = state_shardings(critic_start(begin, policy.config), optimizer, mesh)
        self.critic_frozen, self._shown = without_logits(frozen), None
        highest = config.optimizer.learning_rate
        self.critic_rate = (config.ppo.critic_learning_rate or highest) / highest  # in the policy's
        self.value, self.estimate, self.fit = {}, {}, {}
        for length in self.update:
            value = partial(critic_values, structure, length, config.optimizer.micro_batches)
            estimate = partial(estimated, config, policy.config.special.stops, length)
            fit = partial(critic_update, structure, optimizer, config)
            self.value[length] = jax.jit(on_mesh(mesh, value), out_shardings=rows)
            self.estimate[length] = jax.jit(on_mesh(mesh, estimate), out_shardings=(rows, None))
            self.fit[length] = jax.jit(on_mesh(mesh, fit), donate_argnums=0, out_shardings=(shardings, None))

    def __call__(
        self,
        state: PPOState,
        groups: Sequence[Group],
        rates: tuple[float, float, float | None],
        timing: Stopwatch,
    ) -> tuple[PPOState, dict[str, float]]:
        """The updates of one step; its arguments are `Learner`'s."""
        rate, kl_beta, entropy_coef = rates
        length, inputs, rewards, weights = self._placed(groups, timing)
        prompts, pictures, rollouts = inputs
        reference, own = self._compared(state, length, inputs, timing)

        critic = join(state.critic.params, self.critic_frozen)
        values = timing.measure("values", self.value[length], critic, prompts, pictures, rollouts.completions)
        given = (rollouts, rewards, weights, reference, values, kl_beta)
        estimates, measured = timing.measure("advantages", self.estimate[length], *given)
        self._shown = estimates.of_completions

        given = (prompts, pictures, estimates.rollouts, estimates.advantages, None, own, rate, 0.0, entropy_coef)
        policy, learned = self._updated(state.policy, length, given, timing)
        given = (prompts, pictures, estimates.rollouts.completions, values, estimates.returns, rate * self.critic_rate)
        critic, fitted = self._fitted(state.critic, length, given, timing)
        return PPOState(policy, critic), learned | fitted | {name: float(value) for name, value in measured.items()}

    def advantages(self, groups: Sequence[Group]) -> Float[np.ndarray, "rows group"]:
        """Of the completions that the last step learnt from, to be shown: the mean of their tokens'."""
        return own_rows(self._shown)

    def compile_advantages(self, blank: Group) -> None:
        """Nothing: what is shown is what the last step went by."""

    def _fitted(
        self, critic: TrainState, length: int, given: tuple, timing: Stopwatch
    ) -> tuple[TrainState, dict[str, float]]:
        """The critic after its updates, as many as the policy's."""
        for _ in range(self.config.grpo.updates_per_rollout):
            critic, fitted = timing.measure("critic", self.fit[length], critic, self.critic_frozen, *given)
        return critic, {name: float(value) for name, value in fitted.items()}

    def _compile(self, ahead: Ahead, state: PPOState, length: int, inputs, rewards, weights, coef) -> None:
        prompts, pictures, rollouts = inputs
        reference, own = self._compile_compared(ahead, state, length, inputs)
        critic = join(state.critic.params, self.critic_frozen)
        given = (critic, prompts, pictures, rollouts.completions)
        self.value[length] = ahead(self._named("values", length), self.value[length], *given)
        values = returned(self.value[length])
        given = (rollouts, rewards, weights, reference, values, 0.0)
        self.estimate[length] = ahead(self._named("advantages", length), self.estimate[length], *given)
        estimates, _ = returned(self.estimate[length])

        def policys() -> None:
            given = (prompts, pictures, estimates.rollouts, estimates.advantages, None, own, 0.0, 0.0, coef)
            name = self._named("update", length)
            self.update[length] = ahead(name, self.update[length], state.policy, self.frozen, *given)

        def critics() -> None:
            given = (prompts, pictures, estimates.rollouts.completions, values, estimates.returns, 0.0)
            name = self._named("critic", length)
            self.fit[length] = ahead(name, self.fit[length], state.critic, self.critic_frozen, *given)

        side_by_side(policys, critics)


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
    rollouts: Rollouts,
    rewards: Float[Array, "rows group"],
    weights: Float[Array, " rows"] | None,
    reference_log_probs: Float[Array, "rows group {length}"] | None,
    values: Float[Array, "rows group {length}"],
    kl_beta: Float[Array, ""],
) -> tuple[Estimates, dict[str, Float[Array, ""]]]:
    """Advantages and returns of tokens, by `rl/gae.py`, of the whole batch at once; and what they are, on average.

    The KL is of the policy that sampled, whose log-probabilities the rollouts have.

    Args:
        stops: tokens of which a completion that was not cut off ends with one.
        rewards: NaN where a completion could not be scored: nothing is learnt from it.
        weights: what groups' advantages are multiplied with.
    """
    settings, rollouts = config.ppo, shortened(rollouts, length)
    whole = rollouts.completions.mask
    rollouts = without_unscored(rollouts, rewards)
    mask = learnt_from(config.grpo, rollouts.completions, stops)
    rollouts = replace(rollouts, completions=replace(rollouts.completions, mask=mask))
    kl = jnp.zeros_like(values) if reference_log_probs is None else k1(rollouts.log_probs, reference_log_probs)
    earned = token_rewards(with_penalty(config, whole, rewards), kl, mask, kl_beta=kl_beta)
    discounts = dict(discount=settings.discount, gae_lambda=settings.gae_lambda)
    advantages, returns = generalized_advantages(earned, values, mask, **discounts)
    metrics = estimate_metrics(advantages, values, returns, mask) | {"kl_coef": jnp.asarray(kl_beta)}
    if reference_log_probs is not None:
        metrics |= kl_metrics(kl, mask, kl_beta)
    if config.grpo.overlong_penalty:
        metrics |= overlong_metrics(overlong_penalty(config, whole), rewards)
    if settings.whiten:
        advantages = whitened(advantages, mask)
    if weights is not None:
        advantages = advantages * weights[:, None, None]
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


def critic_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    critic: TrainState,
    frozen: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    completions: Completions,
    old_values: Float[Array, "rows group time"],
    returns: Float[Array, "rows group time"],
    learning_rate: Float[Array, ""],
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """The value loss, its gradient and the critic's update in one program.

    Args:
        completions: in whose mask are the tokens that are learnt from.
    """

    def loss(trained, batch):
        prompts, pictures, completions, old_values, returns = batch
        values = nnx.merge(structure, trained, frozen).values(prompts, completions, pictures)
        return value_loss(values, old_values, returns, completions.mask, clip=config.ppo.value_clip)

    batch = (prompts, pictures, completions, old_values, returns)
    parts = config.optimizer.micro_batches
    critic, _, metrics = gradient_step(critic, loss, batch, optimizer, learning_rate, parts)
    of_its_own = {"critic/grad_norm": metrics.pop("grad_norm"), "critic/lr": metrics.pop("learning_rate")}
    return critic, metrics | of_its_own


def _count(mask: Bool[Array, "..."]) -> Float[Array, ""]:
    return jnp.maximum(mask.sum(), 1).astype(jnp.float32)
