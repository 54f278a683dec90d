"""Slices by name, against what Cloud TPU's and GKE's documentation say of them."""

import subprocess
import sys

import pytest

from m2io_jax.errors import UserError
from m2io_jax.parallel.topologies import FAMILIES, find_topology

# Name, accelerator type, chips, hosts, chips a host, devices.
DOCUMENTED = [
    ("v5e:1x1", "v5litepod-1", 1, 1, 1, 1),
    ("v5e-4", "v5litepod-4", 4, 1, 4, 4),
    ("v5e-8", "v5litepod-8", 8, 1, 8, 8),
    ("v5e-16", "v5litepod-16", 16, 4, 4, 16),
    ("v5litepod-256", "v5litepod-256", 256, 64, 4, 256),
    ("v6e:2x4", "v6e-8", 8, 1, 8, 8),
    ("v6e-32", "v6e-32", 32, 8, 4, 32),
    ("v5p-8", "v5p-8", 4, 1, 4, 4),
    ("v5p-128", "v5p-128", 64, 16, 4, 64),
    ("v5p:4x8x8", "v5p-512", 256, 64, 4, 256),
    ("tpu7x:1x1x1", "tpu7x-2", 1, 1, 1, 2),
    ("tpu7x-128", "tpu7x-128", 64, 16, 4, 128),
]


@pytest.mark.parametrize(("name", "accelerator", "chips", "hosts", "chips_a_host", "devices"), DOCUMENTED)
def test_a_slice_is_as_documented(name, accelerator, chips, hosts, chips_a_host, devices):
    found = find_topology(name)
    assert (found.accelerator_type, found.chips, found.hosts) == (accelerator, chips, hosts)
    assert (found.chips_a_host, found.all_devices) == (chips_a_host, devices)


# Machines of a slice of so many chips, by the tables of Cloud TPU VMs: of four chips each, but eight of v5e and v6e
# are one machine. (So they are on GKE in a pool of ...-8t; in one of ...-4t they are two.)
MACHINES = {
    "v5e": {1: 1, 4: 1, 8: 1, 16: 4, 32: 8, 64: 16, 128: 32, 256: 64},
    "v6e": {1: 1, 4: 1, 8: 1, 16: 4, 32: 8, 64: 16, 128: 32, 256: 64},
    "v5p": {4: 1, 8: 2, 16: 4, 32: 8, 64: 16, 128: 32, 256: 64},
    "tpu7x": {1: 1, 4: 1, 8: 2, 16: 4, 32: 8, 64: 16, 128: 32, 256: 64},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_slice_has_its_machines(name):
    offered = [find_topology(f"{name}:{shape}") for shape in FAMILIES[name].shapes]
    assert {slice.chips: slice.hosts for slice in offered} == MACHINES[name]
    assert all(slice.chips_a_host * slice.hosts == slice.chips for slice in offered)


@pytest.mark.parametrize("shape", [f"{name}:{shape}" for name, family in FAMILIES.items() for shape in family.shapes])
def test_every_name_of_a_slice_finds_it(shape):
    found = find_topology(shape)
    assert found.name == found.slice_name == shape
    assert find_topology(found.accelerator_type) == found
    assert found.hosts * found.chips_a_host == found.chips


def test_slices_multiply():
    two = find_topology("2xv5p-128")
    assert two == find_topology("2xv5p:4x4x4") and two.name == "2xv5p:4x4x4"
    assert (two.chips, two.hosts, two.all_chips, two.all_hosts, two.all_devices) == (64, 16, 128, 32, 128)
    assert (two.slice_name, two.accelerator_type) == ("v5p:4x4x4", "v5p-128")
    assert find_topology("3xtpu7x:2x2x1").all_devices == 24


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5e", "such as v5e:4x4"),
        ("0xv5e:4x4", "such as v5e:4x4"),
        ("4x4", "such as v5e:4x4"),
        ("", "such as v5e:4x4"),
        ("v5x-16", "did you mean `v5"),
        ("v5e-12", "v5e:4x4 (v5e-16)"),
        ("v5e:4x5", "v5e:4x4 (v5e-16)"),
        ("v5p-4", "v5p:2x2x1 (v5p-8)"),
    ],
)
def test_a_wrong_name_is_told_with_what_is_allowed(name, told):
    with pytest.raises(UserError, match="topology") as error:
        find_topology(name)
    assert told in str(error.value)


def test_a_shell_reads_the_table_without_jax():
    ask = [sys.executable, "-S", "-m", "m2io_jax.parallel.topologies"]  # -S: no installed packages
    said = subprocess.run([*ask, "2xv5e-16"], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    assert dict(line.split("=") for line in said.stdout.splitlines()) == {
        "topology": "2xv5e:4x4", "slices": "2", "shape": "4x4", "accelerator_type": "v5litepod-16", "chips": "16",
        "hosts": "4", "chips_a_host": "4", "gke_accelerator": "tpu-v5-lite-podslice", "runtime": "v2-alpha-tpuv5-lite",
    }  # fmt: skip
    wrong = subprocess.run([*ask, "v5e-17"], capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stdout == ""
    assert "v5e:4x4" in wrong.stderr and "Traceback" not in wrong.stderr
