"""Weights that are gathered once for a rollout."""

import re

import jax
import numpy as np
import pytest
from small_model import STRUCTURE, mixed_rows, small_params

from m2io_jax.config import MeshConfig
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.models.int8 import quantizer
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import param_shardings, place, place_batch
from m2io_jax.sampling.sampler import Sampler, SamplingConfig


@pytest.fixture(scope="module")
def decoded():
    """What is sampled with weights gathered for every token and once, and the programs that did."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=4), jax.devices()[:4])
    params, prompts = small_params(), place_batch(stack_prompts(mixed_rows()), mesh)
    params = place(params, param_shardings(params, mesh))
    found = {}
    for gather in (None, "float32"):
        sampler = Sampler(STRUCTURE, SamplingConfig((1.0, 1.0), 6), mesh, gather=gather)
        prefilled = sampler.prefill(params, prompts, sampler.encode(params, prompts))
        program = sampler.decode.lower(params, prompts, prefilled, jax.random.key(0), None).compile()
        found[gather] = program(params, prompts, prefilled, jax.random.key(0), None), program.as_text()
    return found


def test_the_same_is_sampled(decoded):
    (each, _), (once, _) = decoded[None], decoded["float32"]
    np.testing.assert_array_equal(once.completions.tokens, each.completions.tokens)
    np.testing.assert_allclose(once.log_probs, each.log_probs, atol=1e-5)


def test_the_same_is_sampled_of_weights_in_eight_bits():
    mesh = make_mesh(MeshConfig(data=1, fsdp=4), jax.devices()[:4])
    prompts, params = place_batch(stack_prompts(mixed_rows()), mesh), small_params()
    params = quantizer(mesh)(place(params, param_shardings(params, mesh)))
    each, once = (
        Sampler(STRUCTURE, SamplingConfig((1.0, 1.0), 6), mesh, gather=gather)(params, prompts, jax.random.key(0))
        for gather in (None, "float32")
    )
    np.testing.assert_array_equal(once.completions.tokens, each.completions.tokens)
    np.testing.assert_allclose(once.log_probs, each.log_probs, atol=1e-5)


def test_gathered_weights_let_every_device_decode_for_itself(decoded):
    def in_loops(text: str) -> int:
        return len(re.findall(r" (?:all-\w+|collective-permute|reduce-scatter)(?:-start)?\(.*/while/body", text))

    assert in_loops(decoded[None][1]) > 0 and in_loops(decoded["float32"][1]) == 0
