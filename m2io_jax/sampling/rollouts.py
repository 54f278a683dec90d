"""Rollouts on a mesh: the sampler mapped over devices, and what it sampled as lists of tokens."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.language import KeysValues
from m2io_jax.parallel.exchange import local_rows
from m2io_jax.parallel.mesh import on_mesh
from m2io_jax.parallel.sharding import COPIES, RULES, batch_sharding, gathered_weights
from m2io_jax.sampling.constraints import Constraint
from m2io_jax.sampling.sampler import Prefilled, Rollouts, SamplingConfig, decode, prefill

# Where a program's arrays lie on the mesh: whole on every device, or with their rows spread over it.
SPREAD = RULES["batch"]
WHOLE, ROWS = PartitionSpec(), PartitionSpec(SPREAD)
PREFILLED = Prefilled(KeysValues(PartitionSpec(None, SPREAD), PartitionSpec(None, SPREAD)), ROWS)


class Sampler:
    """The sampler on a mesh, in the three parts that a step is timed by: `encode`, `prefill`, `decode`.

    Where every device has the whole model, or gathers it, rows are mapped over all devices and each shard's decode loop
    stops on its own. Where weights stay split over devices, all rows decode in step until the last is done.

    Args:
        constrained: every batch comes with a `Constraint`.
        gather: weights that `fsdp` splits are gathered once before completions are decoded, in this dtype; None: for
            every token.
    """

    def __init__(
        self,
        structure: nnx.GraphDef,
        sampling: SamplingConfig,
        mesh: Mesh,
        *,
        constrained: bool = False,
        gather: str | None = None,
    ):
        def encode(params, prompts: PromptBatch) -> jax.Array:
            return nnx.merge(structure, params).encode_pictures(prompts)

        def read(params, prompts: PromptBatch, pictures: jax.Array) -> Prefilled:
            return prefill(nnx.merge(structure, params), prompts, pictures)

        def draw(params, prompts: PromptBatch, prefilled: Prefilled, key, constraint: Constraint | None) -> Rollouts:
            return decode(nnx.merge(structure, params), prompts, prefilled, sampling, key=key, constraint=constraint)

        self.encode = _on_rows(encode, mesh, (WHOLE, ROWS), ROWS)
        self.prefill = _on_rows(read, mesh, (WHOLE, ROWS, ROWS), PREFILLED)
        by = Constraint(WHOLE, ROWS) if constrained else ROWS
        self.decode = _on_rows(draw, mesh, (WHOLE, ROWS, PREFILLED, WHOLE, by), ROWS, gather)

    def __call__(self, params, prompts: PromptBatch, key, constraint: Constraint | None = None) -> Rollouts:
        prefilled = self.prefill(params, prompts, self.encode(params, prompts))
        return self.decode(params, prompts, prefilled, key, constraint)


def _on_rows(function: Callable, mesh: Mesh, takes, gives, gather: str | None = None) -> Callable:
    """`function(params, *of_rows)`, compiled for the mesh; a device's own rows at a time where it has all weights."""
    whole = COPIES if gather is None else SPREAD  # the axes along which `function` finds nothing split
    # Mapping those axes alone and leaving the others to the compiler aborts XLA (jaxlib of jax 0.10.2).
    if all(size == 1 or axis in whole for axis, size in mesh.shape.items()):
        on_rows = jax.shard_map(function, mesh=mesh, in_specs=takes, out_specs=gives, check_vma=False)
    else:
        on_rows = function

    def program(params, *of_rows):
        return on_rows(params if gather is None else gathered_weights(_floats_as(gather, params)), *of_rows)

    return jax.jit(on_mesh(mesh, program), out_shardings=batch_sharding(mesh) if gives is ROWS else None)


def _floats_as(dtype: str, params: nnx.State) -> nnx.State:
    """The weights in the dtype that they are computed with; integers stay."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)


def completion_ids(completions: Completions) -> list[list[list[int]]]:
    """The tokens of each completion that lies with this process, padding left out."""
    tokens, mask = local_rows(completions.tokens), local_rows(completions.mask)
    return [[ids[keep].tolist() for ids, keep in zip(*group, strict=True)] for group in zip(tokens, mask, strict=True)]
