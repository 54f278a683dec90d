"""bfloat16 and rematerialisation: what they may change, and what not."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from programs import equations
from small_model import SMALL, mixed_rows, random_completions, small_params

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.models.policy import structure_of
from m2io_jax.models.sizes import Computation
from m2io_jax.sampling.sampler import SamplingConfig, sample
from m2io_jax.training.state import split_trained, to_compute_dtype


@cache
def compiled(computation: Computation):
    """The gradient of a loss over completions."""
    structure = structure_of(replace(SMALL, computation=computation))
    completions = random_completions()

    def gradient(weights, prompts):
        def loss(weights):
            model = nnx.merge(structure, weights)
            log_probs, entropy = model.completion_log_probs(prompts, completions)
            return -jnp.sum(log_probs * completions.mask) / completions.mask.sum(), (log_probs, entropy)

        return jax.value_and_grad(loss, has_aux=True)(weights)

    return jax.jit(gradient)


def value_and_gradients(computation: Computation, weights=None):
    return compiled(computation)(small_params() if weights is None else weights, stack_prompts(mixed_rows()))


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_computing_again_changes_nothing(remat):
    (plain, _), expected = value_and_gradients(Computation())
    (value, _), gradients = value_and_gradients(Computation(remat=remat))
    assert float(value) == pytest.approx(float(plain), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradients, expected)


def test_a_loop_over_layers_and_layers_written_out_are_one_model():
    (plain, _), expected = value_and_gradients(Computation(unroll=True))
    (value, _), gradients = value_and_gradients(Computation(unroll=False))
    assert float(value) == pytest.approx(float(plain), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradients, expected)


def test_sampling_is_the_same_by_a_loop_and_by_layers_written_out():
    def drawn(unroll):
        structure = structure_of(replace(SMALL, computation=Computation(unroll=unroll)))
        prompts, settings = stack_prompts(mixed_rows()), SamplingConfig((1.0, 0.0), 6)
        run = jax.jit(lambda w, p: sample(nnx.merge(structure, w), p, settings, key=jax.random.key(0)))
        return run(small_params(), prompts)

    loop, out = drawn(False), drawn(True)
    np.testing.assert_array_equal(loop.completions.tokens, out.completions.tokens)
    np.testing.assert_allclose(loop.log_probs, out.log_probs, rtol=1e-5, atol=1e-5)


def test_layers_are_written_out_on_cpu_where_they_are_few_and_sequences_short():
    assert Computation().unrolls(6, 900)
    assert not Computation().unrolls(6, 4000) and not Computation().unrolls(36, 900)
    assert not Computation(remat="dots").unrolls(6, 900), "what saves memory is not spent here"
    assert Computation(unroll=True).unrolls(36, 4000) and not Computation(unroll=False).unrolls(2, 1)


def test_computing_again_keeps_less():
    def held(remat):
        program = compiled(Computation(remat=remat)).lower(small_params(), stack_prompts(mixed_rows())).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert held("full") < held("dots") < held("none")


def test_bfloat16_computes_in_bfloat16_and_trains_in_float32():
    (wide, (log_probs, _)), expected = value_and_gradients(Computation())
    (narrow, (rounded, entropy)), gradients = value_and_gradients(Computation(dtype="bfloat16"))
    assert rounded.dtype == entropy.dtype == narrow.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    gap = np.abs(np.asarray(rounded) - np.asarray(log_probs)).max()
    assert 1e-4 < gap < 0.3  # rounded somewhere, and only rounded
    assert float(narrow) == pytest.approx(float(wide), rel=0.02)
    one, other = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (gradients, expected))
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.98


def test_every_product_is_in_the_chosen_type():
    structure = structure_of(replace(SMALL, computation=Computation(dtype="bfloat16")))
    completions, prompts = random_completions(), stack_prompts(mixed_rows())
    scores = jax.make_jaxpr(lambda weights: nnx.merge(structure, weights).completion_log_probs(prompts, completions))
    program = scores(small_params())
    products = [equation for equation in equations(program.jaxpr) if equation.primitive.name == "dot_general"]
    kinds = [[str(v.aval.dtype) for v in equation.invars] for equation in products]
    assert len(kinds) > 20 and all(kind == ["bfloat16", "bfloat16"] for kind in kinds)


def test_weights_that_are_not_trained_give_the_same_when_they_are_stored_rounded():
    """Rounding before is rounding in use: the reference and frozen weights cost half and lose nothing."""
    bf16 = Computation(dtype="bfloat16")
    (value, (log_probs, _)), _ = value_and_gradients(bf16)
    run = RunConfig(name="a", objective="grpo", steps=1, computation={"dtype": "bfloat16"})
    (same, (again, _)), _ = value_and_gradients(bf16, to_compute_dtype(small_params(), run))
    assert same == value
    np.testing.assert_array_equal(again, log_probs)


def test_what_is_trained_stays_float32():
    run = RunConfig(name="a", objective="grpo", steps=1, computation={"dtype": "bfloat16"}, freeze=(r"vision\..*",))
    trained, frozen = split_trained(small_params(), run)
    assert {leaf.dtype for leaf in jax.tree.leaves(trained)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(frozen)} == {jnp.dtype("bfloat16")}


def test_the_sampler_computes_as_the_trainer_does():
    structure = structure_of(replace(SMALL, computation=Computation(dtype="bfloat16")))

    @jax.jit
    def both(weights, prompts):
        model = nnx.merge(structure, weights)
        drawn = sample(model, prompts, SamplingConfig((1.0, 1.0), 6), key=jax.random.key(1))
        return drawn, model.completion_log_probs(prompts, drawn.completions)[0]

    drawn, log_probs = both(small_params(), stack_prompts(mixed_rows()))
    gap = np.abs(np.asarray(log_probs - drawn.log_probs)) * np.asarray(drawn.completions.mask)
    assert gap.max() < 0.1  # bfloat16 has 8 bits; in float32 this is 1e-5 (test_parity.py)
