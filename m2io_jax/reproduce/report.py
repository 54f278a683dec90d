"""What a reproduction came to, as JSON and as a section of docs/results.md: figures, and what they say of claims."""

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console

from m2io_jax.evaluation.policy import DECODING
from m2io_jax.evaluation.results import heading, summarise
from m2io_jax.files import write_at_once
from m2io_jax.reproduce.compare import HOLDS, REVERSED, UNDECIDED, Difference, difference
from m2io_jax.reproduce.plan import Claim, Plan

RESULTS = Path("docs/results.md")
HEADING = "## Reproductions\n"
MEANT = """\
Points of 100: mean over seeds, lowest and highest seed. Below, a difference is the mean over seeds and episodes with
its 95% bootstrap interval over episodes, then each seed's. A claim holds where interval and seeds are all above 0, is
the other way round where all are below, and else is not decided.
"""
# of one, and of several
SAID = {
    HOLDS: ("holds in miniature", "hold in miniature"),
    REVERSED: ("is the other way round", "are the other way round"),
    UNDECIDED: ("is not decided", "are not decided"),
}


@dataclass(frozen=True)
class Measured:
    """What is in a run's `scores.json`: steps, seconds, every metric of every episode by task and decoding, and where
    episodes were left out, how many by task and reason."""

    arm: str
    seed: int
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """What is found of a claim, by decoding."""

    claim: Claim
    found: Mapping[str, Difference]


def write_results(plan: Plan, measured: Sequence[Measured], out: Console) -> Path:
    """Writes `results.json` and `results.md` beside the runs, and into docs/results.md where nothing was set otherwise
    than the plan has it; prints the section. Returns the folder.

    Raises:
        UserError: they cannot be written.
    """
    claims = [judged(plan, measured, claim) for claim in plan.claims]
    text, folder = section(plan, measured, claims), plan.frame.run
    write_at_once(folder / "results.json", json.dumps(as_json(plan, measured, claims), indent=1) + "\n", what="results")
    write_at_once(folder / "results.md", text, what="results")
    out.print(text, markup=False, highlight=False, soft_wrap=True)
    if RESULTS.is_file() and not plan.changed:
        write_at_once(RESULTS, inserted(RESULTS.read_text(encoding="utf-8"), plan.name, text), what="results")
        out.print(f"results {folder / 'results.json'}, {RESULTS}", markup=False)
    else:
        out.print(f"results {folder / 'results.json'}", markup=False)
    return folder


def values(
    measured: Iterable[Measured], arm: str, task: str, decoding: str, metric: str
) -> Float[np.ndarray, "seeds episodes"]:
    """One metric of an arm, a row a seed; NaN where it does not apply."""
    rows = [each.told["tasks"][task][decoding][metric] for each in measured if each.arm == arm]
    return np.array(rows, np.float64)


def judged(plan: Plan, measured: Sequence[Measured], claim: Claim) -> Judged:
    """What the runs say of a claim."""
    metric = claim.metric or plan.frame.metrics[claim.task][0]

    def of(arm: str, decoding: str) -> Float[np.ndarray, "seeds episodes"]:
        return values(measured, arm, claim.task, decoding, metric)

    return Judged(claim, {name: difference(of(claim.better, name), of(claim.than, name)) for name in DECODING})


def as_json(plan: Plan, measured: Sequence[Measured], claims: Sequence[Judged]) -> dict[str, Any]:
    """Plain values."""

    def summary(each: Measured) -> dict[str, Any]:
        found: dict[str, Any] = {name: each.told[name] for name in ("steps", "seconds", "dropped") if name in each.told}
        for task, decodings in each.told.get("tasks", {}).items():
            for decoding, metrics in decodings.items():
                rows = [dict(zip(metrics, row, strict=True)) for row in zip(*metrics.values(), strict=True)]
                found.setdefault(task, {})[decoding] = summarise(rows, metrics=tuple(metrics))
        return found

    return {
        "name": plan.name,
        "changed": list(plan.changed),
        "seeds": list(plan.frame.seeds),
        "made": made(),
        "arms": {
            name: {
                "label": arm.label,
                "paper": arm.paper,
                "seeds": {str(each.seed): summary(each) for each in measured if each.arm == name},
            }
            for name, arm in plan.arms.items()
        },
        "claims": [
            each.claim.model_dump()
            | {name: asdict(found) | {"verdict": found.verdict} for name, found in each.found.items()}
            for each in claims
        ],
    }


def made() -> dict[str, Any]:
    """By what and when."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices, today = f"{jax.device_count()} {jax.default_backend()}", date.today().isoformat()
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    return versions | {"devices": devices, "cores": cores, "date": today}


def section(plan: Plan, measured: Sequence[Measured], claims: Sequence[Judged]) -> str:
    """The Markdown section: how it was made, the table of arms, the table of claims, what they say."""
    by, frame = made(), plan.frame
    minutes = sum(each.told["seconds"] + each.told.get("judging_seconds", 0) for each in measured) / 60
    command = " ".join([f"m2io reproduce {plan.name}", *plan.changed])
    cores = f"{by['cores']} core" + "s" * (by["cores"] != 1)
    how = (
        f"`{command}`, {by['date']}: seeds {', '.join(map(str, frame.seeds))}, {cores}, Python "
        f"{by['python']}, jax {by['jax']}; {minutes:.0f} minutes of training and evaluation."
    )
    parts = [f"### {frame.title}\n", f"{how} {' '.join(frame.about.split())}\n", MEANT, table(plan, measured)]
    parts += left_out(measured)
    return "\n".join([*parts, *([claims_table(plan, claims), *sentences(plan, claims)] if claims else [])]) + "\n"


def table(plan: Plan, measured: Sequence[Measured]) -> str:
    """A line an arm: every metric by decoding, and the paper's figures."""
    columns = [(task, metric) for task, metrics in plan.frame.metrics.items() for metric in metrics]
    heads = [f"{task} {heading(metric)}, {decoding}" for task, metric in columns for decoding in DECODING]
    has_paper = any(arm.paper for arm in plan.arms.values())
    lines = [_line(["arm", "steps", *heads, *(["the paper"] if has_paper else [])])]
    lines.append("|---|" + "---:|" * (1 + len(heads)) + "---|" * has_paper)
    for name, arm in plan.arms.items():
        if arm.label is None:
            continue
        steps = _steps(plan, measured, name)
        cells = [
            spread(values(measured, name, task, decoding, metric)) for task, metric in columns for decoding in DECODING
        ]
        paper = "; ".join(f"{task} {figure}" for task, figure in arm.paper.items())
        lines.append(_line([arm.label, str(steps), *cells, *([paper] if has_paper else [])]))
    return "\n".join(lines) + "\n"


def left_out(measured: Sequence[Measured]) -> list[str]:
    """A line for each reason why episodes of a task are in no figure: as many as of any run."""
    most: dict[tuple[str, str], int] = {}
    for each in measured:
        for task, reasons in each.told.get("dropped", {}).items():
            for reason, count in reasons.items():
                most[task, reason] = max(count, most.get((task, reason), 0))
    lines = [f"- {task}: {count} episodes of a run left out: {reason}" for (task, reason), count in most.items()]
    return ["\n".join(lines) + "\n"] if lines else []


def _steps(plan: Plan, measured: Sequence[Measured], name: str) -> int:
    """An arm's own, and those of what it begins with that has no line of its own."""
    before, steps = plan.arms[name].begins_with, next(each.told["steps"] for each in measured if each.arm == name)
    unlisted = before is not None and plan.arms[before].label is None
    return steps + (_steps(plan, measured, before) if unlisted else 0)


def spread(found: Float[np.ndarray, "seeds episodes"]) -> str:
    """Mean over seeds, with the lowest and highest where there are several; a dash where nothing applies."""
    if np.isnan(found).all(axis=1).any():
        return "–"
    seeds = 100 * np.nanmean(found, axis=1)
    return f"{seeds.mean():.1f}" + (f" ({seeds.min():.1f} to {seeds.max():.1f})" if len(seeds) > 1 else "")


def claims_table(plan: Plan, claims: Sequence[Judged]) -> str:
    """A line a claim: what the paper has, and what is found by either decoding."""
    lines = [_line(["claim", "the paper", *DECODING]), "|---|---|" + "---|" * len(DECODING)]
    for each in claims:
        cells = [f"{told(each.found[name])}: {each.found[name].verdict}" for name in DECODING]
        lines.append(_line([worded(plan, each.claim), each.claim.paper or "–", *cells]))
    return "\n".join(lines) + "\n"


def sentences(plan: Plan, claims: Sequence[Judged]) -> list[str]:
    """What is found, in a sentence for each decoding: of the paper's claims, then of what is asked beside them."""
    said = []
    for begin, chosen in (
        ("Of the paper's {} claims", [each for each in claims if each.claim.paper]),
        ("Of {} comparisons that the paper gives no figures for", [each for each in claims if not each.claim.paper]),
    ):
        for decoding in DECODING if chosen else ():
            listed = ", ".join(_counted(plan, chosen, decoding, verdict) for verdict in SAID)
            said.append(f"- {begin.format(len(chosen))}, by {decoding} answers {listed}.")
    return said


def _counted(plan: Plan, claims: Sequence[Judged], decoding: str, verdict: str) -> str:
    found = [worded(plan, each.claim) for each in claims if each.found[decoding].verdict == verdict]
    return f"{len(found)} {SAID[verdict][len(found) != 1]}" + (f" ({'; '.join(found)})" if found else "")


def worded(plan: Plan, claim: Claim) -> str:
    """A claim in words."""
    by = f" in {heading(claim.metric)}" if claim.metric else ""
    on = f" on {claim.task}" if len(plan.frame.metrics) > 1 else ""
    return f"{plan.arms[claim.better].label} above {plan.arms[claim.than].label}{by}{on}"


def told(found: Difference) -> str:
    seeds = "; " + ", ".join(f"{value:+.1f}" for value in found.by_seed) if len(found.by_seed) > 1 else ""
    return f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f}{seeds})"


def inserted(text: str, name: str, section: str) -> str:
    """A document with the section between its markers, in place of what stood there; at the end where they are not."""
    start, end = f"<!-- m2io reproduce {name} -->\n", f"<!-- end of m2io reproduce {name} -->\n"
    block = start + section + end
    if start in text and end in text:
        return text[: text.index(start)] + block + text[text.index(end) + len(end) :]
    return text + ("" if HEADING in text else f"\n{HEADING}") + f"\n{block}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
