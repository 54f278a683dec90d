"""The training state: what an update reads and returns, which weights are trained, and the gradient step that all
trainers share."""

import re
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

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.models.lora import is_adapter
from m2io_jax.parallel.sharding import are_shapes, optimizer_shardings, param_shardings, place, placed, replicated
from m2io_jax.training.optimizer import apply

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything an update changes.

    Attributes:
        params: the trained weights.
        opt_state: the optimizer's moments.
        step: steps of the run so far.
    """

    params: nnx.State
    opt_state: optax.OptState
    step: Int[Array, ""]

    def at(self, step: Int[Array, ""]) -> "TrainState":
        """Return the state with another step count."""
        return replace(self, step=step)


def new_state(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Return the state of step 0, placed on the mesh. Weights are copied, since updates donate their buffers."""
    initial = partial(_initial_state, optimizer)
    return jax.jit(initial, out_shardings=state_shardings(params, optimizer, mesh))(params)


def abstract_state(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Return the shapes and shardings of what `new_state` returns; nothing is allocated."""
    return placed(jax.eval_shape(partial(_initial_state, optimizer), params), state_shardings(params, optimizer, mesh))


def _initial_state(optimizer: optax.GradientTransformation, params: nnx.State) -> TrainState:
    params = jax.tree.map(jnp.copy, params)
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def state_shardings(params: nnx.State, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Return the sharding of every array of a state."""
    return TrainState(param_shardings(params, mesh), optimizer_shardings(optimizer, params, mesh), replicated(mesh))


def split_trained(params: nnx.State, config: RunConfig) -> tuple[nnx.State, nnx.State]:
    """Split parameters into trained and frozen ones, as `select_trained` does, and cast the frozen ones.

    Trained parameters keep their dtype (float32 master weights); frozen ones are cast to the compute dtype.

    Raises:
        UserError: if a pattern of `freeze` matches no parameter, or nothing is left to train.
    """
    trained, frozen = select_trained(params, config)
    return trained, to_compute_dtype(frozen, config)


def init_train_state(
    params: nnx.State, config: RunConfig, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Return the state of step 0 for the weights of `params` that are trained; raises UserError as `split_trained`."""
    trained, _ = select_trained(place(params, param_shardings(params, mesh)), config)
    return new_state(trained, optimizer, mesh)


def select_trained(params: nnx.State, config: RunConfig) -> tuple[nnx.State, nnx.State]:
    """Tell trained parameters from frozen ones: under LoRA only adapters are trained, else all but `freeze`.

    Raises:
        UserError: if a pattern of `freeze` matches no parameter, or nothing is left to train.
    """
    flat = nnx.to_flat_state(params)
    names = [".".join(map(str, path)) for path, _ in flat]
    for pattern in config.freeze:
        if not any(re.fullmatch(pattern, name) for name in names):
            mend = f"patterns are for whole names, such as {names[0]}"
            raise UserError(f"{pattern!r} names no parameter.", where="freeze", mend=mend)

    def is_trained(path: tuple, name: str) -> bool:
        chosen = is_adapter(path) if config.lora else True
        return chosen and not any(re.fullmatch(pattern, name) for pattern in config.freeze)

    trained = [(path, param) for (path, param), name in zip(flat, names, strict=True) if is_trained(path, name)]
    kept = {path for path, _ in trained}
    if not trained:
        raise UserError("Nothing is left to train.", where="freeze")
    frozen = [(path, param) for path, param in flat if path not in kept]
    return nnx.from_flat_state(trained), nnx.from_flat_state(frozen)


def to_compute_dtype(params: nnx.State, config: RunConfig) -> nnx.State:
    """Cast weights that do not change (or their shapes) to the dtype they are computed in."""
    dtype = config.computation.dtype
    if are_shapes(params):
        return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape.shape, dtype, sharding=shape.sharding), params)
    return jax.tree.map(lambda weight: weight.astype(dtype), params)


def join(trained: nnx.State, frozen: nnx.State) -> nnx.State:
    """Join trained and frozen parameters into the whole model's."""
    return nnx.from_flat_state([*nnx.to_flat_state(trained), *nnx.to_flat_state(frozen)])


def gradient_step(
    state: TrainState,
    loss: Callable,
    batch: T,
    optimizer: optax.GradientTransformation,
    learning_rate,
    micro_batches: int = 1,
) -> tuple[TrainState, jax.Array, dict[str, jax.Array]]:
    """Make one update by `loss(params, batch) -> (sum, denominator, metrics)`.

    Each metric is a (sum, denominator) too, or an array of which the largest value is kept. Where the loss's
    denominator is 0 there is nothing to learn from, and the weights stay as they are: neither momentum nor decay moves
    them. With several micro-batches (gradient accumulation), sums and gradients of sums are added up and divided once,
    so that their number changes nothing but the memory.

    Returns:
        The new state, the loss, and metrics.

    Raises:
        ValueError: if the rows of the batch do not divide into micro-batches.
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
        zero = jax.tree.map(_zeros, like[0]), {name: _zero_metric(each) for name, each in like[1].items()}

        def add(total, part):
            gradients, sums = gradient(state.params, part)
            both = {name: _add_metrics(total[1][name], sums[name]) for name in sums}
            return (jax.tree.map(jnp.add, total[0], gradients), both), None

        (gradients, sums), _ = jax.lax.scan(add, zero, parts)
    means = {name: _mean(each) for name, each in sums.items()}
    gradients = jax.tree.map(lambda leaf: leaf / jnp.maximum(sums["loss"][1], 1).astype(leaf.dtype), gradients)
    learning_rate = jnp.where(sums["loss"][1] > 0, learning_rate, 0.0)
    direction, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = apply(state.params, direction, learning_rate)
    metrics = {"grad_norm": optax.tree.norm(gradients), "learning_rate": jnp.asarray(learning_rate)}
    return TrainState(params, opt_state, state.step + 1), means.pop("loss"), metrics | means


def in_parts(function: Callable, count: int, rows: T):
    """Compute `function(rows)`, an array by rows, for `count` micro-batches one after another."""
    if count == 1:
        return function(rows)
    done = jax.lax.map(function, jax.tree.map(partial(_parts, count=count), rows))
    return jnp.swapaxes(done, 0, 1).reshape(-1, *done.shape[2:])


def _parts(rows: jax.Array, count: int) -> jax.Array:
    """Reshape to [count, rows / count, ...]: rows of every device in every part, where it has as many rows as parts."""
    if rows.shape[0] % count:
        raise ValueError(f"{rows.shape[0]} rows do not divide into {count} micro-batches")
    return jnp.swapaxes(rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]), 0, 1)


def _zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(like.shape, like.dtype)


def _zero_metric(metric):
    """Return the metric that `_add_metrics` adds nothing with."""
    return jax.tree.map(_zeros, metric) if isinstance(metric, tuple) else jnp.full(metric.shape, -jnp.inf, metric.dtype)


def _add_metrics(a, b):
    return (a[0] + b[0], a[1] + b[1]) if isinstance(a, tuple) else jnp.maximum(a, b)


def _mean(metric):
    return metric[0] / jnp.maximum(metric[1], 1) if isinstance(metric, tuple) else metric
