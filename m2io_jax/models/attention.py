"""Attention in the four shapes that this project needs, each exact, softmax in float32 (others: models/backends.py).

Scores of a long prompt, of long completions and of a picture with many patches are held for `BLOCK` queries at a time,
those of completions for one completion after another, and computed again in the backward pass. Blocks that are masked
altogether are left out.

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
    own = segments[:, None, None]

    def block(start: int, stop: int, q, k, v):
        same = own[..., start:stop, None] == own[..., None, :]
        return read(q[..., start:stop, :], k, v, _allow(same)).finish().astype(q.dtype)

    return _by_blocks(block, q[:, :, None], k, v)[:, :, 0]


def causal_attention(
    q: Float[Array, "rows kv_heads share time dim"],
    k: Float[Array, "rows kv_heads time dim"],
    v: Float[Array, "rows kv_heads time dim"],
) -> Float[Array, "rows kv_heads share time dim"]:
    """Plain causal attention; prompts are padded on the right, so that padding is never seen by a real token."""

    def block(start: int, stop: int, q, k, v):
        return _read_past(start, stop, q, k, v).finish().astype(q.dtype)

    return _by_blocks(block, q, k, v)


def _read_past(start: int, stop: int, q, k, v) -> Reading:
    """What queries `start` to `stop` read from the tokens before them and themselves."""
    return read(q[..., start:stop, :], k[..., :stop, :], v[..., :stop, :], _past(stop, start))


def _by_blocks(block: Callable, q, k, v):
    """`block(start, stop, q, k, v)` for `BLOCK` queries at a time. What it slices is sliced inside, so that all blocks
    keep the same arrays for the backward pass."""
    time = q.shape[-2]
    if time <= BLOCK:
        return block(0, time, q, k, v)
    ends = [(start, min(start + BLOCK, time)) for start in range(0, time, BLOCK)]
    return jnp.concatenate([jax.checkpoint(partial(block, *each))(q, k, v) for each in ends], axis=-2)


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
    real = _allow(prompt_mask)[:, None, None, None, :]
    if time > BLOCK:
        out = _long_completions(own_q, own_k, own_v, prompt_k, prompt_v, real)
    else:
        to_own = read(own_q, own_k, own_v, _past(time))
        if prompt <= BLOCK:
            to_prompt = read(own_q.reshape(rows, kv_heads, group * share, time, dim), prompt_k, prompt_v, real)
            to_prompt = _reshaped(to_prompt, own_q.shape)
        else:
            to_prompt = _one_by_one(lambda q: read(q, prompt_k, prompt_v, real), own_q)
        out = merge(to_own, to_prompt).finish().astype(q.dtype)
    out = out.swapaxes(2, 3).reshape(rows, kv_heads, share, group * time, dim)
    return jnp.concatenate([prompt_out, out], axis=3)


def _long_completions(own_q, own_k, own_v, prompt_k, prompt_v, real):
    """What completions longer than a block read, from themselves and the prompt; [rows, kv_heads, group, ...] all."""

    def block(start: int, stop: int, q, k, v):
        to_prompt = read(q[..., start:stop, :], prompt_k, prompt_v, real)
        return merge(_read_past(start, stop, q, k, v), to_prompt).finish().astype(q.dtype)

    return _one_by_one(partial(_by_blocks, block), own_q, own_k, own_v)


def _one_by_one(function: Callable, *own: Float[Array, "rows kv_heads group *rest"]):
    """`function` of one completion after another."""
    one = jax.checkpoint(lambda own: function(*own), prevent_cse=False)
    mapped = jax.lax.map(one, tuple(jnp.moveaxis(x, 2, 0) for x in own))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), mapped)


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
