import jax
import numpy as np
import pytest
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.parallel.mesh import abstract_mesh, make_mesh


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (1, 8, 1, 1)),
        ({"fsdp": 4}, (1, 2, 4, 1)),
        ({"data": 1, "fsdp": -1, "tensor": 2}, (1, 1, 4, 2)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, (1, 2, 2, 2)),
        ({"slice": 2, "fsdp": 2}, (2, 2, 2, 1)),
    ],
)
def test_sizes_are_those_asked_for_and_every_device_has_one_place(sizes, shape):
    mesh = make_mesh(MeshConfig(**sizes))
    assert tuple(mesh.shape.items()) == tuple(zip(("slice", "data", "fsdp", "tensor"), shape, strict=True))
    assert set(mesh.devices.flat) == set(jax.devices()) and mesh.axis_types == (AxisType.Auto,) * 4
    slices = shape[0]
    assert abstract_mesh(MeshConfig(**sizes), 8, slices).shape == mesh.shape


def test_some_devices_only():
    assert make_mesh(MeshConfig(fsdp=3), jax.devices()[:3]).shape == {"slice": 1, "data": 1, "fsdp": 3, "tensor": 1}


class Chip:
    """A TPU as JAX shows it, of one of several slices, which need not come one after another."""

    platform, device_kind = "tpu", "TPU v4"
    coords, core_on_chip, process_index = (0, 0, 0), 0, 0

    def __init__(self, number: int):
        self.id, self.slice_index = number, number % 2


def test_only_the_slice_axis_goes_from_slice_to_slice(monkeypatch):
    monkeypatch.setattr("m2io_jax.parallel.mesh.create_device_mesh", lambda sizes, part, **_: np.reshape(part, sizes))
    mesh = make_mesh(MeshConfig(data=2, fsdp=2), [Chip(number) for number in range(8)])
    assert mesh.shape == {"slice": 2, "data": 2, "fsdp": 2, "tensor": 1}
    for number, part in enumerate(mesh.devices):
        assert {chip.slice_index for chip in part.flat} == {number}
    with pytest.raises(UserError, match="asks for 4 slices; the devices are of 2"):
        make_mesh(MeshConfig(slice=4), [Chip(number) for number in range(8)])


class HostedChip:
    """A chip of a v5e slice of 4 x 4, whose hosts have 2 x 2 each."""

    platform, device_kind, core_on_chip, slice_index = "tpu", "TPU v5 lite", 0, 0

    def __init__(self, x: int, y: int):
        self.id, self.coords, self.process_index = 4 * y + x, (x, y, 0), 2 * (y // 2) + x // 2


@pytest.mark.parametrize("sizes", [dict(data=4), dict(data=1, fsdp=4), dict(data=2, fsdp=2)], ids=str)
def test_a_host_has_the_whole_of_its_rows(sizes):
    chips = [HostedChip(x, y) for y in range(4) for x in range(4)]
    mesh = make_mesh(MeshConfig(tensor=4, **sizes), chips)
    assert mesh.devices.size == len(set(mesh.devices.flat)) == 16
    for row in mesh.devices.reshape(4, 4):
        assert len({chip.process_index for chip in row}) == 1
    for axes in (dict(data=16), dict(data=1, fsdp=16), dict(data=8, tensor=2)):  # as the network is wired
        mesh = make_mesh(MeshConfig(**axes), chips)
        wired = create_device_mesh(mesh.devices.shape[1:], chips, allow_split_physical_axes=True)
        assert (mesh.devices[0] == wired).all()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"fsdp": 3}, "fsdp 3 x tensor 1 = 3 devices, which does not divide the 8"),
        ({"data": 2, "tensor": 2}, "data 2 x fsdp 1 x tensor 2 = 4 devices, not the 8"),
        ({"data": 16}, "= 16 devices, not the 8"),
        ({"slice": 2, "fsdp": 3}, "slice 2 x fsdp 3 x tensor 1 = 6 devices, which does not divide the 8"),
        ({"tensor": 16}, "= 16 devices, which does not divide the 8"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, said):
    with pytest.raises(UserError, match="product") as caught:
        make_mesh(MeshConfig(**sizes))
    assert said in str(caught.value)
