"""The learner: runs a step's updates by the program of the shortest length that the completions fit in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

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
from m2io_jax.rl.rollout import Group, GroupBatch, completion_log_probs, to_batch, truncate
from m2io_jax.training.programs import AOTCompiler, Program, Runner, TimedRunner
from m2io_jax.training.state import TrainState, join, state_shardings


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Schedules:
    """Values that change from step to step.

    Attributes:
        kl_coef: coefficient of the KL penalty.
        entropy_coef: coefficient of the entropy bonus where it adapts; None where it is constant.
    """

    learning_rate: Float[Array, ""]
    kl_coef: Float[Array, ""]
    entropy_coef: Float[Array, ""] | None = None


@dataclass(frozen=True)
class LearnerInputs:
    """What a run's updates are built from.

    Attributes:
        trained, frozen: the weights that are trained (or their shapes), and those that are not.
        reference: all weights of the reference policy; None where there is no KL penalty.
    """

    config: RunConfig
    policy: Policy
    mesh: Mesh
    optimizer: optax.GradientTransformation
    trained: nnx.State
    frozen: nnx.State
    reference: nnx.State | None


class Updates:
    """The updates of a step on completions of at most `length` tokens.

    Args:
        update: the jitted update, such as `grpo_update`; it takes structure, optimizer, configuration, state, frozen
            weights, the batch and more, and returns state, metrics and the completions' advantages.
    """

    def __init__(self, length: int, inputs: LearnerInputs, update: Callable):
        config, structure, mesh, optimizer = inputs.config, inputs.policy.structure, inputs.mesh, inputs.optimizer
        self.length, self.config, self.frozen, self.reference = length, config, inputs.frozen, inputs.reference
        # A single update on corrected rollouts computes the old log-probs itself.
        self.needs_old_log_probs = config.grpo.rollout_correction != "none" and config.grpo.updates_per_rollout > 1
        shardings, rows = state_shardings(inputs.trained, optimizer, mesh), batch_sharding(mesh)
        score = partial(completion_log_probs, structure, config, length, config.optimizer.micro_batches)
        score = jax.jit(on_mesh(mesh, score), out_shardings=rows)
        update = partial(shortened_update, length, partial(update, structure, optimizer, config))
        update = jax.jit(on_mesh(mesh, update), donate_argnums=0, out_shardings=(shardings, None, rows))
        self.score, self.old, self.update = (
            self.program(name, each) for name, each in (("reference", score), ("old", score), ("update", update))
        )

    def program(self, name: str, function: Callable) -> Program:
        """Name a jitted function after its length, unless that is the longest."""
        is_longest = self.length == self.config.batch.completion_length
        return Program(name if is_longest else f"{name} of {self.length}", function, timing_key=name)

    def __call__(
        self, run: Runner, state: TrainState, batch: GroupBatch, schedules: Schedules
    ) -> tuple[TrainState, dict, Float[Array, "rows group"]]:
        """Return state, metrics and the completions' advantages after the updates."""
        batch = self.with_old_and_ref_log_probs(run, state.params, batch)
        return self.run_updates(run, state, batch, schedules)

    def with_old_and_ref_log_probs(self, run: Runner, params: nnx.State, batch: GroupBatch) -> GroupBatch:
        """Fill in log-probs under the reference and under the policy before the updates, where they are needed."""
        given, reference, old = (batch.prompts, batch.pictures, batch.rollouts.completions), None, None
        if self.reference is not None:
            reference = run(self.score, self.reference, *given)
        if self.needs_old_log_probs:
            old = run(self.old, join(params, self.frozen), *given)
        return replace(batch, ref_log_probs=reference, old_log_probs=old)

    def run_updates(
        self, run: Runner, state: TrainState, *given
    ) -> tuple[TrainState, dict, Float[Array, "rows group"]]:
        """Run `updates_per_rollout` updates on the same batch."""
        metrics = {}
        for update in range(self.config.grpo.updates_per_rollout):
            state, measured, advantages = run(self.update, state, self.frozen, *given)
            # after the first update the policy has moved away from the sampler, which is no error of the sampler's
            metrics |= {name: x for name, x in measured.items() if update == 0 or not name.startswith("sampling/")}
        return state, metrics, advantages


class Learner:
    """Updates the policy, by the program of the shortest of `batch.completion_lengths` that all completions fit in.

    Attributes:
        updates: by length, rising.
        update_flops: of a step's updates, by length.

    Args:
        make_updates: `make_updates(length, inputs)` returns the `Updates` of a length.
        takes_pictures: groups come with their encoded images.
    """

    def __init__(self, inputs: LearnerInputs, make_updates: Callable[..., Updates], *, takes_pictures: bool):
        self.config, self.mesh, self._advantages = inputs.config, inputs.mesh, None
        towers = {path[0] for path, _ in nnx.to_flat_state(inputs.trained) if path[-1] == "kernel"}
        self.updates = {length: make_updates(length, inputs) for length in self.config.batch.completion_lengths}
        self.update_flops = {
            length: update_flops(self.config, inputs.policy.config, towers, length, encodes=not takes_pictures)
            for length in self.updates
        }

    def compile(
        self, compiler: AOTCompiler, state, padding: Group, entropy_coef: float | None
    ) -> list[Callable[[], Any]]:
        """Return jobs, one a length, that compile what `__call__` runs."""
        batch = placed_batch(self._batch([padding] * local_count(self.config.batch.prompts)), self.mesh)
        peak_flops()  # measured on CPU, once
        schedules = Schedules(0.0, 0.0, entropy_coef)
        return [partial(updates, compiler, state, batch, schedules) for updates in self.updates.values()]

    def __call__(
        self, run: TimedRunner, state: TrainState, groups: Sequence[Group], schedules: Schedules
    ) -> tuple[TrainState, dict[str, float]]:
        """Run the updates of one step.

        Args:
            groups: this process's part of `batch.prompts`.
        """
        step, batch = int(state.step), place_batch(self._batch(groups), self.mesh)
        # All processes must choose the same program.
        longest = max(gathered(max(int(group.mask.sum(-1).max()) for group in groups)))
        length = next(length for length in self.updates if length >= longest)
        run.lap("gather")
        state, metrics, self._advantages = self.updates[length](run, state, batch, schedules)
        if self.config.grpo.updates_per_rollout > 1:  # a run counts steps, and each update counted itself
            state = state.at(place(np.int32(step + 1), replicated(self.mesh)))
        mfu = self.update_flops[length] / run.seconds["timing_s/update"] / peak_flops()
        return state, {name: float(x) for name, x in metrics.items()} | {"mfu": mfu}

    def advantages(self) -> Float[np.ndarray, "rows group"]:
        """Return the advantages of the groups that the last step learnt from, to be shown."""
        return own_rows(self._advantages)

    def _batch(self, groups: Sequence[Group]) -> GroupBatch:
        batch = to_batch(groups)
        return batch if self.config.data.curriculum else replace(batch, weights=None)


def shortened_update(length: int, update: Callable, state, frozen, batch: GroupBatch, *rest):
    """Run `update` on the first `length` tokens of the completions, none of which is longer."""
    return update(state, frozen, replace(batch, rollouts=truncate(batch.rollouts, length)), *rest)


def update_flops(config: RunConfig, model: ModelConfig, towers: set[str], length: int, *, encodes: bool) -> float:
    """Count the FLOPs of a step's updates at this length: forward, backward for activations, and as much again for
    kernels that are trained.

    Args:
        towers: those with kernels that are trained.
        encodes: an update encodes the images itself.
    """
    batch, rows = config.batch, config.batch.prompts
    shapes = dict(prompt=batch.prompt_length, completion=length)
    kernels, attention = group_flops(model, rows=rows, group=config.rollout.group_size, **shapes)
    total = (3 if "language" in towers else 2) * kernels + 3 * attention
    if encodes:
        kernels, attention = picture_flops(model, pictures=rows * batch.pictures, patches=batch.patches)
        total += (3 if "vision" in towers else 2) * kernels + 3 * attention
    return total * config.grpo.updates_per_rollout
