"""`m2io plan`: the plans of a configuration's stages on topologies, as a table with what to change, or as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jax.sharding import AbstractMesh
from rich.console import Console
from rich.table import Table

from m2io_jax.config import RunConfig
from m2io_jax.parallel.mesh import abstract_mesh
from m2io_jax.parallel.sharding import row_ways
from m2io_jax.parallel.topologies import Topology, find_topology
from m2io_jax.planning.abstract import model_of
from m2io_jax.planning.estimate import SAMPLING, times_a_step
from m2io_jax.planning.plan import Planned, plan
from m2io_jax.training.stages import load_stages

ASSUMED = (
    "A device is a chip (of tpu7x half of one). GiB: what the program holds at its peak, and the rest of the run's "
    "weights and moments. TFLOP: products of rows of full length, what is computed again included, shared out "
    "evenly; counted by m2io_jax/models/flops.py, for XLA counts a loop once. GB sent: by a device, read from the "
    "compiled program, loops as often as they run. Seconds: the slowest of arithmetic, memory and network at their "
    "published peaks. A step has completions of full length and one round of sampling. Products with adapters are "
    "left out (of 3B, rank 64: 3%). Real steps take longer; completions that stop early take less."
)


def plan_command(config: Path, settings: Iterable[str], topologies: str, as_json: bool, out: Console, say: Console):
    """Plans every stage on every topology.

    Raises:
        UserError: as `find_topology`, `load_stages` and `plan`.
    """
    stages, found = load_stages(config, settings), []
    for topology in [find_topology(name.strip()) for name in topologies.split(",")]:
        for stage in stages.runs:
            name = "" if stages.are_one_run else f"{stage.run.name}/"
            say.print(f"compiling {name or stage.name} for {topology.name}", highlight=False)
            planned = plan(stage, topology, lambda one: say.print(compiled(one), highlight=False))
            found += [(name, stage, planned)]
    if as_json:
        print(json.dumps([one.as_json() | {"program": name + one.program} for name, _, all in found for one in all]))
        return
    for name, stage, planned in found:
        out.print(table(name or stage.name, stage, planned))
        for line in advice(stage, planned):
            out.print(f"- {line}", highlight=False, markup=False)
    out.print(ASSUMED, style="dim", highlight=False)


def compiled(one: Planned) -> str:
    return f"  {one.program}: {one.compile_s:.1f} s" if one.sent is not None else f"  {one.program}: does not fit"


def step_seconds(config: RunConfig, planned: list[Planned]) -> float:
    """Of a step, at best: its programs one after another, each as often as a step runs it."""
    return sum(times_a_step(config, one.program) * one.estimate.seconds for one in planned)


def table(title: str, config: RunConfig, planned: list[Planned]) -> Table:
    """A row a program; the last adds up the seconds of a step."""
    limit = planned[0].topology.family.hbm_gib
    title = f"{title} on {planned[0].topology.name}, {limit} GiB a device"
    drawn = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("program", "GiB", "fits", "TFLOP", "GB sent", "mostly by", "seconds", "waits for"):
        justify = "left" if column in ("program", "mostly by", "waits for") else "right"
        drawn.add_column(column, justify=justify, no_wrap=column != "mostly by")  # 80 columns hold it
    for one in planned:
        drawn.add_row(*_cells(one))
    if all(one.estimate for one in planned):
        total = step_seconds(config, planned)
        drawn.add_row("step, at best", "", "", "", "", "", short(total), "")
    return drawn


def _cells(one: Planned) -> list[str]:
    start = [one.program, f"{one.hbm_gib:.2f}", "yes" if one.fits else "[red]no", short(one.flops / 1e12)]
    if one.sent is None or one.estimate is None:
        return [*start, "", "", "", ""]
    return [*start, *sent_cells(one.sent), short(one.estimate.seconds), one.estimate.bound]


def sent_cells(sent: Mapping[str, float]) -> tuple[str, str]:
    """GB sent, of bytes by kind of collective; and how many by each kind that has a hundredth of it."""
    total = sum(sent.values())
    kinds = (f"{kind} {short(size / 1e9)}" for kind, size in sent.items() if size >= total / 100)
    return short(total / 1e9), ", ".join(kinds)


def short(number: float) -> str:
    """Three digits of it; a large one is not written as a power of ten."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:.3g}"


def advice(config: RunConfig, planned: list[Planned]) -> list[str]:
    """What to change where something does not fit, or where a device mostly waits for the network."""
    large = [one for one in planned if not one.fits]
    lines = [f"{one.program} needs {one.hbm_gib:.1f} GiB of {one.topology.family.hbm_gib}." for one in large]
    topology = planned[0].topology
    if large:
        lines += [f"Try {change}." for change in _smaller(config, topology, [one.program for one in large])]
    ways = _mesh(config, topology).shape["fsdp"]
    if config.lora and config.lora.rank % ways:
        lines.append(
            f"mesh.fsdp is {ways}, which does not divide lora.rank, {config.lora.rank}: one side of each adapter lies "
            "whole on every device, with its moments. Give the devices that are too many to mesh.data."
        )
    for one in planned:
        waits = one.program == "decode" and one.estimate and one.estimate.bound == "network"
        if waits and config.mesh.fsdp != 1 and not config.rollout.gather:
            lines.append(
                "Decoding gathers the weights that fsdp splits for every token. rollout.gather=true gathers them once, "
                "where a device has room for them; mesh.tensor splits them otherwise, as far as key-value heads go."
            )
    return lines


def _smaller(config: RunConfig, topology: Topology, large: Sequence[str]) -> list[str]:
    """Settings that take less memory in the programs named and are not yet as they could be, those that cost least
    first."""
    samples = any(name in SAMPLING for name in large)
    learns = any(name.partition(" of ")[0] not in SAMPLING for name in large)
    mesh, text = _mesh(config, topology), model_of(config).text
    changes = []
    if config.computation.dtype == "float32":
        changes.append("computation.dtype=bfloat16")
    if config.mesh.fsdp == 1 and topology.all_devices > 1:
        changes.append("mesh.data=1 mesh.fsdp=-1: every device has a part of the weights")
    if samples and config.rollout.gather:
        changes.append("rollout.gather=false: of the weights that fsdp splits, a device gathers one layer at a time")
    if learns and config.computation.remat != "full":
        changes.append("computation.remat=full")
    more = 2 * config.optimizer.micro_batches
    if learns and config.batch.prompts % more == 0 and config.batch.prompts // more >= row_ways(mesh):
        changes.append(f"optimizer.micro_batches={more}")
    more = 2 * config.rollout.micro_batches
    if samples and config.prompts_a_step % more == 0 and config.prompts_a_step // more >= row_ways(mesh):
        changes.append(f"rollout.micro_batches={more}")
    if config.objective != "supervised" and config.grpo.kl_beta and "reference" not in config.int8:
        changes.append("int8=[reference]")
    if config.lora is None:
        changes.append("lora={rank: 64, alpha: 128}: adapters need moments and gradients, the weights none")
    if config.prompts_a_step > row_ways(mesh):
        changes.append("fewer prompts for a device: batch.prompts, rollout.prompts")
    wider = 2 * mesh.shape["tensor"]
    if topology.all_devices % wider == 0 and text.num_key_value_heads % wider == 0:
        changes.append(f"mesh.tensor={wider}: layers and caches are split by heads, and a row has {wider} devices")
    return [*changes, "a larger topology"]


def _mesh(config: RunConfig, topology: Topology) -> AbstractMesh:
    return abstract_mesh(config.mesh, topology.all_devices, topology.slices)
