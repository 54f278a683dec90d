import jax
import pytest
from jax.sharding import AxisType

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.parallel.mesh import make_mesh


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (8, 1, 1)),
        ({"fsdp": 4}, (2, 4, 1)),
        ({"data": 1, "fsdp": -1, "tensor": 2}, (1, 4, 2)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
    ],
)
def test_sizes_are_those_asked_for_and_every_device_has_one_place(sizes, shape):
    mesh = make_mesh(MeshConfig(**sizes))
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), shape, strict=True))
    assert set(mesh.devices.flat) == set(jax.devices()) and mesh.axis_types == (AxisType.Auto,) * 3


def test_some_devices_only():
    assert make_mesh(MeshConfig(fsdp=3), jax.devices()[:3]).shape == {"data": 1, "fsdp": 3, "tensor": 1}


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"fsdp": 3}, "fsdp 3 x tensor 1 = 3 devices, which does not divide the 8"),
        ({"data": 2, "tensor": 2}, "data 2 x fsdp 1 x tensor 2 = 4 devices, not the 8"),
        ({"data": 16}, "= 16 devices, not the 8"),
        ({"tensor": 16}, "= 16 devices, which does not divide the 8"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, said):
    with pytest.raises(UserError, match="product") as caught:
        make_mesh(MeshConfig(**sizes))
    assert said in str(caught.value)
