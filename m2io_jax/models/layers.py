"""The layers everything is made of, and the one place where a weight is declared.

A weight is declared once: shape, logical axes, initialiser. Its sharding, its abstract shape and its place in a
checkpoint are derived from that. `stack` adds a leading axis for the layers of a tower, which are run by `lax.scan`.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from m2io_jax.models.int8 import QuantizedKernel


def weight(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], std: float | None, stack: int | None = None
) -> nnx.Param:
    """Declares one parameter.

    Args:
        shape: of one layer.
        axes: the logical name of each dimension (parallel/sharding.py maps names to mesh axes).
        std: of the normal distribution it starts from; None starts it at one, 0 at zero.
        stack: how many layers share this declaration; they lie along a new first axis called "layers".
    """
    if stack is not None:
        shape, axes = (stack, *shape), ("layers", *axes)
    if std is None:
        value = jnp.ones(shape)
    else:
        value = jax.random.normal(rngs.params(), shape) * std if std else jnp.zeros(shape)
    return nnx.Param(value, axes=axes)


class Linear(nnx.Module):
    """`y = x @ kernel + bias`, kernel stored as [in, out].

    It starts from a normal distribution of standard deviation `gain / sqrt(in)`, so that a small model's signals are as
    strong as a large one's; a projection back into the residual stream takes a gain below 1 (`residual_gain`).
    """

    def __init__(
        self, sizes: tuple[int, int], axes: tuple[str | None, str | None], *, rngs, gain=1.0, bias=False, stack=None
    ):
        self.kernel = weight(rngs, sizes, axes, gain * sizes[0] ** -0.5, stack)
        self.bias = weight(rngs, sizes[1:], axes[1:], 0.0, stack) if bias else None
        self.adapter = nnx.data(None)  # a low-rank addition to the kernel (models/lora.py)

    def __call__(self, x: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
        # two-dimensional on purpose: on CPU, XLA takes twice as long for the gradient of the three-dimensional product
        flat = x.reshape(-1, x.shape[-1])
        kernel = self.kernel[...]
        y = kernel.matmul(flat) if isinstance(kernel, QuantizedKernel) else flat @ kernel.astype(flat.dtype)
        if self.adapter is not None:
            y = y + self.adapter(flat)
        y = y.reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


def residual_gain(layers: int) -> float:
    """Keeps the residual stream's variance from growing with depth: two additions a layer (GPT-2's rule)."""
    return (2 * layers) ** -0.5


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation, computed in float32."""

    def __init__(self, size: int, *, rngs, eps: float = 1e-6, stack=None):
        self.scale = weight(rngs, (size,), (None,), None, stack)
        self.eps = eps

    def __call__(self, x: Float[Array, "... size"]) -> Float[Array, "... size"]:
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        return self.scale[...].astype(x.dtype) * wide.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Normalisation to mean 0 and variance 1 with scale and bias, computed in float32 (Qwen2-VL's vision tower)."""

    def __init__(self, size: int, *, rngs, eps: float = 1e-6, stack=None):
        self.scale = weight(rngs, (size,), (None,), None, stack)
        self.bias = weight(rngs, (size,), (None,), 0.0, stack)
        self.eps = eps

    def __call__(self, x: Float[Array, "... size"]) -> Float[Array, "... size"]:
        wide = x.astype(jnp.float32)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        return (wide * self.scale[...] + self.bias[...]).astype(x.dtype)


class SwiGLU(nnx.Module):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(self, size: int, hidden: int, *, rngs, gain=1.0, bias=False, stack=None):
        common = dict(rngs=rngs, bias=bias, stack=stack)
        self.gate = Linear((size, hidden), ("embed", "mlp"), **common)
        self.up = Linear((size, hidden), ("embed", "mlp"), **common)
        self.down = Linear((hidden, size), ("mlp", "embed"), gain=gain, **common)

    def __call__(self, x: Float[Array, "... size"]) -> Float[Array, "... size"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class QuickGELU(nnx.Module):
    """`fc2(y * sigmoid(1.702 y))` with `y = fc1(x)` (Qwen2-VL's vision tower)."""

    def __init__(self, size: int, hidden: int, *, rngs, gain=1.0, bias=False, stack=None):
        common = dict(rngs=rngs, bias=bias, stack=stack)
        self.fc1 = Linear((size, hidden), ("embed", "mlp"), **common)
        self.fc2 = Linear((hidden, size), ("mlp", "embed"), gain=gain, **common)

    def __call__(self, x: Float[Array, "... size"]) -> Float[Array, "... size"]:
        y = self.fc1(x)
        return self.fc2(y * jax.nn.sigmoid(1.702 * y))
