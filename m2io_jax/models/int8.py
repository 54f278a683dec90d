"""Weights in eight bits, for models that are only read: the frozen reference, and policies that only sample."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int8

from m2io_jax.parallel.sharding import are_shapes, param_shardings, placed

LARGEST = 127


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuantizedKernel:
    """A kernel in the place of a float one: `values * scales`, one scale for each output (arXiv 2208.07339, 2.1)."""

    values: Int8[Array, "*stack inputs outputs"]
    scales: Float[Array, "*stack 1 outputs"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __getitem__(self, all_of_it) -> "QuantizedKernel":
        return self  # as `kernel[...]` reads a float one

    def matmul(self, x: Float[Array, "rows inputs"]) -> Float[Array, "rows outputs"]:
        """Compute `x @ kernel` in the dtype of `x`."""
        return (x @ self.values.astype(x.dtype)) * self.scales.astype(x.dtype)


def quantized(params: nnx.State) -> nnx.State:
    """The parameters with every kernel of the blocks in eight bits: a quarter of float32's memory, half of bfloat16's.

    Embeddings, the head, norms, biases and adapters stay as they are. A weight is off by at most half a step, which is
    a 127th of the largest weight that leads to the same output.
    """

    def quantize(path: tuple, param: nnx.Variable) -> nnx.Variable:
        if "blocks" not in path or path[-1] != "kernel":
            return param
        kernel = param.get_value().astype(jnp.float32)
        scales = jnp.maximum(jnp.abs(kernel).max(-2, keepdims=True), jnp.finfo(jnp.float32).tiny) / LARGEST
        return param.replace(QuantizedKernel(jnp.round(kernel / scales).astype(jnp.int8), scales))

    return nnx.from_flat_state([(path, quantize(path, param)) for path, param in nnx.to_flat_state(params)])


def is_quantized(params: nnx.State) -> bool:
    """Whether `quantized` made these."""
    return any(isinstance(param.get_value(), QuantizedKernel) for _, param in nnx.to_flat_state(params))


def quantizer(mesh: Mesh) -> Callable[[nnx.State], nnx.State]:
    """`quantized` as one program, each part where its weight lies; of shapes it gives the shapes."""

    @jax.jit
    def program(params):
        small = quantized(params)
        return jax.lax.with_sharding_constraint(small, param_shardings(small, mesh))

    def run(params: nnx.State) -> nnx.State:
        if not are_shapes(params):
            return program(params)
        shapes = jax.eval_shape(quantized, params)
        return placed(shapes, param_shardings(shapes, mesh))

    return run
