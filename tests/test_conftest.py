"""The platform the other tests count on."""

import jax


def test_eight_cpu_devices():
    assert [device.platform for device in jax.devices()] == ["cpu"] * 8
