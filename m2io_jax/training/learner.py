"""An update by GRPO (arXiv 2402.03300): groups become advantages, a loss and new weights. PPO's policy is updated by
the same code (training/ppo.py)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from m2io_jax.config import RunConfig
from m2io_jax.models.flops import group_flops, picture_flops
from m2io_jax.models.inputs import PromptBatch
from m2io_jax.models.policy import Policy
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.parallel.exchange import gathered
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.peak import peak_flops
from m2io_jax.parallel.sharding import batch_sharding, local_count, place, place_batch, placed_batch, replicated
from m2io_jax.rl.overlong import soft_overlong_penalty
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.training.compiling import Ahead, returned
from m2io_jax.training.group_sampler import shortened, shortened_log_probs
from m2io_jax.training.groups import Group, batched, stack_groups
from m2io_jax.training.objective import LEAST_RATIO, configured_advantages, configured_objective
from m2io_jax.training.scoring import without_unscored
from m2io_jax.training.state import TrainState, gradient_step, state_shardings
from m2io_jax.training.stopwatch import Stopwatch
from m2io_jax.training.trained import join


class Learner:
    """Updates the policy, each time by the program of the shortest of `batch.completion_lengths` that all fit in.

    Attributes:
        update_flops: of a step's updates, by length.

    Args:
        begin, frozen: the weights that are trained (their shapes), and those that are not.
        reference: all weights of what the KL is taken to; None where there is none.
        takes_pictures: groups come with their encoded pictures.
        update: `grpo_update`, or what takes other arguments after the rollouts.
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
        update: Callable | None = None,
    ):
        self.config, self.mesh, self.frozen, self.reference = config, mesh, frozen, reference
        # Corrected rollouts are compared with the weights before the updates; a single update computes those itself.
        self.looks_back = config.grpo.rollout_correction != "none" and config.grpo.updates_per_rollout > 1
        shardings = state_shardings(begin, optimizer, mesh)
        trained = {path[0] for path, _ in nnx.to_flat_state(begin) if path[-1] == "kernel"}
        self.score, self.own, self.update, self.update_flops = {}, {}, {}, {}
        parts = config.optimizer.micro_batches
        for length in config.batch.completion_lengths:
            score = partial(shortened_log_probs, policy.structure, config, length, parts)
            of_length = partial(update or grpo_update, policy.structure, optimizer, config)
            shorter = partial(shortened_update, length, of_length)
            self.score[length] = jax.jit(on_mesh(mesh, score), out_shardings=batch_sharding(mesh))
            self.own[length] = self.score[length]
            self.update[length] = jax.jit(on_mesh(mesh, shorter), donate_argnums=0, out_shardings=(shardings, None))
            encodes = not takes_pictures
            self.update_flops[length] = update_flops(config, policy.config, trained, length, encodes=encodes)
        self._advantages = jax.jit(partial(update_advantages, config))

    def compile(self, ahead: Ahead, state, blank: Group, coef: float | None) -> list[Callable[[], None]]:
        """Jobs, one a length, that compile what `__call__` runs."""
        blanks = self._rows([blank] * local_count(self.config.batch.prompts))
        inputs, rewards, weights = placed_batch(blanks, self.mesh)
        peak_flops()  # measured on CPU, once
        return [partial(self._compile, ahead, state, length, inputs, rewards, weights, coef) for length in self.update]

    def compile_advantages(self, blank: Group) -> None:
        """Compiles what `advantages` runs."""
        groups = stack_groups([replace(blank, prompt=None)] * local_count(self.config.batch.prompts))
        self._advantages = self._advantages.lower(groups.mask, groups.rewards).compile()

    def __call__(
        self,
        state: TrainState,
        groups: Sequence[Group],
        rates: tuple[float, float, float | None],
        timing: Stopwatch,
    ) -> tuple[TrainState, dict[str, float]]:
        """The updates of one step.

        Args:
            groups: this process's part of `batch.prompts`.
            rates: the learning rate, the KL penalty's weight and, where it adapts, the entropy bonus's.
        """
        length, inputs, rewards, weights = self._placed(groups, timing)
        reference, own = self._compared(state, length, inputs, timing)
        return self._updated(state, length, (*inputs, rewards, reference, own, *rates, weights), timing)

    def advantages(self, groups: Sequence[Group]) -> Float[np.ndarray, "rows group"]:
        """Of the completions that the last step learnt from, to be shown; where they are relative to the batch, to this
        process's part of it."""
        mask, rewards = (np.stack([getattr(group, name) for group in groups]) for name in ("mask", "rewards"))
        advantages = np.asarray(self._advantages(mask, rewards))
        if self.config.data.curriculum:
            advantages = advantages * np.stack([group.weight for group in groups])[:, None]
        return advantages

    def _compile(self, ahead: Ahead, state: TrainState, length: int, inputs, rewards, weights, coef) -> None:
        reference, own = self._compile_compared(ahead, state, length, inputs)
        given = (state, self.frozen, *inputs, rewards, reference, own, 0.0, 0.0, coef, weights)
        self.update[length] = ahead(self._named("update", length), self.update[length], *given)

    def _compile_compared(self, ahead: Ahead, state, length: int, inputs) -> tuple:
        """Compiles what `_compared` runs; returns shapes in its place."""
        prompts, pictures, rollouts = inputs
        compared, reference, own = (prompts, pictures, rollouts.completions), None, None
        if self.reference is not None:
            name = self._named("reference", length)
            self.score[length] = ahead(name, self.score[length], self.reference, *compared)
            reference = returned(self.score[length])
        if self.looks_back:
            name, weights = self._named("own", length), join(state.params, self.frozen)
            self.own[length] = ahead(name, self.own[length], weights, *compared)
            own = returned(self.own[length])
        return reference, own

    def _placed(self, groups: Sequence[Group], timing: Stopwatch):
        """Which program they take; prompts, pictures and rollouts; rewards, and what groups weigh."""
        placed = place_batch(self._rows(groups), self.mesh)
        # Of all processes: they have to agree on the program.
        longest = max(gathered(max(int(group.mask.sum(-1).max()) for group in groups)))
        timing.lap("gather")
        return next(length for length in self.update if length >= longest), *placed

    def _compared(self, state, length: int, inputs, timing: Stopwatch) -> tuple:
        """Log-probabilities under the reference, and under the weights before the updates; None where not needed."""
        prompts, pictures, rollouts = inputs
        compared, reference, own = (prompts, pictures, rollouts.completions), None, None
        if self.reference is not None:
            reference = timing.measure("reference", self.score[length], self.reference, *compared)
        if self.looks_back:
            own = timing.measure("own", self.own[length], join(state.params, self.frozen), *compared)
        return reference, own

    def _updated(
        self, state: TrainState, length: int, given: tuple, timing: Stopwatch
    ) -> tuple[TrainState, dict[str, float]]:
        """The policy after its updates."""
        step, updated = int(state.step), dict[str, float]()
        for update in range(self.config.grpo.updates_per_rollout):
            state, measured = timing.measure("update", self.update[length], state, self.frozen, *given)
            # later updates are away from the sampler because of these rollouts, which is no fault of the sampler's
            updated |= {k: float(v) for k, v in measured.items() if update == 0 or not k.startswith("sampling/")}
        if self.config.grpo.updates_per_rollout > 1:  # the run counts steps, each update counted itself
            state = replace(state, step=place(np.int32(step + 1), replicated(self.mesh)))
        updated["mfu"] = self.update_flops[length] / timing.seconds["timing_s/update"] / peak_flops()
        return state, updated

    def _named(self, program: str, length: int) -> str:
        return program if length == self.config.batch.completion_length else f"{program} of {length}"

    def _rows(self, groups: Sequence[Group]):
        batch = batched(groups)
        weights = batch.weights if self.config.data.curriculum else None
        return (batch.prompts, batch.pictures, batch.rollouts), batch.rewards, weights


def update_flops(config: RunConfig, model: ModelConfig, trained: set[str], length: int, *, encodes: bool) -> float:
    """Of a step's updates at this length: forward, backward for activations, as much again for trained kernels.

    Args:
        trained: the towers with kernels that are trained.
        encodes: an update encodes the pictures itself.
    """
    batch, rows = config.batch, config.batch.prompts
    shapes = dict(prompt=batch.prompt_length, completion=length)
    kernels, attention = group_flops(model, rows=rows, group=config.rollout.group_size, **shapes)
    total = (3 if "language" in trained else 2) * kernels + 3 * attention
    if encodes:
        kernels, attention = picture_flops(model, pictures=rows * batch.pictures, patches=batch.patches)
        total += (3 if "vision" in trained else 2) * kernels + 3 * attention
    return total * config.grpo.updates_per_rollout


def shortened_update(length: int, update: Callable, state, frozen, prompts, pictures, rollouts: Rollouts, *rest):
    """`update` of the first `length` tokens of the completions, none of which is longer."""
    return update(state, frozen, prompts, pictures, shortened(rollouts, length), *rest)


def grpo_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    rollouts: Rollouts,
    rewards: Float[Array, "rows group"],
    reference_log_probs: Float[Array, "rows group time"] | None,
    own_log_probs: Float[Array, "rows group time"] | None,
    learning_rate: Float[Array, ""],
    kl_beta: Float[Array, ""],
    entropy_coef: Float[Array, ""] | None = None,
    weights: Float[Array, " rows"] | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Advantages, loss, gradient and update in one program.

    `pictures` are encoded ones that no gradient reaches; `rewards` are NaN where a completion could not be scored;
    `weights` are what groups' advantages are multiplied with.
    """
    settings = config.grpo
    advantages = update_advantages(config, rollouts.completions.mask, rewards)
    overlong = overlong_penalty(config, rollouts.completions.mask)
    rollouts = without_unscored(rollouts, rewards)
    if weights is not None:
        advantages = advantages * weights[:, None]
    given = (prompts, pictures, rollouts, advantages, reference_log_probs, own_log_probs)
    rates = (learning_rate, kl_beta, entropy_coef)
    state, metrics = policy_update(structure, optimizer, config, state, frozen, *given, *rates)
    metrics |= {"kl_coef": jnp.asarray(kl_beta)}
    if settings.overlong_penalty:
        metrics |= overlong_metrics(overlong, rewards)
    return state, metrics


def policy_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    prompts: PromptBatch,
    pictures: Float[Array, "rows media size"] | None,
    rollouts: Rollouts,
    advantages: Float[Array, "rows group"] | Float[Array, "rows group time"],
    reference_log_probs: Float[Array, "rows group time"] | None,
    own_log_probs: Float[Array, "rows group time"] | None,
    learning_rate: Float[Array, ""],
    kl_beta: Float[Array, ""],
    entropy_coef: Float[Array, ""] | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Loss, gradient and update by advantages of completions or of tokens, as `grpo_update`."""

    def loss(trained, batch):
        prompts, pictures, rollouts, advantages, reference_log_probs, own_log_probs = batch
        model = nnx.merge(structure, trained, frozen)
        temperature = config.rollout.temperature
        log_probs, entropy = model.completion_log_probs(prompts, rollouts.completions, temperature, pictures)
        return configured_objective(
            config.grpo,
            log_probs,
            entropy,
            rollouts,
            advantages,
            own_log_probs=own_log_probs,
            reference_log_probs=reference_log_probs,
            kl_beta=kl_beta,
            entropy_coef=entropy_coef,
            max_length=config.batch.completion_length,
            stops=model.config.special.stops,
            shaping=config.data.single,
        )

    batch = (prompts, pictures, rollouts, advantages, reference_log_probs, own_log_probs)
    parts = config.optimizer.micro_batches
    state, value, metrics = gradient_step(state, loss, batch, optimizer, learning_rate, parts)
    return state, metrics | {"loss": value, LEAST_RATIO: -metrics[LEAST_RATIO]}


def update_advantages(
    config: RunConfig, mask: Bool[Array, "rows group time"], rewards: Float[Array, "rows group"]
) -> Float[Array, "rows group"]:
    """What an update goes by, of the rewards less what a completion's length costs.

    Args:
        mask: where the completions have tokens.
        rewards: NaN where a completion could not be scored.
    """
    return configured_advantages(config.grpo, with_penalty(config, mask, rewards))


def with_penalty(
    config: RunConfig, mask: Bool[Array, "rows group time"], rewards: Float[Array, "rows group"]
) -> Float[Array, "rows group"]:
    """The rewards less what a completion's length costs."""
    return rewards + config.grpo.overlong_penalty * overlong_penalty(config, mask)


def overlong_penalty(config: RunConfig, mask: Bool[Array, "rows group time"]) -> Float[Array, "rows group"]:
    """From 0 for a completion that leaves room down to -1 for one of full length."""
    lengths, longest = mask.sum(-1), config.batch.completion_length
    return soft_overlong_penalty(lengths, max_length=longest, buffer=config.grpo.overlong_buffer)


def overlong_metrics(overlong: Float[Array, "rows group"], rewards: Float[Array, "rows group"]) -> dict:
    """The penalty's mean over what was scored."""
    scored = ~jnp.isnan(rewards)
    return {"rewards/overlong/mean": (overlong * scored).sum() / jnp.maximum(scored.sum(), 1)}
