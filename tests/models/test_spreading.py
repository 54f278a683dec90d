"""Activations spread over `tensor` between blocks: less memory, the same numbers."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_model import SMALL

from m2io_jax.config import MeshConfig
from m2io_jax.models import language
from m2io_jax.models.attention import GroupLayout
from m2io_jax.models.language import LanguageModel
from m2io_jax.models.sizes import Computation
from m2io_jax.parallel.mesh import make_mesh, on_mesh
from m2io_jax.parallel.sharding import batch_sharding, param_shardings, parts_of, place, spread

LAYERS, LENGTH = 16, 256
LAYOUT = GroupLayout(prompt=LENGTH // 2, group=2, completion=LENGTH // 4)
MODEL = LanguageModel(
    replace(SMALL.text, num_hidden_layers=LAYERS), Computation(remat="full", unroll=False), rngs=nnx.Rngs(0)
)
STRUCTURE, PARAMS = nnx.split(MODEL)


def gradient_of(params, x):
    """Of a sum over what the blocks make of `x`."""

    def total(params, x):
        positions = jnp.broadcast_to(jnp.arange(LENGTH), (3, 2, LENGTH))
        model = nnx.merge(STRUCTURE, params)
        return jnp.sum(model.group(x, positions, LAYOUT, jnp.ones((2, LAYOUT.prompt), bool)) ** 2)

    return jax.grad(total)(params, x)


def compiled_and_run(mesh):
    shardings = param_shardings(PARAMS, mesh)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, LENGTH, SMALL.text.hidden_size)), jnp.float32)
    given = place(PARAMS, shardings), x
    program = jax.jit(on_mesh(mesh, gradient_of), out_shardings=shardings).lower(*given).compile()
    return program.memory_analysis().temp_size_in_bytes, jax.device_get(program(*given))


def test_what_the_backward_pass_keeps_is_divided(monkeypatch):
    mesh = make_mesh(MeshConfig(data=1, tensor=4), jax.devices()[:4])
    spread_memory, spread_gradient = compiled_and_run(mesh)
    rows_alone = partial(replace_sequence, language.spread)
    monkeypatch.setattr(language, "spread", rows_alone)
    whole_memory, whole_gradient = compiled_and_run(mesh)
    kept = LAYERS * 2 * LENGTH * SMALL.text.hidden_size * 4  # the input of every block
    assert whole_memory - spread_memory > 0.5 * kept
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), spread_gradient, whole_gradient)


def replace_sequence(spread, x, axes):
    return spread(x, tuple(None if axis == "sequence" else axis for axis in axes))


@pytest.mark.parametrize("sizes", [(1, 2, 4), (2, 2, 2)], ids=str)
def test_sequences_are_looked_up_without_a_copy_of_everything(sizes, capfd):
    """XLA warns where it finds no way but to give every device all rows ("Involuntary full rematerialization")."""
    mesh = make_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))))
    tokens = np.random.default_rng(0).integers(SMALL.text.vocab_size, size=(8, LENGTH))

    def total(params, tokens):
        model = nnx.merge(STRUCTURE, params)
        prompt, own = (model.embed(part) for part in jnp.split(tokens, [LAYOUT.prompt], axis=1))
        x = jnp.concatenate([prompt, own], axis=1)
        positions = jnp.broadcast_to(jnp.arange(LENGTH), (3, 8, LENGTH))
        return jnp.mean(model.group(x, positions, LAYOUT, jnp.ones((8, LAYOUT.prompt), bool)) ** 2)

    shardings = param_shardings(PARAMS, mesh)
    gradient = jax.jit(on_mesh(mesh, jax.grad(total)), out_shardings=shardings)
    given = place((PARAMS, tokens), (shardings, batch_sharding(mesh)))
    found, expected = gradient(*given), jax.jit(jax.grad(total))(PARAMS, tokens)
    assert "rematerialization" not in capfd.readouterr().err
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), found, expected)


def test_nothing_is_spread_where_it_does_not_divide_or_nothing_is_traced_for_a_mesh():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    axes, shape = ("batch", "sequence", None), (8, 7, 3)
    x = np.ones(shape)
    assert parts_of(axes, shape) == 1 and spread(x, axes) is x
    seen = []
    jax.jit(on_mesh(mesh, lambda x: seen.append(parts_of(axes, x.shape)) or spread(x, axes)))(np.ones(shape))
    jax.jit(on_mesh(mesh, lambda x: seen.append(parts_of(axes, x.shape)) or spread(x, axes)))(np.ones((8, 6, 3)))
    assert seen == [4, 8]
