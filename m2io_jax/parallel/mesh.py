"""The mesh: devices arranged along the axes `data`, `fsdp` and `tensor`.

data     copies of the model, each with rows of its own
fsdp     rows of its own too, and a part of every weight, gathered when it is needed (arXiv 2304.11277)
tensor   the same rows, and a part of every head and hidden layer (arXiv 1909.08053)
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps

import jax
from jax.sharding import AxisType, Mesh

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges `devices` (None: all there are, of every process) by the sizes in the configuration.

    Raises:
        UserError: the sizes do not multiply to the number of devices, or leave a process without rows of its own.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _sizes(config, len(devices))
    processes = len({device.process_index for device in devices})
    if sizes[0] * sizes[1] % processes:
        what = f"data x fsdp is {sizes[0] * sizes[1]}, so {processes} processes cannot each have rows of their own."
        raise UserError(what, where="mesh in the configuration", mend=f"make it a multiple of {processes}")
    # Auto: the compiler places what is between the stated shardings. Stated, because JAX means to change the default.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def on_mesh(mesh: Mesh, function: Callable) -> Callable:
    """`function`, traced where `jax.sharding.get_abstract_mesh()` is this mesh: kernels spread themselves by it."""

    @wraps(function)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def _sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
    asked = tuple(getattr(config, axis) for axis in AXES)
    fixed = math.prod(size for size in asked if size != -1)
    if devices % fixed == 0 and (-1 in asked or fixed == devices):
        return tuple(devices // fixed if size == -1 else size for size in asked)
    product = " x ".join(f"{axis} {size}" for axis, size in zip(AXES, asked, strict=True) if size != -1)
    if -1 in asked:
        problem, mend = "which does not divide", f"choose sizes whose product divides {devices}"
    else:
        problem, mend = "not", f"choose sizes whose product is {devices}, or leave one of them at -1 (the rest)"
    what = f"The mesh asks for {product} = {fixed} devices, {problem} the {devices} that there are."
    raise UserError(what, where="mesh in the configuration", mend=mend)
