"""What published sizes need of TPUs, by `m2io plan`'s compiler: `python -m benchmarks.scale` writes docs/scale.md.

    fits    for each size, adapters or all weights, and family: the smallest slice that holds the GRPO step
    chips   from 16 chips to 256 of one family: operations and bytes sent a chip, at the same work a chip

A device has one prompt with its completions (configs/inserter_r1_*.yaml), so that larger slices do more work in all.
What has been planned is kept in docs/scale.jsonl, a line each, and not planned again; what has not is said in the page.
Minutes a line on two cores; `--sizes`, `--families` and `--parts` choose.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from m2io_jax.errors import UserError
from m2io_jax.files import replace_text
from m2io_jax.parallel.mesh import abstract_mesh
from m2io_jax.parallel.topologies import FAMILIES, Topology, find_topology
from m2io_jax.planning.command import compiled, sent_cells, short
from m2io_jax.planning.plan import Planned, plan
from m2io_jax.planning.shardings import arrays_of
from m2io_jax.training.stages import load_stages

ROOT = Path(__file__).parents[1]
KEPT, PAGE = ROOT / "docs" / "scale.jsonl", ROOT / "docs" / "scale.md"
SIZES, TRAINED = ("3b", "7b", "32b", "72b"), ("adapters", "all weights")
LADDER = ("v5e:4x4", "v5e:8x8", "v5e:16x16")
BEGIN, END = "<!-- tables: python -m benchmarks.scale -->", "<!-- end of tables -->"


def run_of(size: str, trained: str, topology: Topology):
    """The GRPO stage of a size's configuration, one prompt a device."""
    given = [f"batch.prompts={topology.all_devices}", "rollout.gather=false"]
    given += ["lora=null"] if trained == "all weights" else []
    return load_stages(ROOT / "configs" / f"inserter_r1_{size}.yaml", given).runs[-1]


def planned(size: str, trained: str, topology: Topology) -> dict[str, Any]:
    """One line of `KEPT`: every program of the step, or why there are none."""
    config, began = run_of(size, trained, topology), time.perf_counter()
    held = sum(each.bytes for each in arrays_of(config, abstract_mesh(config.mesh, topology.all_devices, 1))) / 2**30
    line = {"size": size, "trained": trained, "topology": topology.name, "held_gib": round(held, 2)}
    line |= {"jax": version("jax"), "libtpu": version("libtpu")}
    if held > topology.family.hbm_gib:
        return line | {"fits": False, "programs": []}

    def said(one: Planned) -> None:
        print(f"{compiled(one)}, {one.hbm_gib:.1f} GiB", flush=True)

    try:
        programs = plan(config, topology, said, all_programs=False)
    except UserError as error:
        if error.where == "topology":  # it is this machine that cannot plan
            raise
        return line | {"fits": False, "refused": error.what, "programs": []}
    done = {one.program: one for one in programs}
    fits = {"decode", "update"} <= done.keys() and all(one.fits for one in programs)
    told = [one.as_json() | {"compile_s": round(one.compile_s, 1)} for one in programs if one.sent is not None]
    return line | {"fits": fits, "programs": told, "planned_s": round(time.perf_counter() - began)}


def smallest(lines: list[dict], size: str, trained: str, family: str) -> Iterator[Topology]:
    """The slices of a family that are still to be tried, smallest first, up to the one that fits."""
    known = {line["topology"]: line["fits"] for line in _own(lines, size, trained)}
    for topology in [Topology(FAMILIES[family], shape) for shape in FAMILIES[family].shapes]:
        if topology.name not in known:
            yield topology
        if known.get(topology.name):
            return


def _own(lines: list[dict], size: str, trained: str) -> list[dict]:
    return [line for line in lines if (line["size"], line["trained"]) == (size, trained)]


def tables(lines: list[dict]) -> str:
    """What is kept, as Markdown."""
    return "\n".join(["", *_fits(lines), "", *_chips(lines), "", _made_with(lines), ""])


def _made_with(lines: list[dict]) -> str:
    made = Counter(f"libtpu {line['libtpu']} and jax {line['jax']}" for line in lines if line["programs"])
    return "Slices compiled: " + "; ".join(f"{count} by {versions}" for versions, count in made.most_common()) + "."


def _fits(lines: list[dict]) -> list[str]:
    said = ["| size | trained | " + " | ".join(FAMILIES) + " |", "|---|---|" + "---|" * len(FAMILIES)]
    for size in SIZES:
        for trained in TRAINED:
            cells = [_smallest_cell(lines, size, trained, family) for family in FAMILIES]
            said.append(f"| {size.upper()} | {trained} | " + " | ".join(cells) + " |")
    return said


def _smallest_cell(lines: list[dict], size: str, trained: str, family: str) -> str:
    by_name = {line["topology"]: line for line in _own(lines, size, trained)}
    names = [f"{family}:{shape}" for shape in FAMILIES[family].shapes]
    refused = [f"`{name}`" for name in names if "refused" in by_name.get(name, ())]
    beside = f" (libtpu could not compile {', '.join(refused)})" if refused else ""
    for name in names:
        line = by_name.get(name)
        if line is None:
            return "not planned yet"
        if line["fits"]:
            most = max(line["programs"], key=lambda one: one["hbm_gib"])
            seconds = sum(one["step_s_estimate"] for one in line["programs"])
            return f"`{line['topology']}` {most['hbm_gib']:.1f} GiB ({most['program']}), {short(seconds)} s{beside}"
    return f"none up to 256 chips{beside}"


def _chips(lines: list[dict]) -> list[str]:
    said = ["| size | trained | slice | program | TFLOP a chip | GB sent a chip | of which | s at best | compiled in |",
            "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for size in SIZES:
        for trained in TRAINED:
            fit = {line["topology"]: line for line in _own(lines, size, trained) if line["fits"]}
            if fit.keys() >= set(LADDER):
                said += [_program_row(fit[name], one) for name in LADDER for one in fit[name]["programs"]]
    return said


def _program_row(line: dict, one: dict) -> str:
    sent, kinds = sent_cells(one["collective_bytes"])
    numbers = f"{short(one['flops_per_chip'] / 1e12)} | {sent} | {kinds}"
    start = f"| {line['size'].upper()} | {line['trained']} | `{line['topology']}` | {one['program']} "
    return f"{start}| {numbers} | {short(one['step_s_estimate'])} | {one['compile_s']:.0f} s |"


def kept() -> list[dict]:
    return [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []


def keep(line: dict) -> None:
    with KEPT.open("a") as file:
        file.write(json.dumps(line) + "\n")


def write_page() -> None:
    """Draws the tables of all that is kept."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError("The page has no place for the tables.", where=str(PAGE), mend=f"put back {BEGIN} and {END}")
    replace_text(PAGE, before + begin + "\n" + tables(kept()) + "\n" + end + after)


def missing(size: str, trained: str, parts: list[str], families: list[str]) -> Iterator[Topology]:
    """What is still to be planned; asks again what is kept after each."""
    if "chips" in parts:
        for name in LADDER:
            if not any((line["size"], line["trained"], line["topology"]) == (size, trained, name) for line in kept()):
                yield find_topology(name)
    if "fits" in parts:
        for family in families:
            while topology := next(smallest(kept(), size, trained, family), None):
                yield topology


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--trained", default=",".join(TRAINED))
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--parts", default="fits,chips", help="`tables` draws them again and plans nothing")
    given = parser.parse_args()
    for size in given.sizes.split(","):
        for trained in given.trained.split(","):
            for topology in missing(size, trained, given.parts.split(","), given.families.split(",")):
                print(f"{size}, {trained}, on {topology.name}", flush=True)
                keep(planned(size, trained, topology))
                write_page()
    write_page()


if __name__ == "__main__":
    main()
