import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.sizes import SIZES
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import (
    batch_sharding,
    optimizer_shardings,
    own_rows,
    param_shardings,
    partition_spec,
    place,
    place_batch,
    replicated,
)


@pytest.fixture(scope="module")
def params():
    """The tiny model's parameters, filled without compiling its initialisers."""
    random = np.random.default_rng(0)
    declared = nnx.state(nnx.eval_shape(lambda: Inserter(SIZES["tiny"], rngs=nnx.Rngs(0))), nnx.Param)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), declared)


@pytest.fixture(scope="module")
def cube():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


def specs(shardings):
    return {".".join(map(str, path)): leaf.get_value().spec for path, leaf in nnx.to_flat_state(shardings)}


def test_every_weight_lies_as_the_table_says(params, cube):
    shardings = param_shardings(params, cube)
    assert jax.tree.structure(shardings) == jax.tree.structure(params)
    found = specs(shardings)
    assert found["language.embedding"] == P("tensor", "fsdp")
    assert found["language.blocks.q.kernel"] == P(None, "fsdp", "tensor")
    assert found["language.blocks.k.bias"] == P(None, "tensor")
    assert found["language.blocks.mlp.down.kernel"] == P(None, "tensor", "fsdp")
    assert found["language.blocks.norm1.scale"] == P(None, None)
    assert found["vision.patch_embed.kernel"] == P(None, "fsdp")


def test_a_dimension_that_the_mesh_does_not_divide_stays_whole(params):
    mesh = make_mesh(MeshConfig(fsdp=5, data=1), jax.devices()[:5])
    found = specs(param_shardings(params, mesh))
    assert found["language.embedding"] == P("tensor", None)  # 192 is no multiple of 5
    six = make_mesh(MeshConfig(fsdp=3, tensor=2), jax.devices()[:6])
    assert partition_spec(("mlp", "embed"), (9, 9), six) == P(None, "fsdp")
    assert partition_spec(("mlp", "vocab"), (8, 8), six) == P("tensor", None)  # never the same mesh axis twice


def test_unknown_or_missing_axes_are_refused(cube):
    with pytest.raises(ValueError, match="'colour'"):
        partition_spec(("colour",), (8,), cube)
    with pytest.raises(ValueError, match="shape"):
        partition_spec(("mlp",), (8, 8), cube)
    with pytest.raises(ValueError, match="without logical axes"):
        param_shardings(nnx.State({"kernel": nnx.Param(jnp.ones(4))}), cube)


def test_placed_weights_are_equal_and_take_a_device_their_part(params, cube):
    placed = place(params, param_shardings(params, cube))
    jax.tree.map(np.testing.assert_array_equal, placed, params)
    embedding = placed["language"]["embedding"].get_value()
    assert {shard.data.shape for shard in embedding.addressable_shards} == {
        (params["language"]["embedding"].get_value().shape[0] // 2, 192 // 2)
    }
    on_one = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(placed))
    whole = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert whole / 4 <= on_one < 0.27 * whole


def optimizer():
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(1.0, 0.0, 9), weight_decay=0.1)
    )


def test_optimizer_state_lies_as_its_weights_do(params, cube):
    shardings = optimizer_shardings(optimizer(), params, cube)
    state = jax.jit(optimizer().init, out_shardings=shardings)(params)
    assert jax.tree.structure(state) == jax.tree.structure(shardings)
    adam = shardings[1][0]
    assert specs(adam.mu) == specs(adam.nu) == specs(param_shardings(params, cube))
    assert adam.count == replicated(cube)


def test_factored_optimizer_state_is_whole_where_its_shape_differs(cube):
    weights = nnx.State({"kernel": nnx.Param(jnp.ones((256, 128)), axes=("mlp", "embed"))})
    factored = optax.scale_by_factored_rms()
    shardings = optimizer_shardings(factored, weights, cube)
    assert {leaf.spec for leaf in jax.tree.leaves(shardings)} == {P()}
    jax.jit(factored.init, out_shardings=shardings)(weights)


def test_one_update_is_the_same_on_any_mesh():
    weights = nnx.State({"kernel": nnx.Param(jnp.linspace(-1.0, 1.0, 64).reshape(16, 4), axes=("embed", "mlp"))})
    rows = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)

    def update(weights, state, rows):
        grads = jax.grad(lambda w: jnp.tanh(rows @ w["kernel"].get_value()).mean())(weights)
        updates, state = optimizer().update(grads, state, weights)
        return optax.apply_updates(weights, updates), state

    results = []
    for sizes in ({}, {"data": 1, "fsdp": 4, "tensor": 2}, {"data": 2, "fsdp": 2, "tensor": 2}):
        mesh = make_mesh(MeshConfig(**sizes))
        layout = param_shardings(weights, mesh), optimizer_shardings(optimizer(), weights, mesh)
        step = jax.jit(update, in_shardings=(*layout, batch_sharding(mesh)), out_shardings=layout)
        placed = place(weights, layout[0])
        placed, _ = step(placed, jax.jit(optimizer().init, out_shardings=layout[1])(placed), place_batch(rows, mesh))
        results.append(np.asarray(placed["kernel"].get_value()))
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5)


def test_a_batch_is_spread_over_data_and_fsdp(cube):
    batch = {"tokens": np.arange(24).reshape(12, 2), "rows": np.arange(12)}
    placed = place_batch(batch, cube)
    np.testing.assert_array_equal(placed["tokens"], batch["tokens"])
    for array in placed.values():
        assert array.sharding.is_equivalent_to(batch_sharding(cube), array.ndim)
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {3}
    jax.tree.map(np.testing.assert_array_equal, own_rows(placed), batch)
    whole = jax.device_put(batch, replicated(cube))
    jax.tree.map(np.testing.assert_array_equal, own_rows(whole), batch)
    with pytest.raises(UserError, match="10 rows .* 4 devices"):
        place_batch(np.zeros((10, 2)), cube)
