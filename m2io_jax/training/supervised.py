"""Supervised training: the negative log-likelihood of target completions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

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
from m2io_jax.parallel.sharding import local_count, param_shardings, place, place_batch, placed_batch
from m2io_jax.tasks import find_task
from m2io_jax.tasks.task import choose
from m2io_jax.training.logging.samples import SampledGroup
from m2io_jax.training.optimizer import make_optimizer
from m2io_jax.training.programs import Ahead, Program
from m2io_jax.training.state import TrainState, gradient_step, state_shardings
from m2io_jax.training.trained import split


@dataclass(frozen=True)
class SupervisedRow:
    """A prompt and the tokens of the completion it is to have."""

    prompt: PromptRow
    target: list[int]


class Supervised:
    """Trains on the completions that tasks teach from the episodes' labels."""

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh):
        self.config, self.mesh = config, mesh
        self.encoder = PromptEncoder(policy.config, policy.codec, config.batch)
        self.memory = {}  # a step leaves nothing to the next beside the state
        self.reference = None  # nothing is compared with the policy that it began with
        self.optimizer = make_optimizer(config.optimizer)
        self.begin, self.frozen = split(place(policy.params, param_shardings(policy.params, mesh)), config)
        shardings = state_shardings(self.begin, self.optimizer, mesh)
        update = partial(supervised_update, policy.structure, self.optimizer, config)
        update = jax.jit(on_mesh(mesh, update), donate_argnums=0, out_shardings=(shardings, None))
        self._update = Program("update", update)

    def state(self, make: Callable) -> TrainState:
        """What a step takes and returns; `make` is `state.begin`, or `state.abstract_state` for shapes alone."""
        return make(self.begin, self.optimizer, self.mesh)

    def rollouts(self) -> None:
        """Nothing that later steps learn from."""

    def row(self, episode: Episode, random: np.random.Generator, tasks: Mapping[str, float]) -> SupervisedRow:
        """Prepares one example of one of the `tasks`, drawn by weight, in the data pipeline.

        Raises:
            RowError: it does not fit the static shapes, or the task has nothing to teach with it.
        """
        task = find_task(choose(tasks, random))
        target = task.target(episode)
        if target is None:
            raise RowError(f"nothing to teach by the task {task.name}")
        prompt = self.encoder.row(task.prompt(episode), episode.candidates, seed=int(random.integers(2**31)))
        return SupervisedRow(prompt, self.encoder.completion(target))

    def compile(self, state: TrainState, ahead: Ahead) -> dict[str, float]:
        """Compiles the update, before the first step; returns its seconds by name."""
        batch = self.config.batch
        rows = local_count(batch.prompts)
        prompts = stack_prompts([self.encoder.blank()] * rows)
        targets = stack_completions([[[]]] * rows, batch.completion_length, 0)
        given = placed_batch((prompts, targets), self.mesh)
        ahead(self._update, state, self.frozen, *given, 0.0)
        return ahead.seconds

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
