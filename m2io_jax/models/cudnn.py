"""Causal attention by cuDNN's fused kernel, for GPUs; in half precision alone, as the kernel is."""

from typing import Literal

import jax
from einops import rearrange
from jaxtyping import Array, Float

from m2io_jax.models.attention import KEYS, QUERIES
from m2io_jax.parallel.sharding import on_own_parts


def cudnn_causal_attention(
    q: Float[Array, "rows kv_heads share time dim"],
    k: Float[Array, "rows kv_heads time dim"],
    v: Float[Array, "rows kv_heads time dim"],
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "rows kv_heads share time dim"]:
    """As `attention.causal_attention`. "xla" computes the same on any device, for tests."""

    def attend(q, k, v):
        q = rearrange(q, "rows kv_heads share time dim -> rows time (kv_heads share) dim")
        k, v = (rearrange(x, "rows kv_heads time dim -> rows time kv_heads dim") for x in (k, v))
        out = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=implementation)
        return rearrange(out, "rows time (kv_heads share) dim -> rows kv_heads share time dim", kv_heads=k.shape[2])

    return on_own_parts(attend, QUERIES, KEYS, KEYS)(q, k, v)
