"""Weights in eight bits: how far off they are, and that every pass reads them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from small_model import log_probs, mixed_rows, random_completions, rollouts, small_params

from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.models.int8 import QuantizedKernel, quantized
from m2io_jax.sampling.sampler import SamplingConfig


def flat(params):
    return dict(nnx.to_flat_state(params))


def test_kernels_of_blocks_are_off_by_half_a_step_at_most():
    before, after = flat(small_params()), flat(quantized(small_params()))
    assert before.keys() == after.keys()
    changed = 0
    for path, param in after.items():
        ours, theirs = param.get_value(), np.asarray(before[path].get_value())
        if not isinstance(ours, QuantizedKernel):
            assert "blocks" not in path or path[-1] != "kernel"
            np.testing.assert_array_equal(ours, theirs)
            continue
        changed += 1
        assert ours.values.dtype == jnp.int8
        step = np.abs(theirs).max(-2, keepdims=True) / 127
        off = np.abs(np.asarray(ours.values, np.float64) * np.asarray(ours.scales) - theirs)
        assert (off <= 0.5001 * step).all() and off.max() > 0
    assert changed == 7 + 5  # q, k, v, o, gate, up, down; qkv, proj, gate, up, down


def test_a_product_is_that_of_the_dequantized_kernel():
    random = np.random.default_rng(0)
    x, values = random.normal(size=(5, 7)), random.integers(-127, 128, (7, 3))
    scales = random.uniform(0.01, 0.1, (1, 3))
    kernel = QuantizedKernel(jnp.asarray(values, jnp.int8), jnp.asarray(scales, jnp.float32))
    ours = kernel.matmul(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours, x @ (values * scales), rtol=1e-5, atol=1e-5)


def test_a_kernel_of_zeros_stays_zero():
    params = nnx.from_flat_state([(("blocks", "q", "kernel"), nnx.Param(jnp.zeros((2, 3, 4))))])
    kernel = flat(quantized(params))["blocks", "q", "kernel"].get_value()
    assert not jax.tree.map(lambda x: x[0], kernel).matmul(jnp.ones((1, 3))).any()


def test_sampler_and_scoring_read_the_same_quantized_model():
    params, prompts = quantized(small_params()), stack_prompts(mixed_rows())
    sampled = rollouts(params, prompts, SamplingConfig((1.0,) * 3, 6), jax.random.key(0))
    scored, _ = log_probs(params, prompts, sampled.completions)
    mask = np.asarray(sampled.completions.mask)
    np.testing.assert_allclose(np.where(mask, scored, 0), np.where(mask, sampled.log_probs, 0), rtol=1e-5, atol=1e-5)


def test_log_probs_are_near_those_of_the_float_model():
    prompts, completions = stack_prompts(mixed_rows()), random_completions()
    exact, _ = log_probs(small_params(), prompts, completions)
    rough, _ = log_probs(quantized(small_params()), prompts, completions)
    assert 0 < np.abs(np.asarray(exact) - rough).max() < 0.2
