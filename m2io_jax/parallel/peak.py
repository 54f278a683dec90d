"""How fast the devices can be: what MFU is a share of, and what plans estimate by."""

import time
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp

# Published peaks of bfloat16 matrix products, in FLOP/s a device, by the start of `device_kind`.
PUBLISHED = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "TPU7x": 2307e12 / 2,  # a chip is two devices
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


@dataclass(frozen=True)
class Peaks:
    """What Google publishes of a TPU chip, a second.

    Attributes:
        flops: of bfloat16 matrix products.
        hbm: bytes to and from its memory.
        ici: bytes to other chips of its slice, all links in one direction: half of the published, which is of both.
        dcn: bytes to other slices, its share of the network's.
    """

    flops: float
    hbm: float
    ici: float
    dcn: float


# By the names of parallel/topologies.py; from Cloud TPU's page of each family, 2026.
TPU_CHIPS = {
    "v5e": Peaks(flops=197e12, hbm=819e9, ici=200e9, dcn=6.4e12 / 256 / 8),
    "v5p": Peaks(flops=459e12, hbm=2765e9, ici=600e9, dcn=50e9 / 8),
    "v6e": Peaks(flops=918e12, hbm=1638e9, ici=400e9, dcn=100e9 / 8),
    "tpu7x": Peaks(flops=2307e12, hbm=7380e9, ici=600e9, dcn=100e9 / 8),
}


@cache
def peak_flops() -> float:
    """FLOP/s of all devices together: published for accelerators that are known, else measured by a product."""
    device, count = jax.devices()[0], jax.device_count()
    for kind, flops in PUBLISHED.items():
        if device.device_kind.startswith(kind):
            return flops * count
    # Devices of the CPU platform are one processor, shared out.
    return matmul_flops() * (1 if device.platform == "cpu" else count)


def matmul_flops(size: int = 2048, dtype: str = "float32", repeats: int = 3) -> float:
    """FLOP/s of the best of `repeats` products of two square matrices, on one device."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(product(a, a))
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
