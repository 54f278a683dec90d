"""`m2io plan`: the plans of a configuration's stages on topologies, as a table with what to change, or as JSON."""

import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from m2io_jax.config import RunConfig
from m2io_jax.parallel.topologies import Topology, find_topology
from m2io_jax.planning.plan import Planned, plan
from m2io_jax.training.stages import load_stages

ASSUMED = """\
A device is a chip (of tpu7x half of one). GiB: the program's arguments, results and temporaries, and the rest of the
run's weights and moments. TFLOP: products of rows of full length, what is computed again included, shared out evenly;
counted by m2io_jax/models/flops.py, for XLA counts a loop once. GB sent: by a device, read from the compiled program,
loops as often as they run. Seconds: the slowest of arithmetic, memory and network at their published peaks. Real steps
take longer; completions that stop early take less."""


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
        out.print(table(name or stage.name, planned))
        for line in advice(stage, planned):
            out.print(f"- {line}", highlight=False, markup=False)
    out.print(ASSUMED, style="dim", highlight=False)


def compiled(one: Planned) -> str:
    return f"  {one.program}: {one.compile_s:.1f} s" if one.sent is not None else f"  {one.program}: does not fit"


def table(title: str, planned: list[Planned]) -> Table:
    """A row a program; the last adds up the seconds of a step."""
    limit = planned[0].topology.family.hbm_gib
    drawn = Table(title=f"{title} on {planned[0].topology.name}, {limit} GiB a device", title_justify="left")
    for column in ("program", "GiB", "fits", "TFLOP", "GB sent", "mostly by", "seconds", "waits for"):
        justify = "left" if column in ("program", "mostly by", "waits for") else "right"
        drawn.add_column(column, justify=justify, overflow="fold")
    for one in planned:
        drawn.add_row(*_cells(one))
    if all(one.estimate for one in planned):
        total = sum(one.estimate.seconds for one in planned)
        drawn.add_section()
        drawn.add_row("step, at best", "", "", "", "", "", f"{total:.3g}", "")
    return drawn


def _cells(one: Planned) -> list[str]:
    start = [one.program, f"{one.hbm_gib:.2f}", "yes" if one.fits else "[red]no", f"{one.flops / 1e12:.3g}"]
    if one.sent is None or one.estimate is None:
        return [*start, "", "", "", ""]
    sent = sum(one.sent.values())
    kinds = ", ".join(f"{kind} {size / 1e9:.3g}" for kind, size in one.sent.items() if size >= sent / 100)
    return [*start, f"{sent / 1e9:.3g}", kinds, f"{one.estimate.seconds:.3g}", one.estimate.bound]


def advice(config: RunConfig, planned: list[Planned]) -> list[str]:
    """What to change where something does not fit, or where a device mostly waits for the network."""
    large = [one for one in planned if not one.fits]
    lines = [f"{one.program} needs {one.hbm_gib:.1f} GiB of {one.topology.family.hbm_gib}." for one in large]
    lines += [f"Try {change}." for change in _smaller(config, planned[0].topology)] if large else []
    for one in planned:
        waits = one.program == "decode" and one.estimate and one.estimate.bound == "network"
        if waits and config.mesh.fsdp != 1 and not config.rollout.gather:
            lines.append(
                "Decoding gathers the weights that fsdp splits for every token. rollout.gather=true gathers them once, "
                "where a device has room for them; mesh.tensor splits them otherwise, as far as key-value heads go."
            )
    return lines


def _smaller(config: RunConfig, topology: Topology) -> list[str]:
    """Settings that take less memory and are not yet as they could be, those that cost least first."""
    changes = []
    if config.computation.dtype == "float32":
        changes.append("computation.dtype=bfloat16")
    if config.computation.remat != "full":
        changes.append("computation.remat=full")
    if config.mesh.fsdp == 1 and topology.all_devices > 1:
        changes.append("mesh.data=1 mesh.fsdp=-1: every device has a part of the weights")
    if config.optimizer.micro_batches < config.batch.prompts:
        more = 2 * config.optimizer.micro_batches
        changes.append(f"optimizer.micro_batches={more}, as long as every device has a row of each")
    if config.objective != "supervised" and config.grpo.kl_beta and "reference" not in config.int8:
        changes.append("int8=[reference]")
    if config.lora is None:
        changes.append("lora={rank: 64, alpha: 128}: adapters need moments and gradients, the weights none")
    return [*changes, "a larger topology"]
