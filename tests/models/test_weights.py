import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from m2io_jax.errors import UserError
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.sizes import SIZES
from m2io_jax.models.weights import load_weights, save_weights

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def params():
    """The tiny model's parameters, filled without compiling its initialisers."""
    random = np.random.default_rng(0)
    declared = nnx.state(nnx.eval_shape(lambda: Inserter(TINY, rngs=nnx.Rngs(0))), nnx.Param)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), declared)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_round_trip(params, tmp_path, dtype):
    save_weights(tmp_path / "new" / "model.safetensors", params, dtype=dtype)
    loaded = load_weights(tmp_path / "new" / "model.safetensors", TINY)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for got, was in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, np.asarray(was).astype(jnp.dtype(dtype)).astype(np.float32))
    model = nnx.eval_shape(lambda: Inserter(TINY, rngs=nnx.Rngs(0)))
    nnx.update(model, loaded)
    assert model.language.embedding[...] is loaded["language"]["embedding"][...]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.safetensors"]


def test_keys_are_paths_and_any_reader_sees_the_values(params, tmp_path):
    save_weights(tmp_path / "model.safetensors", params, dtype="float32")
    stored = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert len(stored) == len(jax.tree.leaves(params))
    np.testing.assert_array_equal(stored["language.blocks.q.kernel"], params["language"]["blocks"]["q"]["kernel"][...])


def test_all_misfits_are_listed_together(params, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, params, dtype="float32")
    stored = safetensors.numpy.load_file(path)
    del stored["language.norm.scale"]
    stored["colour"] = np.zeros(3, np.float32)
    stored["language.embedding"] = np.zeros((7, 192), np.float32)
    stored["vision.merger.fc1.bias"] = np.zeros(512, np.int32)
    safetensors.numpy.save_file(stored, path)
    with pytest.raises(UserError) as caught:
        load_weights(path, TINY)
    for said in (
        "language.norm.scale is missing",
        "colour is no parameter",
        f"language.embedding is [7, 192], the model's is [{TINY.text.vocab_size}, 192]",
        "vision.merger.fc1.bias is int32",
        str(path),
    ):
        assert said in str(caught.value)


def test_what_is_no_file_of_weights(params, tmp_path):
    (tmp_path / "text").write_text("no weights")
    for name in ("text", "absent"):
        with pytest.raises(UserError, match="cannot be read"):
            load_weights(tmp_path / name, TINY)
    with pytest.raises(UserError, match="cannot be written"):
        save_weights(tmp_path / "text" / "model.safetensors", params, dtype="float32")


def test_what_float16_cannot_hold_is_refused(tmp_path):
    params = nnx.State({"a": nnx.Param(jnp.full(2, 1e6)), "b": nnx.Param(jnp.ones(2))})
    with pytest.raises(UserError, match="a has values that are not finite in float16"):
        save_weights(tmp_path / "model.safetensors", params, dtype="float16")
    assert not list(tmp_path.iterdir())
