"""What a training step reads and returns."""

from dataclasses import dataclass

import jax
import optax
from flax import nnx
from jaxtyping import Array, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything an update changes.

    Attributes:
        params: the policy's weights.
        opt_state: the optimiser's moments.
        step: updates made so far.
    """

    params: nnx.State
    opt_state: optax.OptState
    step: Int[Array, ""]


def begin(params: nnx.State, optimizer: optax.GradientTransformation) -> TrainState:
    """A state with untouched moments."""
    return TrainState(params, optimizer.init(params), jax.numpy.zeros((), jax.numpy.int32))
