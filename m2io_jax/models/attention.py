"""Attention in the four shapes that this project needs, each exact, softmax in float32.

Training and sampling see a *group* as a tree: one prompt, then G completions that all follow it.

            prompt   c1    c2            a completion's token sees the prompt and the tokens
    prompt  \\                            of its own completion before it, never another's.
    c1      #####    \\
    c2      #####          \\             # all valid keys    \\ causal    blank: nothing
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BLOCKED = -1e30  # finite, so that a row in which everything is blocked stays finite too


@dataclass(frozen=True)
class GroupLayout:
    """How a group lies in one sequence: [prompt | c1 | c2 | ... ], lengths in tokens."""

    prompt: int
    group: int
    completion: int

    @property
    def length(self) -> int:
        return self.prompt + self.group * self.completion


def _grouped(q: Float[Array, "... heads dim"], kv_heads: int) -> Float[Array, "... kv_heads share dim"]:
    return q.reshape(*q.shape[:-2], kv_heads, q.shape[-2] // kv_heads, q.shape[-1])


def _softmax(scores: Float[Array, "... keys"], dtype) -> Float[Array, "... keys"]:
    return jax.nn.softmax(scores, axis=-1).astype(dtype)


def segment_attention(
    q: Float[Array, "rows time heads dim"],
    k: Float[Array, "rows time heads dim"],
    v: Float[Array, "rows time heads dim"],
    segments: Int[Array, "rows time"],
) -> Float[Array, "rows time heads dim"]:
    """Everything sees everything of its own segment: windows and pictures of the vision tower. Padding has segment -1."""
    scores = jnp.einsum("rqhd,rkhd->rhqk", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    same = segments[:, None, :, None] == segments[:, None, None, :]
    probabilities = _softmax(jnp.where(same, scores, BLOCKED), v.dtype)
    return jnp.einsum("rhqk,rkhd->rqhd", probabilities, v)


def causal_attention(
    q: Float[Array, "rows time heads dim"],
    k: Float[Array, "rows time kv_heads dim"],
    v: Float[Array, "rows time kv_heads dim"],
) -> Float[Array, "rows time heads dim"]:
    """Plain causal attention; prompts are padded on the right, so that padding is never seen by a real token."""
    time = q.shape[1]
    grouped = _grouped(q, k.shape[2])
    scores = jnp.einsum("rqhsd,rkhd->rhsqk", grouped, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    past = jnp.tril(jnp.ones((time, time), bool))
    probabilities = _softmax(jnp.where(past, scores, BLOCKED), v.dtype)
    return jnp.einsum("rhsqk,rkhd->rqhsd", probabilities, v).reshape(q.shape)


def group_attention(
    q: Float[Array, "rows length heads dim"],
    k: Float[Array, "rows length kv_heads dim"],
    v: Float[Array, "rows length kv_heads dim"],
    layout: GroupLayout,
    prompt_mask: Bool[Array, "rows prompt"],
) -> Float[Array, "rows length heads dim"]:
    """Tree attention over [prompt | c1 | ... | cG] without ever forming a [length, length] array."""

    def completions(x):
        return x[:, layout.prompt :].reshape(x.shape[0], layout.group, layout.completion, *x.shape[2:])

    prompt_k, prompt_v = k[:, : layout.prompt], v[:, : layout.prompt]
    prompt_out = causal_attention(q[:, : layout.prompt], prompt_k, prompt_v)
    own_k, own_v, own_q = completions(k), completions(v), _grouped(completions(q), k.shape[2])
    scale = q.shape[-1] ** -0.5
    to_prompt = jnp.einsum("rgqhsd,rkhd->rhsgqk", own_q, prompt_k, preferred_element_type=jnp.float32) * scale
    to_own = jnp.einsum("rgqhsd,rgkhd->rhsgqk", own_q, own_k, preferred_element_type=jnp.float32) * scale
    to_prompt = jnp.where(prompt_mask[:, None, None, None, None, :], to_prompt, BLOCKED)
    to_own = jnp.where(jnp.tril(jnp.ones((layout.completion,) * 2, bool)), to_own, BLOCKED)
    probabilities = _softmax(jnp.concatenate([to_prompt, to_own], axis=-1), v.dtype)
    out = jnp.einsum("rhsgqk,rkhd->rgqhsd", probabilities[..., : layout.prompt], prompt_v)
    out += jnp.einsum("rhsgqk,rgkhd->rgqhsd", probabilities[..., layout.prompt :], own_v)
    return jnp.concatenate([prompt_out, out.reshape(q.shape[0], -1, *q.shape[2:])], axis=1)


def decode_attention(
    q: Float[Array, "rows group heads dim"],
    k: Float[Array, "rows group kv_heads dim"],
    v: Float[Array, "rows group kv_heads dim"],
    prompt_cache: tuple[Float[Array, "rows prompt kv_heads dim"], Float[Array, "rows prompt kv_heads dim"]],
    own_cache: tuple[Float[Array, "rows group time kv_heads dim"], Float[Array, "rows group time kv_heads dim"]],
    prompt_mask: Bool[Array, "rows prompt"],
    step: Int[Array, ""],
) -> Float[Array, "rows group heads dim"]:
    """One new token a completion sees the shared prompt, the completion's `step` cached tokens and itself."""
    (prompt_k, prompt_v), (own_k, own_v) = prompt_cache, own_cache
    grouped, scale = _grouped(q, k.shape[2]), q.shape[-1] ** -0.5
    to_prompt = jnp.einsum("rghsd,rkhd->rhgsk", grouped, prompt_k, preferred_element_type=jnp.float32) * scale
    to_own = jnp.einsum("rghsd,rgkhd->rhgsk", grouped, own_k, preferred_element_type=jnp.float32) * scale
    to_self = jnp.einsum("rghsd,rghd->rhgs", grouped, k, preferred_element_type=jnp.float32)[..., None] * scale
    to_prompt = jnp.where(prompt_mask[:, None, None, None, :], to_prompt, BLOCKED)
    to_own = jnp.where(jnp.arange(own_k.shape[2]) < step, to_own, BLOCKED)
    probabilities = _softmax(jnp.concatenate([to_prompt, to_own, to_self], axis=-1), v.dtype)
    prompt_length = prompt_k.shape[1]
    out = jnp.einsum("rhgsk,rkhd->rghsd", probabilities[..., :prompt_length], prompt_v)
    out += jnp.einsum("rhgsk,rgkhd->rghsd", probabilities[..., prompt_length:-1], own_v)
    out += jnp.einsum("rhgs,rghd->rghsd", probabilities[..., -1], v)
    return out.reshape(q.shape)
