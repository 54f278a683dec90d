"""How fast the devices can be: what MFU is a share of."""

import time
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
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
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
