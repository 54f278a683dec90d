"""Every attention shape against full score matrices in float64, with the mask written out entry by entry."""

import jax
import numpy as np
import pytest
from programs import equations

from m2io_jax.models import attention
from m2io_jax.models.attention import (
    GroupLayout,
    causal_attention,
    decode_attention,
    group_attention,
    segment_attention,
)

ROWS, KV, SHARE, DIM = 3, 2, 3, 8
PROMPT_LENGTHS = np.array([5, 2, 1])
LAYOUT = GroupLayout(prompt=5, group=2, completion=4)
PROMPT_MASK = np.arange(LAYOUT.prompt) < PROMPT_LENGTHS[:, None]
TIGHT = dict(rtol=2e-6, atol=2e-6)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dense(q, k, v, allowed):
    """softmax(q k^T / sqrt(dim)) v; q [queries, dim], k and v [keys, dim], allowed [queries, keys]."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = np.where(allowed, q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def tree_mask(row):
    """Who sees whom in [prompt | c1 | c2], entry by entry."""

    def branch(place):
        return -1 if place < LAYOUT.prompt else (place - LAYOUT.prompt) // LAYOUT.completion

    allowed = np.zeros((LAYOUT.length, LAYOUT.length), bool)
    for query in range(LAYOUT.length):
        for key in range(query + 1):
            of_prompt = branch(key) == -1
            real = not of_prompt or branch(query) == -1 or key < PROMPT_LENGTHS[row]
            allowed[query, key] = real and (of_prompt or branch(key) == branch(query))
    return allowed


@pytest.fixture(scope="module")
def tree():
    q = normal(0, ROWS, KV, SHARE, LAYOUT.length, DIM)
    k, v = (normal(seed, ROWS, KV, LAYOUT.length, DIM) for seed in (1, 2))
    expected = np.stack([
        [[dense(q[r, h, s], k[r, h], v[r, h], tree_mask(r)) for s in range(SHARE)] for h in range(KV)]
        for r in range(ROWS)
    ])  # fmt: skip
    return q, k, v, expected


def test_group_attention(tree):
    q, k, v, expected = tree
    got = jax.jit(group_attention, static_argnums=3)(q, k, v, LAYOUT, PROMPT_MASK)
    np.testing.assert_allclose(got, expected, **TIGHT)


def test_causal_attention(tree):
    q, k, v, expected = tree
    prompt = LAYOUT.prompt
    got = jax.jit(causal_attention)(q[..., :prompt, :], k[..., :prompt, :], v[..., :prompt, :])
    np.testing.assert_allclose(got, expected[..., :prompt, :], **TIGHT)


def test_decode_attention_reads_what_the_tree_reads(tree):
    q, k, v, expected = tree

    def grouped(x):
        return x[..., LAYOUT.prompt :, :].reshape(*x.shape[:-2], LAYOUT.group, LAYOUT.completion, DIM)

    own_q, own_k, own_v, own_expected = map(grouped, (q, k, v, expected))
    prompt = tuple(x[:, :, : LAYOUT.prompt] for x in (k, v))
    decode = jax.jit(decode_attention)
    for step in range(LAYOUT.completion):
        written = np.arange(LAYOUT.completion)[:, None] < step
        cache = tuple(np.where(written, x, 1e3) for x in (own_k, own_v))  # what is not written must not matter
        new = (x[..., step, :] for x in (own_q, own_k, own_v))
        got = decode(*new, prompt, cache, PROMPT_MASK, step)
        np.testing.assert_allclose(got, own_expected[..., step, :], **TIGHT)


def test_segment_attention():
    segments = np.array([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, -1, -1], [-1] * 6])
    q, k, v = (normal(seed, 3, 2, 6, DIM) for seed in (3, 4, 5))
    got = np.asarray(jax.jit(segment_attention)(q, k, v, segments))
    assert np.isfinite(got).all()  # a picture row that nothing uses included
    for row in range(2):
        real = segments[row] >= 0
        same = segments[row][real][:, None] == segments[row][real]
        for head in range(2):
            expected = dense(*(x[row, head, real] for x in (q, k, v)), same)
            np.testing.assert_allclose(got[row, head, real], expected, **TIGHT)


def test_scores_as_large_as_float32_exponents_overflow_with(tree):
    q, k, v, _ = tree
    got = jax.jit(group_attention, static_argnums=3)(200 * q, k, v, LAYOUT, PROMPT_MASK)
    expected = dense(200 * q[0, 0, 0], k[0, 0], v[0, 0], tree_mask(0))
    np.testing.assert_allclose(got[0, 0, 0], expected, rtol=1e-3, atol=1e-3)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_long_prompts_and_completions_go_block_by_block(tree, block, monkeypatch):
    """The same numbers and gradients from blocks, the last of them shorter, as from all scores at once."""
    q, k, v, expected = tree

    def gradients(q, k, v):
        def loss(q, k, v):
            out = group_attention(q, k, v, LAYOUT, PROMPT_MASK)
            return (out * np.cos(np.arange(out.size)).reshape(out.shape)).sum(), out

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    wanted, _ = jax.jit(gradients)(q, k, v)
    monkeypatch.setattr(attention, "BLOCK", block)
    found, out = jax.jit(lambda *x: gradients(*x))(q, k, v)
    np.testing.assert_allclose(out, expected, **TIGHT)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [1, 4, 5])
def test_many_patches_go_block_by_block(block, monkeypatch):
    segments = np.array([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, -1, -1]])
    qkv = tuple(normal(seed, 2, 2, 6, DIM) for seed in (3, 4, 5))

    def gradients(q, k, v):
        def loss(q, k, v):
            out = segment_attention(q, k, v, segments)
            return (out * np.cos(np.arange(out.size)).reshape(out.shape)).sum(), out

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    wanted = jax.jit(gradients)(*qkv)
    monkeypatch.setattr(attention, "BLOCK", block)
    found = jax.jit(lambda *x: gradients(*x))(*qkv)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


def tree_gradient(layout):
    """The gradient of a sum over the tree, and the shapes that it takes."""
    q = jax.ShapeDtypeStruct((1, 1, 2, layout.length, 8), np.float32)
    k = jax.ShapeDtypeStruct((1, 1, layout.length, 8), np.float32)
    mask = jax.ShapeDtypeStruct((1, layout.prompt), bool)

    def loss(q, k, v, mask):
        return group_attention(q, k, v, layout, mask).sum()

    return jax.grad(loss, argnums=(0, 1, 2)), (q, k, k, mask)


def largest_array(function, *shapes):
    """Numbers in the largest array that is made on the way."""
    program = jax.make_jaxpr(function)(*shapes)
    return max(made.aval.size for equation in equations(program.jaxpr) for made in equation.outvars)


@pytest.mark.parametrize("prompt, completion", [(4, 1), (1, 4), (4, 4)])
def test_no_scores_of_a_whole_long_prompt_or_completion_are_formed(prompt, completion):
    """Neither forward nor backward holds a prompt's own scores, a completion's own, or those of all with the prompt."""
    layout = GroupLayout(prompt=prompt * attention.BLOCK, group=4, completion=completion * attention.BLOCK)
    gradient, shapes = tree_gradient(layout)
    assert largest_array(gradient, *shapes) <= 2 * 4 * attention.BLOCK**2


def test_no_scores_of_a_whole_large_picture_are_formed():
    patches = 4 * attention.BLOCK
    x = jax.ShapeDtypeStruct((2, 3, patches, 8), np.float32)
    segments = jax.ShapeDtypeStruct((2, patches), np.int32)
    gradient = jax.grad(lambda *qkv: segment_attention(*qkv).sum(), argnums=(0, 1, 2))
    assert largest_array(gradient, x, x, x, segments) <= 2 * 3 * patches * attention.BLOCK


def test_the_memory_of_long_completions_is_that_of_one_block():
    layout = GroupLayout(prompt=attention.BLOCK, group=8, completion=8 * attention.BLOCK)
    gradient, shapes = tree_gradient(layout)
    memory = jax.jit(gradient).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    all_scores = 4 * 2 * layout.group * layout.completion**2
    assert memory < all_scores / 4
