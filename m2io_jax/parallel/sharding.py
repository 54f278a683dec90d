"""Where every array lives: logical axis names to mesh axes, by one table.

A weight names its logical axes where it is declared (`models/layers.py`); nothing else in the project names a mesh
axis for a weight. Two rules leave a dimension whole although the table would split it:

    1. the mesh axis does not divide the dimension's size;
    2. an earlier dimension of the same weight already lies along that mesh axis.
"""

import math
from typing import Any, TypeVar

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m2io_jax.errors import UserError

T = TypeVar("T")

MeshAxes = str | tuple[str, ...] | None

RULES: dict[str | None, MeshAxes] = {
    "batch": ("data", "fsdp"),
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    # Layers are run one after another by a scan, so splitting them would leave devices waiting.
    "layers": None,
    None: None,
}


def partition_spec(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """How an array with these logical axes lies on the mesh.

    Raises:
        ValueError: an axis that `RULES` does not know, or not one axis a dimension.
    """
    if len(axes) != len(shape):
        raise ValueError(f"logical axes {axes} for an array of shape {shape}")
    taken: list[MeshAxes] = []
    for axis, size in zip(axes, shape, strict=True):
        if axis not in RULES:
            raise ValueError(f"no rule for the logical axis {axis!r}; parallel/sharding.py knows {list(RULES)}")
        mesh_axes = RULES[axis]
        fits = mesh_axes is not None and mesh_axes not in taken and size % _ways(mesh_axes, mesh) == 0
        taken.append(mesh_axes if fits else None)
    return PartitionSpec(*taken)


def param_shardings(params: nnx.State, mesh: Mesh) -> nnx.State:
    """`params` (arrays or `jax.ShapeDtypeStruct`s) with a `NamedSharding` in place of every array.

    The structure is that of `params`, so it serves `jax.jit`'s `in_shardings` and `out_shardings` and `place`.

    Raises:
        ValueError: a weight declared without logical axes, or with unknown ones.
    """

    def shard(path, param: nnx.Variable) -> nnx.Variable:
        axes = param.get_metadata().get("axes")
        if axes is None:
            raise ValueError(f"{jax.tree_util.keystr(path)} was declared without logical axes")
        return param.replace(NamedSharding(mesh, partition_spec(axes, param.get_value().shape, mesh)))

    return jax.tree_util.tree_map_with_path(shard, params, is_leaf=lambda node: isinstance(node, nnx.Variable))


def optimizer_shardings(optimizer: optax.GradientTransformation, params: nnx.State, mesh: Mesh) -> Any:
    """A `NamedSharding` for every array of `optimizer.init(params)`; nothing is allocated.

    What the optimiser keeps for each weight, in the weight's shape, lies as the weight does; the rest (counters) is
    whole on every device.
    """
    whole = replicated(mesh)
    abstract = jax.eval_shape(optimizer.init, params)

    def is_masked(node) -> bool:  # a weight that another of the chain's parts looks after
        return isinstance(node, optax.MaskedNode)

    def like_param(kept, param, sharding):
        return kept if is_masked(kept) else sharding if kept.shape == param.shape else whole

    shardings = param_shardings(params, mesh)
    return optax.tree_map_params(
        optimizer, like_param, abstract, params, shardings, transform_non_params=lambda _: whole, is_leaf=is_masked
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows spread over `data` and `fsdp`; whatever follows the first dimension is whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def place(tree: T, shardings: Any) -> T:
    """Puts every array of `tree` where `shardings` (same structure, or one for a whole subtree) says.

    In several processes each gives the same whole arrays. An array that already lies there may be returned as it is,
    not copied: donating the result can invalidate the original.
    """
    return jax.device_put(tree, shardings)


def place_batch(batch: T, mesh: Mesh) -> T:
    """Spreads a batch over the mesh; in several processes each gives its own rows, and the result is all of them.

    Raises:
        UserError: the rows of all processes do not divide over `data` x `fsdp`.
    """
    sharding = batch_sharding(mesh)
    ways = _ways(RULES["batch"], mesh)

    def spread(array):
        rows = array.shape[0] * jax.process_count()
        if rows % ways:
            mend = f"make it a multiple of {ways}, or give fewer devices to mesh.data and mesh.fsdp"
            raise UserError(f"{rows} rows cannot be shared out evenly to {ways} devices.", where="batch", mend=mend)
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(spread, batch)


def local_rows(batch: jax.Array) -> np.ndarray:
    """This process's rows of an array that lies spread as a batch does, in order."""
    parts = {shard.index[0].start or 0: shard.data for shard in batch.addressable_shards}
    return np.concatenate([parts[start] for start in sorted(parts)])


def local_shards(mesh: Mesh) -> int:
    """How many parts this process's rows of a batch are spread over."""
    return _ways(RULES["batch"], mesh) // jax.process_count()


def _ways(mesh_axes: str | tuple[str, ...], mesh: Mesh) -> int:
    names = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes
    return math.prod(mesh.shape[name] for name in names)
