"""What a training step reads and returns, and the one way it changes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int

from m2io_jax.parallel.sharding import optimizer_shardings, param_shardings, placed, replicated
from m2io_jax.training.optimizer import apply

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything an update changes.

    Attributes:
        params: the policy's weights.
        opt_state: the optimiser's moments.
        step: steps of the run made so far.
    """

    params: nnx.State
    opt_state: optax.OptState
    step: Int[Array, ""]

    def at(self, step: Int[Array, ""]) -> "TrainState":
        return replace(self, step=step)


def begin(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A state with untouched moments, placed on the mesh. The weights are copied: updates give their buffers away."""
    copied = partial(_untouched, optimizer)
    return jax.jit(copied, out_shardings=state_shardings(params, optimizer, mesh))(params)


def abstract_state(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes and places of what `begin` returns; nothing is allocated."""
    return placed(jax.eval_shape(partial(_untouched, optimizer), params), state_shardings(params, optimizer, mesh))


def _untouched(optimizer: optax.GradientTransformation, params: nnx.State) -> TrainState:
    params = jax.tree.map(jnp.copy, params)
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def state_shardings(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Where each array of a state lives."""
    return TrainState(param_shardings(params, mesh), optimizer_shardings(optimizer, params, mesh), replicated(mesh))


def gradient_step(
    state: TrainState,
    loss: Callable,
    batch: T,
    optimizer: optax.GradientTransformation,
    learning_rate,
    micro_batches: int = 1,
) -> tuple[TrainState, jax.Array, dict[str, jax.Array]]:
    """One update by `loss(params, batch) -> (sum, denominator, metrics)`.

    Each metric is a (sum, denominator) too, or an array of which the largest counts. Where the loss's denominator is 0,
    there is nothing to learn from, and the weights stay as they are: no momentum and no decay moves them.

    The batch may go through in micro-batches, one after another: sums and gradients of sums are added up and divided
    once, so that their number changes nothing but the memory that is held.

    Returns:
        The new state, the loss, and metrics.

    Raises:
        ValueError: the rows of the batch do not divide into micro-batches.
    """

    def summed(params, part):
        total, denominator, metrics = loss(params, part)
        return total, {"loss": (total, denominator)} | metrics

    gradient = jax.grad(summed, has_aux=True)
    if micro_batches == 1:
        gradients, sums = gradient(state.params, batch)
    else:
        parts = jax.tree.map(partial(_parts, count=micro_batches), batch)
        like = jax.eval_shape(gradient, state.params, jax.tree.map(lambda x: x[0], parts))
        nothing = jax.tree.map(_zeros, like[0]), {name: _nothing(each) for name, each in like[1].items()}

        def add(sofar, part):
            gradients, sums = gradient(state.params, part)
            both = {name: _both(sofar[1][name], sums[name]) for name in sums}
            return (jax.tree.map(jnp.add, sofar[0], gradients), both), None

        (gradients, sums), _ = jax.lax.scan(add, nothing, parts)
    means = {name: _mean(each) for name, each in sums.items()}
    gradients = jax.tree.map(lambda leaf: leaf / jnp.maximum(sums["loss"][1], 1).astype(leaf.dtype), gradients)
    learning_rate = jnp.where(sums["loss"][1] > 0, learning_rate, 0.0)
    direction, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = apply(state.params, direction, learning_rate)
    metrics = {"grad_norm": optax.tree.norm(gradients), "learning_rate": jnp.asarray(learning_rate)}
    return TrainState(params, opt_state, state.step + 1), means.pop("loss"), metrics | means


def _parts(rows: jax.Array, count: int) -> jax.Array:
    """[count, rows / count, ...]: rows of every device in every part, where a device has as many rows as parts."""
    if rows.shape[0] % count:
        raise ValueError(f"{rows.shape[0]} rows do not divide into {count} micro-batches")
    return jnp.swapaxes(rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]), 0, 1)


def in_parts(function: Callable, count: int, rows: T):
    """`function(rows)`, of an array by rows, computed for so many micro-batches one after another."""
    if count == 1:
        return function(rows)
    done = jax.lax.map(function, jax.tree.map(partial(_parts, count=count), rows))
    return jnp.swapaxes(done, 0, 1).reshape(-1, *done.shape[2:])


def _zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(like.shape, like.dtype)


def _nothing(metric):
    """What `_both` adds nothing with."""
    return jax.tree.map(_zeros, metric) if isinstance(metric, tuple) else jnp.full(metric.shape, -jnp.inf, metric.dtype)


def _both(a, b):
    return (a[0] + b[0], a[1] + b[1]) if isinstance(a, tuple) else jnp.maximum(a, b)


def _mean(metric):
    return metric[0] / jnp.maximum(metric[1], 1) if isinstance(metric, tuple) else metric
