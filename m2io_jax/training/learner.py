"""An update by GRPO (arXiv 2402.03300): groups become advantages, a loss and new weights. PPO's policy is updated by
the same code (training/ppo.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from m2io_jax.config import RunConfig
from m2io_jax.models.flops import group_flops, picture_flops
from m2io_jax.models.policy import Policy
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.parallel.exchange import gathered
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.peak import peak_flops
from m2io_jax.parallel.sharding import (
    batch_sharding,
    local_count,
    own_rows,
    place,
    place_batch,
    placed_batch,
    replicated,
)
from m2io_jax.rl.overlong import soft_overlong_penalty
from m2io_jax.training.group_sampler import shortened, shortened_log_probs
from m2io_jax.training.groups import Group, GroupBatch, batched
from m2io_jax.training.objective import LEAST_RATIO, configured_advantages, configured_objective
from m2io_jax.training.programs import Ahead, Program, Runner, Stopwatch
from m2io_jax.training.scoring import without_unscored
from m2io_jax.training.state import TrainState, gradient_step, state_shardings
from m2io_jax.training.trained import join


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rates:
    """What of an update goes by the run's progress.

    Attributes:
        kl_beta: weight of the KL penalty.
        entropy_coef: of the entropy bonus where it adapts; None where it is constant.
    """

    learning_rate: Float[Array, ""]
    kl_beta: Float[Array, ""]
    entropy_coef: Float[Array, ""] | None = None


@dataclass(frozen=True)
class Start:
    """What a run's updates are made for.

    Attributes:
        begin, frozen: the weights that are trained, as they begin or their shapes, and those that are not.
        reference: all weights of what the KL is taken to; None where there is none.
    """

    config: RunConfig
    policy: Policy
    mesh: Mesh
    optimizer: optax.GradientTransformation
    begin: nnx.State
    frozen: nnx.State
    reference: nnx.State | None


class Updates:
    """The updates of a step on completions of at most `length` tokens.

    Args:
        update: `grpo_update`, or what returns the same and takes more after the batch.
    """

    def __init__(self, length: int, start: Start, update: Callable | None = None):
        config, structure, mesh, optimizer = start.config, start.policy.structure, start.mesh, start.optimizer
        self.length, self.config, self.frozen, self.reference = length, config, start.frozen, start.reference
        # Corrected rollouts are compared with the weights before the updates; a single update computes those itself.
        self.looks_back = config.grpo.rollout_correction != "none" and config.grpo.updates_per_rollout > 1
        shardings, rows = state_shardings(start.begin, optimizer, mesh), batch_sharding(mesh)
        score = partial(shortened_log_probs, structure, config, length, config.optimizer.micro_batches)
        score = jax.jit(on_mesh(mesh, score), out_shardings=rows)
        update = partial(shortened_update, length, partial(update or grpo_update, structure, optimizer, config))
        update = jax.jit(on_mesh(mesh, update), donate_argnums=0, out_shardings=(shardings, None, rows))
        self.score, self.own, self.update = (
            self.program(name, each) for name, each in (("reference", score), ("own", score), ("update", update))
        )

    def program(self, name: str, function: Callable) -> Program:
        whole = self.length == self.config.batch.completion_length
        return Program(name if whole else f"{name} of {self.length}", function, part=name)

    def __call__(
        self, run: Runner, state: TrainState, batch: GroupBatch, rates: Rates
    ) -> tuple[TrainState, dict, Float[Array, "rows group"]]:
        """State, metrics and the completions' advantages after the updates."""
        return self.updated(run, state, self.compared(run, state.params, batch), rates)

    def compared(self, run: Runner, params: nnx.State, batch: GroupBatch) -> GroupBatch:
        """With log-probabilities under the reference, and under the weights before the updates, where needed."""
        given, reference, own = (batch.prompts, batch.pictures, batch.rollouts.completions), None, None
        if self.reference is not None:
            reference = run(self.score, self.reference, *given)
        if self.looks_back:
            own = run(self.own, join(params, self.frozen), *given)
        return replace(batch, reference_log_probs=reference, own_log_probs=own)

    def updated(self, run: Runner, state: TrainState, *given) -> tuple[TrainState, dict, Float[Array, "rows group"]]:
        told = {}
        for update in range(self.config.grpo.updates_per_rollout):
            state, metrics, advantages = run(self.update, state, self.frozen, *given)
            # later updates are away from the sampler because of these rollouts, which is no fault of the sampler's
            told |= {name: x for name, x in metrics.items() if update == 0 or not name.startswith("sampling/")}
        return state, told, advantages


class Learner:
    """Updates the policy, each time by the program of the shortest of `batch.completion_lengths` that all fit in.

    Attributes:
        updates: by length, rising.
        update_flops: of a step's updates, by length.

    Args:
        takes_pictures: groups come with their encoded pictures.
    """

    of_length: type[Updates] = Updates

    def __init__(self, start: Start, *, takes_pictures: bool):
        self.config, self.mesh, self._advantages = start.config, start.mesh, None
        trained = {path[0] for path, _ in nnx.to_flat_state(start.begin) if path[-1] == "kernel"}
        self.updates = {length: self.of_length(length, start) for length in self.config.batch.completion_lengths}
        self.update_flops = {
            length: update_flops(self.config, start.policy.config, trained, length, encodes=not takes_pictures)
            for length in self.updates
        }

    def compile(self, ahead: Ahead, state, blank: Group, coef: float | None) -> list[Callable[[], Any]]:
        """Jobs, one a length, that compile what `__call__` runs."""
        batch = placed_batch(self._batch([blank] * local_count(self.config.batch.prompts)), self.mesh)
        peak_flops()  # measured on CPU, once
        return [partial(updates, ahead, state, batch, Rates(0.0, 0.0, coef)) for updates in self.updates.values()]

    def __call__(
        self, run: Stopwatch, state: TrainState, groups: Sequence[Group], rates: Rates
    ) -> tuple[TrainState, dict[str, float]]:
        """The updates of one step.

        Args:
            groups: this process's part of `batch.prompts`.
        """
        step, batch = int(state.step), place_batch(self._batch(groups), self.mesh)
        # Of all processes: they have to agree on the program.
        longest = max(gathered(max(int(group.mask.sum(-1).max()) for group in groups)))
        length = next(length for length in self.updates if length >= longest)
        run.lap("gather")
        state, metrics, self._advantages = self.updates[length](run, state, batch, rates)
        if self.config.grpo.updates_per_rollout > 1:  # the run counts steps, each update counted itself
            state = state.at(place(np.int32(step + 1), replicated(self.mesh)))
        mfu = self.update_flops[length] / run.seconds["timing_s/update"] / peak_flops()
        return state, {name: float(x) for name, x in metrics.items()} | {"mfu": mfu}

    def advantages(self) -> Float[np.ndarray, "rows group"]:
        """Of the groups that the last step learnt from, to be shown."""
        return own_rows(self._advantages)

    def _batch(self, groups: Sequence[Group]) -> GroupBatch:
        batch = batched(groups)
        return batch if self.config.data.curriculum else replace(batch, weights=None)


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


def shortened_update(length: int, update: Callable, state, frozen, batch: GroupBatch, *rest):
    """`update` of the first `length` tokens of the completions, none of which is longer."""
    return update(state, frozen, replace(batch, rollouts=shortened(batch.rollouts, length)), *rest)


def grpo_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    batch: GroupBatch,
    rates: Rates,
) -> tuple[TrainState, dict[str, Float[Array, ""]], Float[Array, "rows group"]]:
    """Advantages, loss, gradient and update in one program; returns state, metrics and the advantages."""
    mask = batch.rollouts.completions.mask
    advantages = configured_advantages(config.grpo, with_penalty(config, mask, batch.rewards))
    if batch.weights is not None:
        advantages = advantages * batch.weights[:, None]
    learnt = replace(batch, rollouts=without_unscored(batch.rollouts, batch.rewards))
    state, metrics = policy_update(structure, optimizer, config, state, frozen, learnt, advantages, rates)
    metrics |= {"kl_coef": jnp.asarray(rates.kl_beta)}
    if config.grpo.overlong_penalty:
        metrics |= overlong_metrics(overlong_penalty(config, mask), batch.rewards)
    return state, metrics, advantages


def policy_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    batch: GroupBatch,
    advantages: Float[Array, "rows group"] | Float[Array, "rows group time"],
    rates: Rates,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Loss, gradient and update by advantages of completions or of tokens."""

    def loss(trained, rows):
        batch, advantages = rows
        model = nnx.merge(structure, trained, frozen)
        given = (batch.prompts, batch.rollouts.completions, config.rollout.temperature, batch.pictures)
        log_probs, entropy = model.completion_log_probs(*given)
        return configured_objective(
            config.grpo,
            log_probs,
            entropy,
            batch.rollouts,
            advantages,
            own_log_probs=batch.own_log_probs,
            reference_log_probs=batch.reference_log_probs,
            kl_beta=rates.kl_beta,
            entropy_coef=rates.entropy_coef,
            max_length=config.batch.completion_length,
            stops=model.config.special.stops,
            shaping=config.data.single,
        )

    parts = config.optimizer.micro_batches
    given = (state, loss, (batch, advantages), optimizer, rates.learning_rate, parts)
    state, value, metrics = gradient_step(*given)
    return state, metrics | {"loss": value, LEAST_RATIO: -metrics[LEAST_RATIO]}


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
