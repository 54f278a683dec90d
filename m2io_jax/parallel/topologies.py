"""TPU slices by name: how many chips and hosts they have, how much memory, and what the clouds call them.

    v5e:4x4      a family and how its chips are arranged, as libtpu names it
    v5e-16       a family and a size, as Cloud TPU names it: v5p and tpu7x count TensorCores there, two a chip
    2xv5e:4x4    two such slices, which talk to each other over the data centre's network

Launch scripts read the same table as `python -m m2io_jax.parallel.topologies NAME`: lines of `key=value` for a shell.
It needs no package but this one, so that it also answers where JAX is not installed.
"""

import math
import re
import sys
from dataclasses import dataclass

from m2io_jax.errors import UserError, nearest

NAME = re.compile(r"(?:(?P<slices>[1-9]\d*)x)?(?P<family>[a-z]\w*?)(?::(?P<shape>[\dx]+)|-(?P<size>\d+))")


@dataclass(frozen=True)
class Family:
    """One generation of TPU.

    Attributes:
        name: that libtpu knows it by.
        accelerator: the first part of Cloud TPU's accelerator types, `v5litepod` in `v5litepod-16`.
        counted: what the number in an accelerator type counts, for each chip: itself (1) or its TensorCores (2).
        devices_a_chip: devices that JAX shows.
        hbm_gib: memory of a *device* that a program may fill, as libtpu 0.0.52 says when one does not fit.
        shapes: chips along each axis of the slices on offer, smallest first; none here is larger than 256 chips.
        whole_hosts: shapes with eight chips on one host; every other slice has hosts of up to four.
        gke: the value of the node label `cloud.google.com/gke-tpu-accelerator`.
        runtime: the software of a Cloud TPU VM; None: the family is to be had by GKE alone.
    """

    name: str
    accelerator: str
    counted: int
    devices_a_chip: int
    hbm_gib: float
    shapes: tuple[str, ...]
    whole_hosts: tuple[str, ...]
    gke: str
    runtime: str | None


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")

# Chips, hosts and names: Cloud TPU's and GKE's documentation of each family, 2026.
FAMILIES = {
    family.name: family
    for family in (
        Family("v5e", "v5litepod", 1, 1, 15.75, FLAT, ("2x4",), "tpu-v5-lite-podslice", "v2-alpha-tpuv5-lite"),
        Family("v5p", "v5p", 2, 1, 95.73, DEEP, (), "tpu-v5p-slice", "v2-alpha-tpuv5"),
        Family("v6e", "v6e", 1, 1, 31.24, FLAT, ("2x4",), "tpu-v6e-slice", "v2-alpha-tpuv6e"),
        Family("tpu7x", "tpu7x", 2, 2, 94.74, ("1x1x1", *DEEP), (), "tpu7x", None),
    )
}


@dataclass(frozen=True)
class Topology:
    """`slices` slices of one family and shape; numbers are of one slice unless their name says otherwise."""

    family: Family
    shape: str
    slices: int = 1

    @property
    def name(self) -> str:
        """As `find_topology` reads it."""
        return f"{self.slices}x{self.slice_name}" if self.slices > 1 else self.slice_name

    @property
    def slice_name(self) -> str:
        """As libtpu reads it."""
        return f"{self.family.name}:{self.shape}"

    @property
    def accelerator_type(self) -> str:
        """As Cloud TPU and xpk read it."""
        return f"{self.family.accelerator}-{self.chips * self.family.counted}"

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def chips_a_host(self) -> int:
        return min(self.chips, 8 if self.shape in self.family.whole_hosts else 4)

    @property
    def hosts(self) -> int:
        return self.chips // self.chips_a_host

    @property
    def all_chips(self) -> int:
        """Of all slices."""
        return self.slices * self.chips

    @property
    def all_hosts(self) -> int:
        """Of all slices."""
        return self.slices * self.hosts

    @property
    def all_devices(self) -> int:
        """Of all slices: what `jax.device_count()` says."""
        return self.all_chips * self.family.devices_a_chip

    def shell_lines(self) -> str:
        """What a launch script asks for, one `key=value` a line; no value needs quoting."""
        values = {
            "topology": self.name,
            "slices": self.slices,
            "shape": self.shape,
            "accelerator_type": self.accelerator_type,
            "chips": self.chips,
            "hosts": self.hosts,
            "chips_a_host": self.chips_a_host,
            "gke_accelerator": self.family.gke,
            "runtime": self.family.runtime or "",
        }
        return "".join(f"{key}={value}\n" for key, value in values.items())


def find_topology(name: str) -> Topology:
    """Reads a name of one of the three forms above.

    Raises:
        UserError: it has another form, or names a family or a slice that there is not.
    """
    parts = NAME.fullmatch(name)
    if not parts:
        what = f"`{name}` does not name a TPU topology."
        raise UserError(what, where="topology", mend="give one such as v5e:4x4, v5e-16, or 2xv5e:4x4 for two slices")
    families = FAMILIES | {family.accelerator: family for family in FAMILIES.values()}
    if parts["family"] not in families:
        what = f"`{name}` is of the family `{parts['family']}`, which is unknown."
        raise UserError(what, where="topology", mend=nearest(parts["family"], FAMILIES))
    family, slices = families[parts["family"]], int(parts["slices"] or 1)
    offered = [Topology(family, shape, slices) for shape in family.shapes]
    for topology in offered:
        if parts["shape"] == topology.shape or parts["size"] == topology.accelerator_type.rpartition("-")[2]:
            return topology
    both = ", ".join(f"{one.slice_name} ({family.name}-{one.chips * family.counted})" for one in offered)
    raise UserError(f"{family.name} has no slice `{name}`.", where="topology", mend=f"allowed: {both}")


if __name__ == "__main__":
    try:
        print(find_topology(" ".join(sys.argv[1:])).shell_lines(), end="")
    except UserError as error:
        sys.exit(f"error: {error}")
