"""`m2io inspect shardings`: every array of a run, where it lies on a topology, and what of it a device holds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from m2io_jax.config import RunConfig
from m2io_jax.episodes.batching import PromptEncoder, stack_prompts
from m2io_jax.models.language import KeysValues
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.parallel.mesh import abstract_mesh
from m2io_jax.parallel.sharding import by_axes, placed_batch
from m2io_jax.parallel.topologies import find_topology
from m2io_jax.planning.abstract import abstract_trainer, as_on_tpu, model_of
from m2io_jax.planning.plan import bytes_on_device
from m2io_jax.training.stages import load_stages

LARGEST = 30  # rows of a part that are drawn; the small ones are added up


@dataclass(frozen=True)
class Lying:
    """One array: the part of the run that it belongs to, its name, its shape, and its place."""

    part: str
    name: str
    array: jax.ShapeDtypeStruct

    @property
    def bytes(self) -> int:
        """On one device."""
        return bytes_on_device(self.array)


def arrays_of(config: RunConfig, mesh: jax.sharding.AbstractMesh) -> list[Lying]:
    """Everything that a step of the run keeps on devices; nothing is allocated, and no device need be at hand.

    Raises:
        UserError: the rows of a batch do not divide over the mesh.
    """
    config = as_on_tpu(config)
    trainer = abstract_trainer(config, mesh)
    state = trainer.abstract_state()
    optimizer = {"state": state.opt_state, "step": state.step}
    parts = {"trained": state.params, "frozen": trainer.frozen, "optimizer": optimizer}
    if config.objective == "ppo":
        parts["critic"] = {"params": state.critic.params, "state": state.critic.opt_state, "step": state.critic.step}
    if config.objective != "supervised":
        kept = {id(leaf) for leaf in jax.tree.leaves(parts)}
        own = [(path, leaf) for path, leaf in _named(trainer.reference) if id(leaf) not in kept]
        parts |= {"reference": dict(own), "cache": caches(config, model_of(config), mesh)}
    encoder = PromptEncoder(model_of(config), None, config.batch)
    parts["batch"] = placed_batch(stack_prompts([encoder.blank()] * config.prompts_a_step), mesh)
    return [Lying(part, name, leaf) for part, tree in parts.items() for name, leaf in _named(tree)]


def caches(config: RunConfig, model: ModelConfig, mesh) -> dict[str, KeysValues]:
    """The sampler's, as long as they get: of prompts, and of completions."""
    text, batch, rows = model.text, config.batch, config.prompts_at_once
    lead = (text.num_hidden_layers, rows, text.num_key_value_heads)
    shapes = {
        "prompts": (*lead, batch.prompt_length, text.head_dim),
        "completions": (*lead, config.rollout.group_size, batch.completion_length, text.head_dim),
    }

    def one(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        axes = ("layers", "batch", "kv_heads", *[None] * (len(shape) - 3))
        dtype = jnp.dtype(config.computation.dtype)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=by_axes(axes, shape, mesh))

    return {name: KeysValues(one(shape), one(shape)) for name, shape in shapes.items()}


def shardings_command(config: Path, settings: Iterable[str], topology: str, out: Console) -> None:
    """Draws the last stage's arrays. Raises UserError as `find_topology`, `load_stages` and `arrays_of`."""
    stage, place = load_stages(config, settings).runs[-1], find_topology(topology)
    mesh = abstract_mesh(stage.mesh, place.all_devices, place.slices)
    arrays = arrays_of(stage, mesh)
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    out.print(table(f"{stage.name} on {place.name}: {axes}", arrays))
    total, limit = sum(lying.bytes for lying in arrays), place.family.hbm_gib
    out.print(f"{total / 2**30:.2f} GiB of {limit} on a device, before what programs hold while they run (m2io plan).")


def table(title: str, arrays: Sequence[Lying], largest: int = LARGEST) -> Table:
    """A row an array, typed as JAX writes it (`float32[8@fsdp,16]`): the `largest` of each part, whose others are added
    up in one row. 80 columns hold most."""
    drawn = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("array", "type", "MiB a\ndevice"):
        drawn.add_column(column, justify="right" if "MiB" in column else "left", overflow="fold")
    for part in dict.fromkeys(lying.part for lying in arrays):
        for cells in _rows(part, [lying for lying in arrays if lying.part == part], largest):
            drawn.add_row(*cells)
    drawn.add_row("all", "", _mib(sum(lying.bytes for lying in arrays)))
    return drawn


def _rows(part: str, arrays: list[Lying], largest: int) -> Iterator[tuple[str, ...]]:
    arrays = sorted(arrays, key=lambda lying: -lying.bytes)
    yield f"[bold]{part}", "", f"[bold]{_mib(sum(lying.bytes for lying in arrays))}"
    for lying in arrays[:largest]:
        yield f"  {lying.name}", escape(_type(lying.array)), _mib(lying.bytes)
    if rest := arrays[largest:]:
        yield f"  {len(rest)} more", "", _mib(sum(lying.bytes for lying in rest))


def _type(array: jax.ShapeDtypeStruct) -> str:
    """Behind each dimension the mesh axes that it is spread over, where they have more than one device."""
    spec, mesh = array.sharding.spec, array.sharding.mesh
    dimensions = []
    for size, axes in zip_longest(array.shape, spec):
        over = [str(axis) for axis in np.atleast_1d(axes or []) if mesh.shape[axis] > 1]
        dimensions.append(f"{size}@({','.join(over)})" if len(over) > 1 else "@".join([str(size), *over]))
    return f"{array.dtype}[{','.join(dimensions)}]"


def _named(tree: Any) -> list[tuple[str, jax.ShapeDtypeStruct]]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(".".join(filter(None, map(_key, path))), leaf) for path, leaf in paths]


def _key(key: Any) -> str:
    """A step of a path as a person writes it; what wraps a parameter is left out."""
    name = str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
    return "" if name in ("value", "raw_value") else name


def _mib(count: int) -> str:
    size = count / 2**20
    return f"{size:,.1f}" if size >= 0.1 else f"{size:.2g}"
