"""Tree attention by TPU's splash kernel, which skips the blocks of scores that the mask leaves empty.

The same functions as in models/attention.py. The mask is written when the program is compiled; only how long each
prompt is comes with the batch.
"""

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

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
PROMPT = -1  # the branch of the tree that all see
_BUILDING = Lock()


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
    length, _ = padded(layout.length)
    to_length = [(0, 0)] * (q.ndim - 2) + [(0, length - layout.length), (0, 0)]
    q, k, v = jnp.pad(q * q.shape[-1] ** -0.5, to_length), jnp.pad(k, to_length[1:]), jnp.pad(v, to_length[1:])
    rest = jnp.ones((q.shape[0], length - layout.prompt), jnp.int32)
    segments = jnp.concatenate([prompt_mask.astype(jnp.int32), rest], axis=1)

    def attend(q, k, v, segments: Int[Array, "rows length"]):
        kernel = _kernel(layout, q.shape[2], interpret)
        one_row = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, kernels.SegmentIds(ids, ids)), (0, 0, 0, None))
        return jax.vmap(one_row)(q, k, v, segments)

    attend = on_own_parts(attend, QUERIES, KEYS, KEYS, ("batch", None))
    return attend(q, k, v, segments)[..., : layout.length, :]


def padded(length: int) -> tuple[int, int]:
    """The length that the kernel is given, and the size of its blocks: large ones, if they pad by an eighth at most."""
    least = -(-length // LANES) * LANES
    lengths = {block: -(-length // block) * block for block in range(LARGEST_BLOCK, 0, -LANES)}
    return next((padded, block) for block, padded in lengths.items() if 8 * padded <= 9 * least)


@dataclass(frozen=True)
class TreeMask(masks.Mask):
    """Who may see whom in [prompt | c1 | ... | cG | padding]; what pads the end is one completion more.

    Only the slice that is asked for is made: whole it has `length` squared entries, 17 GB of 16 x 8,192 tokens.
    """

    layout: GroupLayout
    length: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.length, self.length

    def __getitem__(self, part: tuple[slice, slice]) -> Bool[np.ndarray, "queries keys"]:
        queries, keys = (range(self.length)[each] for each in part)
        first, last = self._branch(keys[0]), self._branch(keys[-1])
        # Every block is asked for, several times, and few are mixed: by their ends the others are told at once.
        if keys[0] > queries[-1] or (first != PROMPT and last < self._branch(queries[0])):
            return np.zeros((len(queries), len(keys)), bool)
        if keys[-1] <= queries[0] and (last == PROMPT or first == self._branch(queries[-1])):
            return np.ones((len(queries), len(keys)), bool)
        query, key = np.arange(queries.start, queries.stop)[:, None], np.arange(keys.start, keys.stop)
        of_key = self._branch(key)
        return (key <= query) & ((of_key == PROMPT) | (of_key == self._branch(query)))

    def _branch(self, place):
        """Which completion a token is of, or each of an array's."""
        branch = (place - self.layout.prompt) // max(self.layout.completion, 1)
        least, most = (min, max) if isinstance(place, int) else (np.minimum, np.maximum)
        return least(most(branch, PROMPT), self.layout.group)


def _kernel(layout: GroupLayout, share: int, interpret: bool):
    with _BUILDING:  # else programs that are compiled side by side would each build it
        return _built(layout, share, interpret)


@lru_cache(maxsize=64)
def _built(layout: GroupLayout, share: int, interpret: bool):
    length, block = padded(layout.length)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    mask = masks.MultiHeadMask([TreeMask(layout, length)] * share)
    with jax.ensure_compile_time_eval():  # the kernel is kept: nothing of one trace may stay in it
        return kernels.make_splash_mqa_single_device(
            mask, block_sizes=kernels.BlockSizes(**{f"block_{name}": block for name in names}), interpret=interpret
        )
