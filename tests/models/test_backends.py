"""Attention by other backends against the one that every device has, which test_attention.py holds to float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from m2io_jax.config import MeshConfig
from m2io_jax.models.attention import GroupLayout, causal_attention, group_attention
from m2io_jax.models.backends import BACKENDS, suited
from m2io_jax.models.cudnn import cudnn_causal_attention
from m2io_jax.models.splash import TreeMask, padded, splash_causal_attention, splash_group_attention
from m2io_jax.parallel.mesh import make_mesh, on_mesh
from m2io_jax.parallel.sharding import batch_sharding

LAYOUT = GroupLayout(prompt=70, group=3, completion=30)
PROMPT_LENGTHS = np.array([70, 11, 1, 40])
ROWS, KV, SHARE, DIM = 4, 2, 3, 16
REAL = np.ones((ROWS, LAYOUT.length), bool)
REAL[:, : LAYOUT.prompt] = np.arange(LAYOUT.prompt) < PROMPT_LENGTHS[:, None]
SPLASH = partial(splash_group_attention, interpret=True)
CUDNN_AS_XLA = partial(cudnn_causal_attention, implementation="xla")


def random_qkv(share):
    random, of_keys = np.random.default_rng(0), (ROWS, KV, LAYOUT.length, DIM)
    shapes = ((ROWS, KV, share, LAYOUT.length, DIM), of_keys, of_keys)
    return tuple(random.normal(size=shape).astype(np.float32) for shape in shapes)


@pytest.fixture(scope="module")
def qkv():
    return random_qkv(SHARE)


def read_and_gradients(group, qkv, mesh=None):
    """What real tokens read, and the gradients of a weighted sum of it."""
    weights = np.random.default_rng(1).normal(size=qkv[0].shape) * REAL[:, None, None, :, None]
    mask = jnp.asarray(REAL[:, : LAYOUT.prompt])

    def total(q, k, v):
        out = group(q, k, v, LAYOUT, mask) * REAL[:, None, None, :, None]
        return jnp.sum(out * weights), out

    gradient = jax.grad(total, (0, 1, 2), has_aux=True)
    if mesh is not None:
        gradient, qkv = on_mesh(mesh, gradient), jax.device_put(qkv, batch_sharding(mesh))
    gradients, out = jax.jit(gradient)(*qkv)
    return out, *gradients


def test_the_splash_kernel_reads_the_tree(qkv):
    expected = read_and_gradients(group_attention, qkv)
    for ours, theirs in zip(read_and_gradients(SPLASH, qkv), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_splash_kernel_reads_prompts(qkv):
    ours, theirs = partial(splash_causal_attention, interpret=True)(*qkv), causal_attention(*qkv)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", [1, 7, 64, 256])
@pytest.mark.parametrize("layout", [LAYOUT, GroupLayout(128, 2, 64), GroupLayout(200, 0, 0)], ids=str)
def test_blocks_of_the_mask_are_those_of_the_whole_tree(layout, block):
    mask, places = TreeMask(layout, 256), np.arange(256)
    branch = np.array([-1] * layout.prompt + [c for c in range(layout.group) for _ in range(layout.completion)])
    branch = np.concatenate([branch, [layout.group] * (256 - layout.length)])
    tree = (places[:, None] >= places) & ((branch == -1) | (branch[:, None] == branch))
    cuts = [slice(start, min(start + block, 256)) for start in range(0, 256, block)]
    np.testing.assert_array_equal(np.block([[mask[rows, columns] for columns in cuts] for rows in cuts]), tree)


def test_masks_are_equal_by_their_tree():
    mask = TreeMask(LAYOUT, 256)
    assert mask == TreeMask(GroupLayout(70, 3, 30), 256) and hash(mask) == hash(TreeMask(LAYOUT, 256))
    assert mask != TreeMask(LAYOUT, 384) and mask != TreeMask(GroupLayout(70, 3, 31), 256)


@pytest.mark.parametrize(
    "length, expected",
    [
        (160, (256, 256)), (264, (384, 384)), (600, (640, 128)), (1100, (1152, 384)), (2048 + 8 * 300, (4608, 512)),
        (6144, (6144, 512)), (1024 + 16 * 8192, (132_096, 512)),
    ],
)  # fmt: skip
def test_long_sequences_are_padded_to_large_blocks(length, expected):
    assert padded(length) == expected


def test_on_a_mesh_every_device_runs_the_kernel_on_its_own_rows_and_heads(qkv):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    placed = jax.device_put((*qkv, REAL[:, : LAYOUT.prompt]), batch_sharding(mesh))
    attend = jax.jit(on_mesh(mesh, lambda q, k, v, mask: SPLASH(q, k, v, LAYOUT, mask)))
    out = attend(*placed)
    assert {shard.data.shape[:2] for shard in out.addressable_shards} == {(1, 1)}
    expected = group_attention(*qkv, LAYOUT, jnp.asarray(REAL[:, : LAYOUT.prompt]))
    np.testing.assert_allclose(*(x * REAL[:, None, None, :, None] for x in (out, expected)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("group", [SPLASH, partial(group_attention, causal=CUDNN_AS_XLA)], ids=["splash", "cudnn"])
def test_queries_of_one_head_are_split_where_there_are_more_devices_than_heads(group):
    qkv = random_qkv(share=4)
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=4))
    on_four = read_and_gradients(group, qkv, mesh)
    assert {shard.data.shape[:3] for shard in on_four[0].addressable_shards} == {(ROWS // 2, KV, 1)}
    for ours, theirs in zip(on_four, read_and_gradients(group_attention, qkv), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_heads_are_grouped_for_cudnn_as_they_are_here(qkv):
    np.testing.assert_allclose(CUDNN_AS_XLA(*qkv), causal_attention(*qkv), rtol=1e-5, atol=1e-5)
    found = read_and_gradients(partial(group_attention, causal=CUDNN_AS_XLA), qkv)
    for ours, theirs in zip(found, read_and_gradients(group_attention, qkv), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN's kernel needs a GPU")
def test_cudnn_reads_the_tree(qkv):
    half = tuple(jnp.asarray(x, jnp.bfloat16) for x in qkv)
    expected = read_and_gradients(group_attention, half)
    for ours, theirs in zip(read_and_gradients(BACKENDS["cudnn"].group, half), expected, strict=True):
        np.testing.assert_allclose(*(x.astype(np.float32) for x in (ours, theirs)), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "platform, dtype, head_dim, name",
    [
        ("cpu", "bfloat16", 128, "blocks"),
        ("tpu", "float32", 128, "splash"),
        ("tpu", "bfloat16", 32, "blocks"),
        ("gpu", "bfloat16", 128, "cudnn"),
        ("gpu", "float32", 128, "blocks"),
        ("gpu", "bfloat16", 256, "blocks"),
    ],
)
def test_auto_takes_what_suits(platform, dtype, head_dim, name):
    assert suited(platform, dtype, head_dim) == name


@pytest.mark.slow
def test_the_splash_kernel_compiles_for_tpus_and_holds_no_scores():
    """The tree of the 3B's heads at 2,048 + 8 x 512 tokens, on four chips, with its gradient."""
    pytest.importorskip("libtpu", reason="compiling for TPUs needs libtpu (pip install libtpu)")
    try:
        from jax.experimental import topologies

        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    except Exception as error:
        pytest.skip(f"libtpu cannot describe a topology here: {error}")
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=2), topology.devices)
    layout, rows = GroupLayout(prompt=2048, group=8, completion=512), 2
    heads = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "tensor"))

    def array(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=heads)

    mask = jax.ShapeDtypeStruct((rows, layout.prompt), bool, sharding=batch_sharding(mesh))
    total = on_mesh(mesh, lambda *given: splash_group_attention(*given[:3], layout, given[3]).astype(jnp.float32).sum())
    of_keys = array(rows, 2, layout.length, 128)
    qkv = (array(rows, 2, 8, layout.length, 128), of_keys, of_keys)
    program = jax.jit(jax.grad(total, (0, 1, 2))).lower(*qkv, mask).compile()
    scores = layout.length**2 * 2  # one head's, in bfloat16
    assert program.memory_analysis().temp_size_in_bytes < scores / 4
