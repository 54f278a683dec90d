"""Tree attention by TPU's splash kernel, which skips the blocks of scores that the mask leaves empty.

The same functions as in models/attention.py. The mask is written when the program is compiled; only how long each
prompt is comes with the batch.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Bool, Float, Int

from m2io_jax.models.attention import KEYS, QUERIES, GroupLayout
from m2io_jax.parallel.sharding import on_own_parts

LANES = 128  # what the kernel's blocks are multiples of
LARGEST_BLOCK = 512


def splash_causal_attention(
    q: Float[Array, "rows kv_heads share time dim"],
    k: Float[Array, "rows kv_heads time dim"],
    v: Float[Array, "rows kv_heads time dim"],
    *,
    interpret: bool = False,
) -> Float[Array, "rows kv_heads share time dim"]:
    """As `attention.causal_attention`."""
    real = jnp.ones((q.shape[0], q.shape[3]), bool)
    return splash_group_attention(q, k, v, GroupLayout(q.shape[3], 0, 0), real, interpret=interpret)


def splash_group_attention(
    q: Float[Array, "rows kv_heads share length dim"],
    k: Float[Array, "rows kv_heads length dim"],
    v: Float[Array, "rows kv_heads length dim"],
    layout: GroupLayout,
    prompt_mask: Bool[Array, "rows prompt"],
    *,
    interpret: bool = False,
) -> Float[Array, "rows kv_heads share length dim"]:
    """As `attention.group_attention`. `interpret` runs the kernel step by step on any device, for tests.

    Padding of a prompt is a segment of its own, which no completion sees.
    """
    length = -(-layout.length // LANES) * LANES
    to_length = [(0, 0)] * (q.ndim - 2) + [(0, length - layout.length), (0, 0)]
    q, k, v = jnp.pad(q * q.shape[-1] ** -0.5, to_length), jnp.pad(k, to_length[1:]), jnp.pad(v, to_length[1:])
    rest = jnp.ones((q.shape[0], length - layout.prompt), jnp.int32)
    segments = jnp.concatenate([prompt_mask.astype(jnp.int32), rest], axis=1)

    def attend(q, k, v, segments: Int[Array, "rows length"]):
        kernel = _kernel(layout, length, q.shape[2], interpret)
        one_row = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, kernels.SegmentIds(ids, ids)), (0, 0, 0, None))
        return jax.vmap(one_row)(q, k, v, segments)

    attend = on_own_parts(attend, QUERIES, KEYS, KEYS, ("batch", None))
    return attend(q, k, v, segments)[..., : layout.length, :]


def tree_mask(layout: GroupLayout, length: int) -> Bool[np.ndarray, "length length"]:
    """Who may see whom in [prompt | c1 | ... | cG | padding]; what pads the end is one completion more."""
    place = np.arange(length)
    branch = np.where(place < layout.prompt, -1, (place - layout.prompt) // max(layout.completion, 1))
    branch = np.minimum(branch, layout.group)
    return (place[:, None] >= place) & ((branch == -1) | (branch[:, None] == branch))


@lru_cache(maxsize=64)
def _kernel(layout: GroupLayout, length: int, share: int, interpret: bool):
    block = max(size for size in range(LANES, LARGEST_BLOCK + 1, LANES) if length % size == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    mask = masks.MultiHeadMask([masks.NumpyMask(tree_mask(layout, length))] * share)
    with jax.ensure_compile_time_eval():  # the kernel is kept: nothing of one trace may stay in it
        return kernels.make_splash_mqa_single_device(
            mask, block_sizes=kernels.BlockSizes(**{f"block_{name}": block for name in names}), interpret=interpret
        )
