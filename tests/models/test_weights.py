"""Weights by published names: there and back, in every kind of number, on a mesh; what does not fit is said."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hugging_face_reference import FAMILIES, FOLDER
from reference_model import config, params
from safetensors.numpy import load_file, save_file

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.models.huggingface import read_config, write_config
from m2io_jax.models.weights import in_torch, load_weights, save_tensors, save_weights
from m2io_jax.parallel.mesh import make_mesh

FAMILY = FAMILIES[0]


def mesh(**sizes):
    return make_mesh(MeshConfig(**sizes), jax.devices()[: int(np.prod(list(sizes.values()))) or 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_is_exact_and_in_files_of_bounded_size(family, tmp_path):
    save_weights(tmp_path, params(family), config(family), dtype="float32", file_bytes=70_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    stored = {}
    for file in set(index["weight_map"].values()):
        tensors = load_file(tmp_path / file)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 70_000
        stored |= tensors
    original = load_file(FOLDER / family / "model.safetensors")
    assert stored.keys() == original.keys() == index["weight_map"].keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in original.values())
    for name, tensor in original.items():
        np.testing.assert_array_equal(stored[name], tensor)
    (tmp_path / "config.json").write_text(json.dumps(write_config(config(family), "float32")))
    assert read_config(tmp_path) == config(family)
    again = load_weights(tmp_path, config(family), mesh(data=1))
    jax.tree.map(np.testing.assert_array_equal, again, params(family))


def test_every_kind_of_number_is_kept(tmp_path):
    original = load_file(FOLDER / FAMILY / "model.safetensors")
    tensors = {name: value.astype(jnp.bfloat16) for name, value in original.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    loaded = load_weights(tmp_path, config(FAMILY), mesh(data=1, fsdp=2, tensor=2))
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype("bfloat16")}
    q = loaded["language"]["blocks"]["q"]["kernel"].get_value()
    assert {shard.data.shape for shard in q.addressable_shards} == {(2, 16, 16)}
    (tmp_path / "out").mkdir()
    save_weights(tmp_path / "out", loaded, config(FAMILY), dtype="bfloat16")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_all_that_does_not_fit_is_listed_together(tmp_path):
    tensors = load_file(FOLDER / FAMILY / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:5]
    del tensors["visual.blocks.1.attn.qkv.bias"]
    tensors["visual.blocks.1.attn.extra"] = tensors["lm_head.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((48, 32), np.int64)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path, config(FAMILY), mesh(data=1))
    for part in (
        "model.norm.weight is [5], the model's is [32]",
        "visual.blocks.1.attn.qkv.bias is missing",
        "visual.blocks.1.attn.extra is no tensor of this model",
        "model.layers.0.mlp.up_proj.weight is I64; one of float32",
    ):
        assert part in str(caught.value)


def test_names_of_newer_versions_are_read_and_a_tied_head_may_be_there_if_it_is_equal(tmp_path):
    family = "qwen2_vl"
    tensors = load_file(FOLDER / family / "model.safetensors")
    newer = {in_torch(name): value for name, value in tensors.items()}
    newer["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(newer, tmp_path / "model.safetensors")
    loaded = load_weights(tmp_path, config(family), mesh(data=1))
    jax.tree.map(np.testing.assert_array_equal, loaded, params(family))
    newer["lm_head.weight"] = newer["lm_head.weight"] + 1
    save_file(newer, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="differs from the embeddings"):
        load_weights(tmp_path, config(family), mesh(data=1))


def test_on_a_mesh_every_shard_is_its_part_of_the_whole():
    """Also where an axis is replicated, and where nothing divides."""
    whole = dict(nnx.to_flat_state(params(FAMILY)))
    for sizes in (dict(data=2, fsdp=2, tensor=2), dict(data=1, fsdp=3)):
        loaded = load_weights(FOLDER / FAMILY, config(FAMILY), mesh(**sizes))
        for path, param in nnx.to_flat_state(loaded):
            expected = np.asarray(whole[path].get_value())
            for shard in param.get_value().addressable_shards:
                np.testing.assert_array_equal(shard.data, expected[shard.index])


def test_what_is_no_folder_of_weights(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_weights(tmp_path, config(FAMILY), mesh(data=1))
    (tmp_path / "model.safetensors").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read"):
        load_weights(tmp_path, config(FAMILY), mesh(data=1))
    with pytest.raises(UserError, match="cannot be written"):
        save_weights(tmp_path / "model.safetensors", params(FAMILY), config(FAMILY), dtype="float32")


@pytest.mark.parametrize(
    "index, says",
    [
        ({"weight_map": {"a": "../elsewhere.safetensors"}}, "not the name of a file beside the index"),
        ({"weight_map": {"a": "absent.safetensors"}}, "cannot be read"),
        ({"weights": {}}, "must have a `weight_map`"),
        ({"weight_map": {"a": 3}}, "must have a `weight_map`"),
    ],
)
def test_an_index_that_leads_nowhere(index, says, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=says):
        load_weights(tmp_path, config(FAMILY), mesh(data=1))


def test_what_float16_cannot_hold_is_refused(tmp_path):
    large = jax.tree.map(lambda leaf: leaf * 1e6, params(FAMILY))
    with pytest.raises(UserError, match="model.embed_tokens.weight has values that are not finite in float16"):
        save_weights(tmp_path, large, config(FAMILY), dtype="float16")
    assert not list(tmp_path.iterdir())


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    save_tensors(tmp_path / "a.safetensors", {"a": np.ones(3, np.float32)})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(UserError, match="No space left"):
        save_tensors(tmp_path / "a.safetensors", {"a": np.zeros(3, np.float32)})
    assert load_file(tmp_path / "a.safetensors")["a"].tolist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
