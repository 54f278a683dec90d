"""Supervised training: the negative log-likelihood of target completions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptEncoder, PromptRow, stack_completions, stack_prompts
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import RowIterator
from m2io_jax.errors import RowError
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.policy import Policy
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.sharding import local_count, param_shardings, place, place_batch, placed_batch, shapes_of
from m2io_jax.tasks import find_task
from m2io_jax.tasks.task import choose
from m2io_jax.training.logging.samples import SampledGroup
from m2io_jax.training.optimizer import make_optimizer
from m2io_jax.training.programs import AOTCompiler, Program
from m2io_jax.training.state import (
    TrainState,
    abstract_state,
    gradient_step,
    init_train_state,
    split_trained,
    state_shardings,
)
from m2io_jax.training.trainer import TrainerState


@dataclass(frozen=True)
class SupervisedRow:
    """A prompt and the tokens of the completion it is to have."""

    prompt: PromptRow
    target: list[int]


class Supervised:
    """The supervised trainer (a `training.trainer.Trainer`): the target completions of tasks, from episodes' labels."""

    reference = None

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh):
        self.config, self.mesh = config, mesh
        self.encoder = PromptEncoder(policy.config, policy.codec, config.batch)
        self.optimizer = make_optimizer(config.optimizer)
        initial, self.frozen = split_trained(place(policy.params, param_shardings(policy.params, mesh)), config)
        self.trained = shapes_of(initial)
        shardings = state_shardings(initial, self.optimizer, mesh)
        update = partial(supervised_update, policy.structure, self.optimizer, config)
        update = jax.jit(on_mesh(mesh, update), donate_argnums=0, out_shardings=(shardings, None))
        self._update = Program("update", update)

    @staticmethod
    def validate(config: RunConfig) -> None:
        """Every task can be taught where it has something to teach; nothing else to check."""

    def init_state(self, params: nnx.State) -> TrainState:
        """Return the state of step 0 from the policy's weights."""
        return init_train_state(params, self.config, self.optimizer, self.mesh)

    def abstract_state(self) -> TrainState:
        """Return the shapes and shardings of what `init_state` returns."""
        return abstract_state(self.trained, self.optimizer, self.mesh)

    def state_dict(self) -> TrainerState:
        """Return nothing: a step leaves nothing to the next beside the `TrainState`."""
        return TrainerState({})

    def load_state_dict(self, values: Mapping[str, Any], arrays: Any) -> None:
        """Restore nothing."""

    def row(self, episode: Episode, random: np.random.Generator, tasks: Mapping[str, float]) -> SupervisedRow:
        """Prepare one example of one of the `tasks`, drawn by weight.

        Raises:
            RowError: if it does not fit the static shapes, or the task has nothing to teach with it.
        """
        task = find_task(choose(tasks, random))
        target = task.target(episode)
        if target is None:
            raise RowError(f"nothing to teach by the task {task.name}")
        prompt = self.encoder.row(task.prompt(episode), episode.candidates, seed=int(random.integers(2**31)))
        return SupervisedRow(prompt, self.encoder.completion(target))

    def compile(self, state: TrainState, compiler: AOTCompiler) -> dict[str, float]:
        """Compile the update ahead of time; return its seconds by name."""
        batch = self.config.batch
        rows = local_count(batch.prompts)
        prompts = stack_prompts([self.encoder.blank()] * rows)
        targets = stack_completions([[[]]] * rows, batch.completion_length, 0)
        given = placed_batch((prompts, targets), self.mesh)
        compiler(self._update, state, self.frozen, *given, 0.0)
        return compiler.seconds

    def step(
        self,
        state: TrainState,
        rows: RowIterator[SupervisedRow],
        *,
        learning_rate: float,
        progress: float,
        key: Key[Array, ""],
    ) -> tuple[TrainState, dict[str, float]]:
        """One update on the next rows. Nothing is drawn and nothing else is scheduled: `key` and `progress` are not
        used."""
        batch, pad = self.config.batch, self.encoder.model.special.pad
        taken = list(islice(rows, local_count(batch.prompts)))
        prompts = stack_prompts([row.prompt for row in taken])
        targets = stack_completions([[row.target] for row in taken], batch.completion_length, pad)
        state, metrics = self._update(state, self.frozen, *place_batch((prompts, targets), self.mesh), learning_rate)
        return state, {name: float(value) for name, value in metrics.items()}

    def samples(self, count: int) -> list[SampledGroup]:
        """None: nothing is sampled."""
        return []


def supervised_loss(model, prompts: PromptBatch, targets: Completions):
    """Sum of `-log p(token)` over target tokens, and their number; nats. The stop token is a target, padding is not."""
    log_probs, _ = model.completion_log_probs(prompts, targets)
    return -jnp.sum(log_probs * targets.mask), jnp.sum(targets.mask)


def supervised_update(
    structure: nnx.GraphDef,
    optimizer,
    config: RunConfig,
    state: TrainState,
    frozen: nnx.State,
    prompts: PromptBatch,
    targets: Completions,
    learning_rate,
):
    """Loss, gradient and update in one program."""

    def loss(trained, batch):
        total, tokens = supervised_loss(nnx.merge(structure, trained, frozen), *batch)
        return total, tokens, {}

    parts = config.optimizer.micro_batches
    state, value, metrics = gradient_step(state, loss, (prompts, targets), optimizer, learning_rate, parts)
    return state, {"loss": value, "num_tokens": targets.mask.sum()} | metrics
