"""Low-rank adapters (LoRA, arXiv 2106.09685): small matrices beside frozen kernels, in either tower.

Sampler and trainer use kernel and adapter side by side; they are added together only for export.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from m2io_jax.errors import UserError
from m2io_jax.models.layers import Linear, weight
from m2io_jax.models.sizes import LoraConfig

ADAPTER = "adapter"  # the name of the module in a parameter's path
# The head is used as a matrix, and where it is tied there is none; the patches' is a convolution in PEFT's eyes.
NEVER_ADAPTED = ("language.head", "vision.patch_embed")


class Adapter(nnx.Module):
    """`alpha / rank * (x @ a) @ b`. It starts as nothing: b is zero."""

    def __init__(self, linear: Linear, config: LoraConfig, *, rngs):
        *stack, inputs, outputs = linear.kernel.get_value().shape
        *_, to_rank, from_rank = linear.kernel.get_metadata()["axes"]
        stacked = dict(stack=stack[0] if stack else None)
        self.a = weight(rngs, (inputs, config.rank), (to_rank, "rank"), inputs**-0.5, **stacked)
        self.b = weight(rngs, (config.rank, outputs), ("rank", from_rank), 0.0, **stacked)
        self.scale = config.alpha / config.rank

    def __call__(self, x: Float[Array, "rows inputs"]) -> Float[Array, "rows outputs"]:
        return (x @ self.a[...].astype(x.dtype)) @ self.b[...].astype(x.dtype) * self.scale


def add_adapters(model: nnx.Module, config: LoraConfig, rngs: nnx.Rngs) -> None:
    """Gives every linear module that `config.targets` names an adapter.

    Raises:
        UserError: a target that names no module.
    """
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    linear = {name: module for name, module in modules.items() if isinstance(module, Linear)}
    for name in NEVER_ADAPTED:
        linear.pop(name, None)
    for target in config.targets:
        if not any(re.fullmatch(target, name) for name in linear):
            mend = f"modules are: {', '.join(sorted(linear))}"
            raise UserError(f"{target!r} names no module.", where="lora.targets", mend=mend)
    for name in sorted(linear):
        if any(re.fullmatch(target, name) for target in config.targets):
            linear[name].adapter = Adapter(linear[name], config, rngs=rngs)


def adapted_modules(params: nnx.State) -> set[str]:
    """Names of the modules that have an adapter."""
    return {".".join(path[: path.index(ADAPTER)]) for path, _ in nnx.to_flat_state(params) if is_adapter(path)}


def is_adapter(path: tuple) -> bool:
    """Whether a parameter's path leads to an adapter."""
    return ADAPTER in path


def fresh(abstract: nnx.State, seed: int) -> nnx.State:
    """Adapters to begin with, for the abstract parameters of a model that has them; other parameters are left out."""
    random, drawn = np.random.default_rng(seed), {}
    for path, param in nnx.to_flat_state(abstract):
        if is_adapter(path):
            shape, is_a = param.get_value().shape, path[-1] == "a"
            value = random.normal(size=shape) * shape[-2] ** -0.5 if is_a else np.zeros(shape)
            drawn[path] = param.replace(jnp.asarray(value, jnp.float32))
    return nnx.from_flat_state(drawn)


def fold(params: nnx.State, config: LoraConfig) -> nnx.State:
    """The parameters of the model without adapters that computes the same: each kernel with its adapter added."""
    flat = dict(nnx.to_flat_state(params))
    folded = {path: param for path, param in flat.items() if not is_adapter(path)}
    for path, param in flat.items():
        if is_adapter(path) and path[-1] == "a":
            module = path[: path.index(ADAPTER)]
            kernel, b = flat[(*module, "kernel")], flat[(*module, ADAPTER, "b")]
            with jax.default_matmul_precision("highest"):
                added = jnp.matmul(param.get_value(), b.get_value()) * (config.alpha / config.rank)
            folded[(*module, "kernel")] = kernel.replace((kernel.get_value() + added).astype(kernel.get_value().dtype))
    return nnx.from_flat_state(folded)
