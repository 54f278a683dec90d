"""The mesh: devices arranged along the axes `slice`, `data`, `fsdp` and `tensor`.

slice    copies of the model on separate TPU slices: the one axis that goes over the data centre's network
data     copies of the model, each with rows of its own
fsdp     rows of its own too, and a part of every weight, gathered when it is needed (arXiv 2304.11277)
tensor   the same rows, and a part of every head and hidden layer (arXiv 1909.08053)
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AbstractMesh, AxisType, Mesh

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError

AXES = ("slice", "data", "fsdp", "tensor")
# Auto: the compiler places what is between the stated shardings. Stated, because JAX means to change the default.
AXIS_TYPES = (AxisType.Auto,) * len(AXES)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges `devices` (None: all there are, of every process) by the sizes in the configuration.

    Raises:
        UserError: the sizes do not multiply to the number of devices, these are of another number of slices, or a
            process is left without rows of its own.
    """
    devices = jax.devices() if devices is None else list(devices)
    slices = _slices(devices, config.slice)
    sizes = mesh_sizes(config, len(devices), len(slices))
    ways, processes = math.prod(sizes[:-1]), len({device.process_index for device in devices})
    if ways % processes:
        what = f"data x fsdp is {ways}, so {processes} processes cannot each have rows of their own."
        raise UserError(what, where="mesh in the configuration", mend=f"make it a multiple of {processes}")
    return Mesh(np.stack([_arranged(sizes[1:], part) for part in slices]), AXES, axis_types=AXIS_TYPES)


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """What programs for the mesh are compiled with."""
    if mesh.shape["slice"] == 1 or mesh.devices.flat[0].platform != "tpu":
        return {}
    # Else libtpu 0.0.52 cannot compile an update: "AllReduceScatterFusion not implemented for 2nd-minor compaction".
    return {"xla_tpu_decompose_every_reduce_scatters_hlos": "true"}


def abstract_mesh(config: MeshConfig, devices: int, slices: int) -> AbstractMesh:
    """The mesh of so many devices in so many slices, none of which need be at hand. Raises UserError as `make_mesh`."""
    return AbstractMesh(mesh_sizes(config, devices, slices), AXES, axis_types=AXIS_TYPES)


def on_mesh(mesh: Mesh, function: Callable) -> Callable:
    """`function`, traced where `jax.sharding.get_abstract_mesh()` is this mesh: kernels spread themselves by it."""

    @wraps(function)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def _slices(devices: Sequence[jax.Device], asked: int | None) -> list[list[jax.Device]]:
    """The devices slice by slice; in equal parts, as many as asked, where they do not say which one they are of.

    Raises:
        UserError: they are of another number of slices than asked.
    """
    # On GPUs the attribute is something else, on CPUs there is none.
    numbers = [getattr(device, "slice_index", None) or 0 if device.platform == "tpu" else 0 for device in devices]
    found = sorted(set(numbers))
    if len(found) == 1:
        return [list(part) for part in np.array_split(np.array(devices, object), asked or 1)]
    if asked not in (None, len(found)):
        what = f"The mesh asks for {asked} slices; the devices are of {len(found)}."
        raise UserError(what, where="mesh.slice in the configuration", mend="leave it out: the devices say it")
    return [[device for device, number in zip(devices, numbers, strict=True) if number == one] for one in found]


def _arranged(sizes: tuple[int, ...], devices: list[jax.Device]) -> np.ndarray:
    """A slice's devices as its network is wired; host after host where a row's devices would be of several hosts, for
    each process brings whole rows."""
    wired = create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    hosts = np.vectorize(lambda device: device.process_index)(wired).reshape(-1, sizes[-1])
    if (hosts == hosts[:, :1]).all():
        return wired
    by_host = sorted(devices, key=lambda device: (device.process_index, device.id))
    return np.array(by_host, object).reshape(sizes)


def mesh_sizes(config: MeshConfig, devices: int, slices: int) -> tuple[int, ...]:
    """Devices along each of `AXES`. Raises UserError: they do not multiply to the number of devices."""
    asked = (slices, config.data, config.fsdp, config.tensor)
    fixed = math.prod(size for size in asked if size != -1)
    if devices % fixed == 0 and (-1 in asked or fixed == devices):
        return tuple(devices // fixed if size == -1 else size for size in asked)
    named = [(axis, size) for axis, size in zip(AXES, asked, strict=True) if size != -1]
    product = " x ".join(f"{axis} {size}" for axis, size in named if (axis, size) != ("slice", 1))
    if -1 in asked:
        problem, mend = "which does not divide", f"choose sizes whose product divides {devices}"
    else:
        problem, mend = "not", f"choose sizes whose product is {devices}, or leave one of them at -1 (the rest)"
    what = f"The mesh asks for {product} = {fixed} devices, {problem} the {devices} that there are."
    raise UserError(what, where="mesh in the configuration", mend=mend)
