"""Our models against Hugging Face's: block by block, logits, positions, gradients, weights there and back.

The reference is committed (`hugging_face_reference.py` made it); where torch is installed it is made again and compared
as well.
"""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hugging_face_reference import CASES, FAMILIES, FOLDER, MAIN, answers, build, case
from safetensors.numpy import load_file, save_file

from m2io_jax.config import BatchConfig, MeshConfig
from m2io_jax.episodes.batching import PromptEncoder, stack_prompts
from m2io_jax.errors import UserError
from m2io_jax.models.attention import causal_attention
from m2io_jax.models.huggingface import load_weights, matches, read_config, save_weights, write_config
from m2io_jax.models.inputs import PictureGrid
from m2io_jax.models.inserter import token_log_probs
from m2io_jax.models.policy import structure_of
from m2io_jax.models.rope import patch_rotation, token_rotation
from m2io_jax.models.sizes import SIZES
from m2io_jax.parallel.mesh import make_mesh

BUCKETS = {"tight": dict(prompt_length=160, patches=64), "loose": dict(prompt_length=208, patches=96)}
FORWARD, BACKWARD = 1e-5, 1e-4  # relative to the largest number of the reference


def close(got, expected, tolerance: float) -> None:
    expected = np.asarray(expected)
    if expected.dtype.kind == "i":
        np.testing.assert_array_equal(got, expected)
        return
    error = np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"off by {error:.2e} of the largest number"


@cache
def config(family: str):
    return read_config(FOLDER / family)


@cache
def params(family: str):
    return load_weights(FOLDER / family, config(family), make_mesh(MeshConfig(data=1), jax.devices()[:1]))


@cache
def reference(family: str):
    return np.load(FOLDER / family / "answers.npz")


def prompts(family: str, name: str, bucket: str = "tight"):
    chosen, model = case(name), config(family)
    batch = BatchConfig(completion_length=4, pictures=6, max_pixels=10**6, **BUCKETS[bucket])
    encoder = PromptEncoder(model, None, batch)
    rows = []
    for tokens, grids, patches in zip(chosen.rows, chosen.grids, chosen.patches, strict=True):
        pictures = [PictureGrid(patch, *grid) for patch, grid in zip(patches, grids, strict=True)]
        rows.append(encoder.pad(tokens.astype(np.int32), pictures, 0))
    return stack_prompts(rows)


@cache
def forward(family: str):
    @jax.jit
    def compiled(weights, batch):
        model = nnx.merge(structure_of(config(family)), weights)
        hidden, _ = model.language.prefill(model.embed_prompt(batch), batch.positions.transpose(1, 0, 2))
        return model.language.logits(hidden)

    return compiled


def logits(family: str, weights, batch):
    with jax.default_matmul_precision("highest"):
        return np.asarray(forward(family)(weights, batch))


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_positions(family, name, bucket):
    batch = prompts(family, name, bucket)
    found = logits(family, params(family), batch)
    for row, tokens in enumerate(case(name).rows):
        close(found[row, : len(tokens)], reference(family)[f"{name}/logits.{row}"], FORWARD)
        positions = reference(family)[f"{name}/positions.{row}"]
        np.testing.assert_array_equal(batch.positions[row, :, : len(tokens)], positions)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family):
    tight, loose = (logits(family, params(family), prompts(family, MAIN, bucket)) for bucket in BUCKETS)
    length = len(case(MAIN).rows[0])
    close(loose[0, :length], tight[0, :length], 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_vision_blocks_and_merger(family):
    answer, batch, tower = reference(family), prompts(family, MAIN), merged(family).vision
    windows, order = batch.windows[0], window_order(batch.windows[0])
    if tower.config.norm == "rms":
        np.testing.assert_array_equal(order, answer[f"{MAIN}/windows"])
    else:
        order = np.arange(len(order))
    with jax.default_matmul_precision("highest"):
        rotation = patch_rotation(batch.patch_positions[0], tower.config.head_dim)
        x = tower.patch_embed(batch.patches[0])
        for number, block in enumerate(layers(tower.blocks)):
            full = number in tower.config.fullatt_block_indexes
            x = block(x, rotation, np.minimum(windows, 0) if full else windows)
            units = real_units(x)[order]
            close(units, answer[f"{MAIN}/vision.{number}"].reshape(units.shape), FORWARD)
        close(real_units(tower.merger(x))[order][:, 0], answer[f"{MAIN}/merger"], FORWARD)


@pytest.mark.parametrize("family", FAMILIES)
def test_language_blocks(family):
    answer, batch, model = reference(family), prompts(family, MAIN), merged(family)
    text, length = model.config.text, len(case(MAIN).rows[0])
    with jax.default_matmul_precision("highest"):
        positions = batch.positions.transpose(1, 0, 2)
        rotation = token_rotation(positions, text.head_dim, text.mrope_section, text.rope_theta)
        x = model.embed_prompt(batch)
        for number, block in enumerate(layers(model.language.blocks)):
            x, _ = block(x, rotation, causal_attention)
            close(x[0, :length], answer[f"{MAIN}/language.{number}"].reshape(length, -1), FORWARD)


def merged(family: str):
    return nnx.merge(structure_of(config(family)), params(family))


def layers(stack):
    """The blocks of a tower one by one."""
    structure, weights = nnx.split(stack)
    depth = jax.tree.leaves(weights)[0].shape[0]
    return [nnx.merge(structure, jax.tree.map(lambda leaf, n=n: leaf[n], weights)) for n in range(depth)]


def real_units(x):
    """[units, patches a unit, size] of the main case's pictures, one after another, without padding."""
    rows = []
    for index, (height, width) in enumerate(case(MAIN).grids[0]):
        picture = np.asarray(x[index])
        count = height * width // 4
        rows.append(picture.reshape(BUCKETS["tight"]["patches"] // 4, -1, picture.shape[-1])[:count])
    return np.concatenate(rows)


def window_order(windows):
    """The merge units of all pictures, sorted by picture and window: how the reference lays them out."""
    order, before = [], 0
    for index, (height, width) in enumerate(case(MAIN).grids[0]):
        count = height * width // 4
        order += list(before + np.argsort(windows[index, : 4 * count : 4], kind="stable"))
        before += count
    return np.array(order)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_every_parameter(family):
    answer, batch, length = reference(family), prompts(family, MAIN), len(case(MAIN).rows[0])

    @jax.jit
    def loss(weights, batch):
        model = nnx.merge(structure_of(config(family)), weights)
        hidden, _ = model.language.prefill(model.embed_prompt(batch), batch.positions.transpose(1, 0, 2))
        chosen, _ = token_log_probs(model.language.logits(hidden)[0, : length - 1], batch.tokens[0, 1:length])
        return -chosen.mean()

    with jax.default_matmul_precision("highest"):
        value, gradients = jax.value_and_grad(loss)(params(family), batch)
    close(value, answer[f"{MAIN}/loss"], FORWARD)
    flat = {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(gradients)}
    seen = set()
    for name, match in matches(config(family)).items():
        for layer, tensor in enumerate(match.theirs):
            ours = match.view(np.asarray(flat[name][layer] if match.stacked else flat[name]))
            close(ours, answer[f"{MAIN}/gradient.{torch_name(tensor)}"], BACKWARD)
            seen.add(f"{MAIN}/gradient.{torch_name(tensor)}")
    assert seen == {key for key in answer.files if "/gradient." in key}


def torch_name(tensor: str) -> str:
    """The parameter's name inside the PyTorch model."""
    if tensor.startswith("model."):
        return "model.language_model." + tensor.removeprefix("model.")
    return "model." + tensor if tensor.startswith("visual.") else tensor


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_notices_any_wrong_weight(family):
    batch, good = prompts(family, MAIN), jax.tree.map(np.asarray, params(family))
    expected, length = reference(family)[f"{MAIN}/logits.0"], len(case(MAIN).rows[0])
    flat = nnx.to_flat_state(good)
    for index, (path, param) in enumerate(flat):
        value = param.get_value().copy()
        place = tuple(size // 2 for size in value.shape)
        if path == ("language", "embedding"):
            place = (7, 3)  # a token that the prompt has
        value[place] += 0.1
        wrong = nnx.from_flat_state([*flat[:index], (path, param.replace(value)), *flat[index + 1 :]])
        found = logits(family, wrong, batch)[0, :length]
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error > FORWARD, path


@pytest.mark.parametrize("axis", range(3))
def test_the_comparison_notices_any_wrong_position(axis):
    family = FAMILIES[0]
    batch, length = prompts(family, MAIN), len(case(MAIN).rows[0])
    batch.positions[0, axis, length // 2] += 1
    found = logits(family, params(family), batch)[0, :length]
    with pytest.raises(AssertionError, match="off by"):
        close(found, reference(family)[f"{MAIN}/logits.0"], FORWARD)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_made_again(family, name):
    for key, value in answers(build(family), name).items():
        close(value, reference(family)[f"{name}/{key}"], BACKWARD)


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_is_exact_and_in_files_of_bounded_size(family, tmp_path):
    save_weights(tmp_path, params(family), config(family), dtype="float32", shard_bytes=70_000)
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
    again = load_weights(tmp_path, config(family), make_mesh(MeshConfig()))
    jax.tree.map(np.testing.assert_array_equal, again, params(family))


def test_every_kind_of_number_is_kept(tmp_path):
    family = FAMILIES[0]
    original = load_file(FOLDER / family / "model.safetensors")
    tensors = {name: value.astype(jnp.bfloat16) for name, value in original.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4])
    loaded = load_weights(tmp_path, config(family), mesh)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype("bfloat16")}
    q = loaded["language"]["blocks"]["q"]["kernel"].get_value()
    assert {shard.data.shape for shard in q.addressable_shards} == {(2, 16, 16)}
    (tmp_path / "out").mkdir()
    save_weights(tmp_path / "out", loaded, config(family), dtype="bfloat16")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_all_that_does_not_fit_is_listed_together(tmp_path):
    family = FAMILIES[0]
    tensors = load_file(FOLDER / family / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:5]
    del tensors["visual.blocks.1.attn.qkv.bias"]
    tensors["visual.blocks.1.attn.extra"] = tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path, config(family), make_mesh(MeshConfig()))
    for part in (
        "model.norm.weight is [5], the model's is [32]",
        "visual.blocks.1.attn.qkv.bias is missing",
        "visual.blocks.1.attn.extra is no tensor of this model",
    ):
        assert part in str(caught.value)


def test_names_of_newer_versions_are_read_and_a_tied_head_may_be_there_if_it_is_equal(tmp_path):
    family = "qwen2_vl"
    tensors = load_file(FOLDER / family / "model.safetensors")
    newer = {torch_name(name): value for name, value in tensors.items()}
    newer["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(newer, tmp_path / "model.safetensors")
    loaded = load_weights(tmp_path, config(family), make_mesh(MeshConfig()))
    jax.tree.map(np.testing.assert_array_equal, loaded, params(family))
    newer["lm_head.weight"] = newer["lm_head.weight"] + 1
    save_file(newer, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="differs from the embeddings"):
        load_weights(tmp_path, config(family), make_mesh(MeshConfig()))



@pytest.mark.parametrize("size", [size for size in SIZES if size != "tiny"])
def test_the_published_sizes_are_read_as_they_are_written(size, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(write_config(SIZES[size], "bfloat16")))
    assert read_config(tmp_path) == SIZES[size]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"model_type": "llava"}, "model_type is 'llava'"),
        ({"use_sliding_window": True}, "Sliding-window"),
        ({"hidden_size": None}, "hidden_size is missing"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(change, says, tmp_path):
    raw = write_config(SIZES["3b"], "bfloat16") | change
    raw = {key: value for key, value in raw.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=says) as caught:
        read_config(tmp_path)
    assert str(Path(tmp_path) / "config.json") in str(caught.value)
