"""Where every array lives: logical axis names to mesh axes, by one table.

A weight names its logical axes where it is declared (`models/layers.py`), an activation where it is computed; nothing
else in the project names a mesh axis. Two rules leave a dimension whole although the table would split it:

    1. the mesh axis does not divide the dimension's size;
    2. an earlier dimension of the same array already lies along that mesh axis.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import optax
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from m2io_jax.errors import UserError
from m2io_jax.parallel.exchange import local_rows

T = TypeVar("T")

Axes = tuple[str | None, ...]  # logical, one a dimension
MeshAxes = str | tuple[str, ...] | None

# The axes along which every device has the whole model, and rows of its own.
COPIES = ("slice", "data")

Rules = Mapping[str | None, MeshAxes]

RULES: Rules = {
    "batch": ("slice", "data", "fsdp"),
    "copies": COPIES,  # rows that all of `fsdp` have
    # Tokens of what passes between blocks, where nothing mixes them (arXiv 2205.05198).
    "sequence": "tensor",
    "vocab": "tensor",
    "embed": "fsdp",
    "rank": "fsdp",  # of adapters, on the side that is not `embed`
    "heads": "tensor",
    "kv_heads": "tensor",
    "share": "tensor",  # the queries of one head of keys, where `tensor` does not divide those heads
    "mlp": "tensor",
    # Layers are run one after another by a scan, so splitting them would leave devices waiting.
    "layers": None,
    None: None,
}
GATHERED: Rules = RULES | {"embed": None, "rank": None}  # nothing of a weight split over `fsdp`


def partition_spec(
    axes: Axes, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: Rules = RULES
) -> PartitionSpec:
    """How an array with these logical axes lies on the mesh.

    Raises:
        ValueError: an axis that `RULES` does not know, or not one axis a dimension.
    """
    if len(axes) != len(shape):
        raise ValueError(f"logical axes {axes} for an array of shape {shape}")
    taken: list[MeshAxes] = []
    for axis, size in zip(axes, shape, strict=True):
        if axis not in rules:
            raise ValueError(f"no rule for the logical axis {axis!r}; parallel/sharding.py knows {list(rules)}")
        mesh_axes = rules[axis]
        fits = mesh_axes is not None and mesh_axes not in taken and size % _ways(mesh_axes, mesh) == 0
        taken.append(mesh_axes if fits else None)
    return PartitionSpec(*taken)


def param_shardings(params: nnx.State, mesh: Mesh | AbstractMesh, rules: Rules = RULES) -> nnx.State:
    """`params` (arrays or `jax.ShapeDtypeStruct`s) with a `NamedSharding` in place of every array.

    The structure is that of `params`, so it serves `jax.jit`'s `in_shardings` and `out_shardings` and `place`. Arrays
    that stand for one weight together (models/int8.py) each lie as the weight does, but for dimensions of size one.

    Raises:
        ValueError: a weight declared without logical axes, or with unknown ones.
    """

    def shard(path, param: nnx.Variable) -> nnx.Variable:
        axes = param.get_metadata().get("axes")
        if axes is None:
            raise ValueError(f"{jax.tree_util.keystr(path)} was declared without logical axes")
        return param.replace(jax.tree.map(lambda array: by_axes(axes, array.shape, mesh, rules), param.get_value()))

    return jax.tree_util.tree_map_with_path(shard, params, is_leaf=lambda node: isinstance(node, nnx.Variable))


def by_axes(
    axes: Axes, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: Rules = RULES
) -> NamedSharding:
    """The place of an array with these logical axes. Raises ValueError as `partition_spec`."""
    return NamedSharding(mesh, partition_spec(axes, shape, mesh, rules))


def spread(x: Float[Array, "..."], axes: Axes) -> Float[Array, "..."]:
    """`x`, told to lie by its logical axes on the mesh that the program is traced for (`mesh.on_mesh`).

    Where there is none, or each device runs the program for itself (`jax.shard_map`), it is `x`.
    """
    mesh = _traced_for()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, by_axes(axes, x.shape, mesh))


def on_own_parts(function: Callable, *takes: Axes) -> Callable:
    """`function`, run by every device on its own parts of arrays with these logical axes: a kernel, which the compiler
    cannot split. What it returns lies as the first of them. Where there is no mesh (see `spread`), it is `function`.
    """
    mesh = _traced_for()
    if mesh is None:
        return function

    def mapped(*arrays):
        specs = tuple(partition_spec(axes, array.shape, mesh) for axes, array in zip(takes, arrays, strict=True))
        return jax.shard_map(function, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)

    return mapped


def gathered_weights(params: nnx.State) -> nnx.State:
    """The weights with all that `fsdp` splits on every device; where there is no mesh (see `spread`), as they are."""
    mesh = _traced_for()
    if mesh is None:
        return params
    return jax.lax.with_sharding_constraint(params, param_shardings(params, mesh, GATHERED))


def parts_of(axes: Axes, shape: tuple[int, ...]) -> int:
    """How many parts `spread` would cut an array of this shape into."""
    mesh = _traced_for()
    spec = () if mesh is None else partition_spec(axes, shape, mesh)
    return math.prod(_ways(mesh_axes, mesh) for mesh_axes in spec if mesh_axes is not None)


def _traced_for() -> AbstractMesh | None:
    """The mesh that arrays of the program being traced may be spread over."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or AxisType.Manual in mesh.axis_types else mesh


def optimizer_shardings(
    optimizer: optax.GradientTransformation, params: nnx.State, mesh: Mesh | AbstractMesh
) -> Any:
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


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Rows spread over `slice`, `data` and `fsdp`; whatever follows the first dimension is whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def place(tree: T, shardings: Any) -> T:
    """Puts every array of `tree` where `shardings` (same structure, or one for a whole subtree) says.

    In several processes each gives the same whole arrays. An array that already lies there may be returned as it is,
    not copied: donating the result can invalidate the original. Shapes are told where they would lie (`placed`).
    """
    return placed(tree, shardings) if are_shapes(tree) else jax.device_put(tree, shardings)


def placed(shapes: T, shardings: Any) -> T:
    """Shapes (or arrays, of which nothing but the shape is read) with their places; nothing is allocated."""

    def one(shape, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    return jax.tree.map(one, shapes, shardings)


def shapes_of(tree: T) -> T:
    """Return the shapes, dtypes and shardings of a tree of arrays; of shapes, the same shapes."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def are_shapes(tree: Any) -> bool:
    """Whether a tree of weights is one of `jax.ShapeDtypeStruct`s: what is planned, not run."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))


def place_batch(batch: T, mesh: Mesh) -> T:
    """Spreads a batch over the mesh; in several processes each gives its own rows, and the result is all of them.

    Raises:
        UserError: the rows of all processes do not divide over the devices that rows are spread over.
    """
    def put(rows, whole: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_process_local_data(whole.sharding, rows, whole.shape)

    return jax.tree.map(put, batch, placed_batch(batch, mesh))


def placed_batch(batch: T, mesh: Mesh | AbstractMesh) -> T:
    """The shapes and places of what `place_batch` returns; nothing is put anywhere. Raises UserError as that."""
    sharding = batch_sharding(mesh)

    def whole(array) -> jax.ShapeDtypeStruct:
        rows = array.shape[0] * jax.process_count()
        require_even(rows, mesh)
        return jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype, sharding=sharding)

    return jax.tree.map(whole, batch)


def require_even(rows: int, mesh: Mesh | AbstractMesh, where: str = "batch") -> None:
    """Raises UserError: so many rows do not divide over the devices that rows are spread over."""
    ways = row_ways(mesh)
    if rows % ways:
        axes = ", ".join(f"mesh.{axis}" for axis in RULES["batch"])
        mend = f"make it a multiple of {ways}, or give fewer devices to {axes}"
        raise UserError(f"{rows} rows cannot be shared out evenly to {ways} devices.", where=where, mend=mend)


def local_count(rows: int) -> int:
    """How many of a batch's rows, which `require_even` has let pass, are this process's own."""
    return rows // jax.process_count()


def own_rows(batch: T) -> T:
    """The inverse of `place_batch`: this process's rows of every array, in NumPy and in their order."""
    return jax.tree.map(local_rows, batch)


def row_ways(mesh: Mesh | AbstractMesh) -> int:
    """How many shares the rows of a batch are cut into."""
    return _ways(RULES["batch"], mesh)


def _ways(mesh_axes: str | tuple[str, ...], mesh: Mesh | AbstractMesh) -> int:
    names = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes
    return math.prod(mesh.shape[name] for name in names)
