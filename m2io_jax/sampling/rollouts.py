"""Rollouts on a mesh: the sampler mapped over devices, and what it sampled as lists of tokens."""

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.parallel.sharding import batch_sharding
from m2io_jax.sampling.sampler import Rollouts, SamplingConfig, sample


def map_rollouts(structure: nnx.GraphDef, sampling: SamplingConfig, mesh: Mesh):
    """`sample(params, prompts, key)` on the mesh.

    Where every device has the whole model, rows are mapped over the data axis and each shard's decode loop stops on
    its own. Where weights are split over devices, all rows decode in step until the last is done.
    """

    def on_shard(params, prompts: PromptBatch, key) -> Rollouts:
        return sample(nnx.merge(structure, params), prompts, sampling, key=key)

    if mesh.size > mesh.shape["data"]:
        # Mapping `data` alone and leaving `fsdp` and `tensor` to the compiler aborts XLA (jaxlib of jax 0.10.2).
        return jax.jit(on_shard, out_shardings=batch_sharding(mesh))
    whole, rows = PartitionSpec(), PartitionSpec("data")
    mapped = jax.shard_map(on_shard, mesh=mesh, in_specs=(whole, rows, whole), out_specs=rows, check_vma=False)
    return jax.jit(mapped)


def completion_ids(completions: Completions) -> list[list[list[int]]]:
    """Each completion's tokens, padding left out."""
    tokens, mask = np.asarray(completions.tokens), np.asarray(completions.mask)
    return [[ids[keep].tolist() for ids, keep in zip(*group, strict=True)] for group in zip(tokens, mask, strict=True)]
