"""Weights in eight bits, for models that are only read: the frozen reference, and policies that only sample."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8

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


def product(x: Float[Array, "rows inputs"], kernel) -> Float[Array, "rows outputs"]:
    """`x @ kernel`, in the type of `x`, of a float kernel or a quantized one."""
    if isinstance(kernel, QuantizedKernel):
        return (x @ kernel.values.astype(x.dtype)) * kernel.scales.astype(x.dtype)
    return x @ kernel.astype(x.dtype)
