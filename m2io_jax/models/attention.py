"""Attention in the four shapes that this project needs, each exact, softmax in float32 (others: models/backends.py).

A long prompt's own scores are held for `BLOCK` of its tokens at a time, and those of its completions with it for one
completion: both are computed again in the backward pass. Blocks that are masked altogether are left out.

Training and sampling see a *group* as a tree: one prompt, then G completions that all follow it.

            prompt   c1    c2            a completion's token sees the prompt and the tokens
    prompt  \\                            of its own completion before it, never another's.
    c1      #####    \\
    c2      #####          \\             # all valid keys    \\ causal    blank: nothing
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Of queries [rows, kv_heads, share, time, dim], and of keys and values [rows, kv_heads, time, dim].
QUERIES, KEYS = ("batch", "kv_heads", "share", None, None), ("batch", "kv_heads", None, None)
BLOCKED = -1e30  # finite, so that a row in which everything is blocked stays finite too
BLOCK = 256


@dataclass(frozen=True)
class GroupLayout:
    """How a group lies in one sequence: [prompt | c1 | c2 | ... ], lengths in tokens."""

    prompt: int
    group: int
    completion: int

    @property
    def length(self) -> int:
        return self.prompt + self.group * self.completion


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reading:
    """What queries read from one set of keys, before normalisation: two readings can be merged exactly.

    With s the scores: peak = max(s), total = sum(exp(s - peak)), value = sum(exp(s - peak) v).
    """

    value: Float[Array, "*batch share time dim"]
    peak: Float[Array, "*batch share time 1"]
    total: Float[Array, "*batch share time 1"]

    def finish(self) -> Float[Array, "*batch share time dim"]:
        return (self.value / self.total).astype(self.value.dtype)


def read(
    q: Float[Array, "*batch share time dim"],
    k: Float[Array, "*batch keys dim"],
    v: Float[Array, "*batch keys dim"],
    bias: Float[Array, "..."],
) -> Reading:
    """Reads from keys that `share` query heads have in common. `bias` is 0 where a query may look, else BLOCKED."""
    *batch, share, time, dim = q.shape
    flat = (*batch, share * time)
    scores = jnp.matmul(q.reshape(*flat, dim), jnp.swapaxes(k, -1, -2), preferred_element_type=jnp.float32)
    scores = scores.reshape(*batch, share, time, -1) * dim**-0.5 + bias
    peak = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - peak)
    value = jnp.matmul(weights.reshape(*flat, -1).astype(v.dtype), v, preferred_element_type=jnp.float32)
    return Reading(value.reshape(q.shape), peak, jnp.sum(weights, axis=-1, keepdims=True))


def merge(a: Reading, b: Reading) -> Reading:
    """The reading from both sets of keys together (online softmax, arXiv 1805.02867)."""
    peak = jnp.maximum(a.peak, b.peak)
    scale_a, scale_b = jnp.exp(a.peak - peak), jnp.exp(b.peak - peak)
    return Reading(a.value * scale_a + b.value * scale_b, peak, a.total * scale_a + b.total * scale_b)


def _allow(mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(mask, 0.0, BLOCKED)


def _past(stop: int, start: int = 0) -> Float[Array, "queries keys"]:
    """For queries `start` to `stop` over keys up to `stop`."""
    return _allow(jnp.arange(stop) <= jnp.arange(start, stop)[:, None])


def segment_attention(
    q: Float[Array, "rows heads time dim"],
    k: Float[Array, "rows heads time dim"],
    v: Float[Array, "rows heads time dim"],
    segments: Int[Array, "rows time"],
) -> Float[Array, "rows heads time dim"]:
    """Everything sees everything of its own segment, a window or a picture; padding has segment -1."""
    same = segments[:, None, None, :, None] == segments[:, None, None, None, :]
    return read(q[:, :, None], k, v, _allow(same)).finish()[:, :, 0].astype(q.dtype)


def causal_attention(
    q: Float[Array, "rows kv_heads share time dim"],
    k: Float[Array, "rows kv_heads time dim"],
    v: Float[Array, "rows kv_heads time dim"],
) -> Float[Array, "rows kv_heads share time dim"]:
    """Plain causal attention; prompts are padded on the right, so that padding is never seen by a real token."""
    time = q.shape[-2]

    def block(start: int, q, k, v):
        stop = min(start + BLOCK, time)
        past = _past(stop, start)
        return read(q[..., start:stop, :], k[..., :stop, :], v[..., :stop, :], past).finish().astype(q.dtype)

    if time <= BLOCK:
        return block(0, q, k, v)
    # What is sliced is sliced inside, so that all blocks keep the same arrays for the backward pass.
    blocks = [jax.checkpoint(partial(block, start))(q, k, v) for start in range(0, time, BLOCK)]
    return jnp.concatenate(blocks, axis=-2)


def group_attention(
    q: Float[Array, "rows kv_heads share length dim"],
    k: Float[Array, "rows kv_heads length dim"],
    v: Float[Array, "rows kv_heads length dim"],
    layout: GroupLayout,
    prompt_mask: Bool[Array, "rows prompt"],
    *,
    causal: Callable = causal_attention,
) -> Float[Array, "rows kv_heads share length dim"]:
    """Tree attention over [prompt | c1 | ... | cG] without ever forming a [length, length] array.

    `causal` is what the prompt attends to itself by.
    """
    prompt, group = layout.prompt, layout.group
    (rows, kv_heads, share, _, dim), time = q.shape, layout.completion
    prompt_k, prompt_v = k[:, :, :prompt], v[:, :, :prompt]
    prompt_out = causal(q[:, :, :, :prompt], prompt_k, prompt_v)

    own_k, own_v = (x[:, :, prompt:].reshape(rows, kv_heads, group, time, dim) for x in (k, v))
    own_q = q[:, :, :, prompt:].reshape(rows, kv_heads, share, group, time, dim).swapaxes(2, 3)
    to_own = read(own_q, own_k, own_v, _past(time))
    real = _allow(prompt_mask)[:, None, None, None, :]
    if prompt <= BLOCK:
        to_prompt = read(own_q.reshape(rows, kv_heads, group * share, time, dim), prompt_k, prompt_v, real)
        to_prompt = _reshaped(to_prompt, own_q.shape)
    else:  # one completion after another
        one = jax.checkpoint(lambda q: read(q, prompt_k, prompt_v, real), prevent_cse=False)
        to_prompt = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), jax.lax.map(one, jnp.moveaxis(own_q, 2, 0)))
    out = merge(to_own, to_prompt).finish().astype(q.dtype)
    out = out.swapaxes(2, 3).reshape(rows, kv_heads, share, group * time, dim)
    return jnp.concatenate([prompt_out, out], axis=3)


def decode_attention(
    q: Float[Array, "rows kv_heads share group dim"],
    k: Float[Array, "rows kv_heads group dim"],
    v: Float[Array, "rows kv_heads group dim"],
    prompt_cache: tuple[Float[Array, "rows kv_heads prompt dim"], Float[Array, "rows kv_heads prompt dim"]],
    own_cache: tuple[Float[Array, "rows kv_heads group time dim"], Float[Array, "rows kv_heads group time dim"]],
    prompt_mask: Bool[Array, "rows prompt"],
    step: Int[Array, ""],
) -> Float[Array, "rows kv_heads share group dim"]:
    """One new token a completion sees the shared prompt, the completion's `step` cached tokens and itself."""
    (prompt_k, prompt_v), (own_k, own_v) = prompt_cache, own_cache
    own_q = q.swapaxes(2, 3)[..., None, :]
    to_cache = read(own_q, own_k, own_v, _allow(jnp.arange(own_k.shape[3]) < step))
    to_self = read(own_q, k[..., None, :], v[..., None, :], jnp.zeros(()))
    to_prompt = read(q, prompt_k, prompt_v, _allow(prompt_mask)[:, None, None, None, :])
    to_prompt = Reading(*(x.swapaxes(2, 3)[..., None, :] for x in (to_prompt.value, to_prompt.peak, to_prompt.total)))
    out = merge(merge(to_cache, to_self), to_prompt).finish().astype(q.dtype)
    return out[..., 0, :].swapaxes(2, 3)


def _reshaped(reading: Reading, shape: tuple[int, ...]) -> Reading:
    lead = shape[:-1]
    return Reading(reading.value.reshape(shape), reading.peak.reshape(*lead, 1), reading.total.reshape(*lead, 1))
