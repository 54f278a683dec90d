"""What a training step reads and returns, and the one way it changes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int

from m2io_jax.parallel.sharding import optimizer_shardings, param_shardings, replicated
from m2io_jax.training.optimizer import apply


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


def begin(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A state with untouched moments, placed on the mesh. The weights are copied: updates give their buffers away."""
    copied = partial(_untouched, optimizer)
    return jax.jit(copied, out_shardings=state_shardings(params, optimizer, mesh))(params)


def abstract_state(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes and places of what `begin` returns; nothing is allocated."""

    def placed(shape, sharding):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    shapes = jax.eval_shape(partial(_untouched, optimizer), params)
    return jax.tree.map(placed, shapes, state_shardings(params, optimizer, mesh))


def _untouched(optimizer: optax.GradientTransformation, params: nnx.State) -> TrainState:
    params = jax.tree.map(jnp.copy, params)
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def state_shardings(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Where each array of a state lives."""
    return TrainState(param_shardings(params, mesh), optimizer_shardings(optimizer, params, mesh), replicated(mesh))


def gradient_step(state: TrainState, loss: Callable, optimizer: optax.GradientTransformation, learning_rate):
    """One update by `loss(params) -> (value, aux)`. Returns the new state, the value, and metrics, `aux` among them."""
    (value, aux), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    direction, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = apply(state.params, direction, learning_rate)
    metrics = {"grad_norm": optax.tree.norm(gradients), "learning_rate": jnp.asarray(learning_rate), "aux": aux}
    return TrainState(params, opt_state, state.step + 1), value, metrics
