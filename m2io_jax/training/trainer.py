"""What the training loop needs of a trainer, and how it finds one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key

from m2io_jax.config import RunConfig
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.pipeline import RowIterator
from m2io_jax.models.policy import Policy
from m2io_jax.training.logging.samples import SampledGroup
from m2io_jax.training.programs import AOTCompiler

# Where the trainer of each `objective` is defined. Named, not imported: trainers import this package.
TRAINERS = {
    "supervised": "m2io_jax.training.supervised:Supervised",
    "grpo": "m2io_jax.rl.grpo:GRPO",
    "ppo": "m2io_jax.rl.ppo:PPO",
}


@dataclass(frozen=True)
class TrainerState:
    """What a trainer carries from step to step beside its `TrainState`. Every checkpoint has it.

    Attributes:
        values: JSON values.
        arrays: a pytree of arrays whose shapes never change, or None.
    """

    values: dict[str, Any]
    arrays: Any = None


class Trainer(Protocol):
    """Trains a policy, one step at a time.

    Attributes:
        mesh: the devices it runs on.
        trained: shapes of the weights that are trained.
        frozen: the weights that are not.
        reference: all weights of the reference policy; None where there is no KL penalty.
    """

    mesh: Mesh
    trained: nnx.State
    frozen: nnx.State
    reference: nnx.State | None

    def __init__(self, config: RunConfig, policy: Policy, mesh: Mesh): ...

    @staticmethod
    def validate(config: RunConfig) -> None:
        """Check what the configuration cannot know by itself, before any weights are loaded.

        Raises:
            UserError: if tasks, rewards and methods do not suit one another.
        """

    def row(self, episode: Episode, random: np.random.Generator, tasks: Mapping[str, float]) -> Any:
        """Prepare one prompt for one of the `tasks`, drawn by weight, in the data pipeline.

        Raises:
            RowError: if it does not fit the static shapes, or the task has no use for it.
        """

    def init_state(self, params: nnx.State) -> Any:
        """Return the `TrainState` of step 0 from the policy's weights."""

    def abstract_state(self) -> Any:
        """Return the shapes and shardings of what `init_state` returns; nothing is allocated."""

    def compile(self, state: Any, compiler: AOTCompiler) -> dict[str, float]:
        """Compile every program of a step ahead of time; return the seconds of each."""

    def step(
        self, state: Any, rows: RowIterator, *, learning_rate: float, progress: float, key: Key[Array, ""]
    ) -> tuple[Any, dict[str, float]]:
        """Make one step and return the new state and metrics.

        Args:
            rows: the data; as many as the step needs are taken.
            progress: fraction of the run that is done.
        """

    def samples(self, count: int) -> Sequence[SampledGroup]:
        """Return up to `count` groups that the last step learnt from, to be shown."""

    def state_dict(self) -> TrainerState:
        """Return what the trainer carries from step to step."""

    def load_state_dict(self, values: Mapping[str, Any], arrays: Any) -> None:
        """Restore what `state_dict` returned."""


def trainer_class(objective: str) -> type[Trainer]:
    """Return the trainer of an `objective`."""
    module, _, name = TRAINERS[objective].partition(":")
    return getattr(import_module(module), name)
