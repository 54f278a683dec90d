"""The committed reference (`hugging_face_reference.py`) and our models with its weights."""

from functools import cache

import jax
import numpy as np
from flax import nnx
from hugging_face_reference import FOLDER, case

from m2io_jax.config import BatchConfig, MeshConfig
from m2io_jax.episodes.batching import PromptEncoder, stack_prompts
from m2io_jax.models.huggingface import read_config
from m2io_jax.models.inputs import PictureGrid
from m2io_jax.models.policy import structure_of
from m2io_jax.models.weights import load_weights
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


def merged(family: str):
    return nnx.merge(structure_of(config(family)), params(family))
