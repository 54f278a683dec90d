"""What came out of a sweep: a table (JSON, Markdown) and plots of quality against size, steps and cost."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from m2io_jax.config import RunConfig
from m2io_jax.evaluation.curves import LIGHT
from m2io_jax.evaluation.results import Results, heading, left_out
from m2io_jax.files import write_at_once
from m2io_jax.models.policy import config_of
from m2io_jax.models.weights import declared
from m2io_jax.sweeps.plan import HERE, SweepConfig, SweepRun
from m2io_jax.sweeps.running import RESULTS, folder_of
from m2io_jax.training.metrics import read_metrics
from m2io_jax.training.stages import load_stages

METRICS = ("f1", "placement", "order", "validity", "reward")  # of the inserter
OF_OTHERS = ("accuracy", "reward")  # of another task, whose name stands before it
DECODING = "greedy"


@dataclass(frozen=True)
class Outcome:
    """One run of a sweep, made or only planned.

    Attributes:
        size: its label in the sweep.
        settings: those that not all runs have alike.
        parameters: of the model.
        where: the slices it is for; `here`: this machine, counted as one chip.
        steps: made so far, of all stages; of a run that has not begun, those it is to make (None: it ends by time).
        step_seconds: that steps took, without compiling, checkpoints and waiting for machines; as planned before the
            first; None where neither is known.
        measured: they were measured.
        scores: metric → {mean, low, high} in points, of the greedy policy; empty while it is not finished.
        left_out: a line for each reason why held-out episodes are in no score.
        cost: `chip_hours` at the sweep's price; None without one.
    """

    name: str
    size: str
    settings: Mapping[str, Any]
    parameters: int
    where: str
    chips: int
    steps: int | None
    step_seconds: float | None
    measured: bool
    chip_hours: float | None
    cost: float | None
    scores: Mapping[str, Mapping[str, float]]
    left_out: Sequence[str] = ()


def write_report(sweep: SweepConfig, runs: Sequence[SweepRun]) -> list[Path]:
    """Writes report.json, report.md and, once a run is finished, report.png into the sweep's folder.

    Raises:
        UserError: a configuration is wrong, a file is damaged, or the folder cannot be written.
    """
    outcomes = read_outcomes(sweep, runs)
    rows = [asdict(outcome) for outcome in outcomes]
    files = {
        "report.json": json.dumps({"sweep": sweep.name, "runs": rows}, indent=2) + "\n",
        "report.md": as_markdown(sweep, outcomes),
    }
    written = [sweep.folder / name for name in files]
    for path, text in zip(written, files.values(), strict=True):
        write_at_once(path, text, what="sweep's report")
    if any(outcome.scores for outcome in outcomes):
        written.append(sweep.folder / "report.png")
        written[-1].write_bytes(draw(outcomes))
    return written


def read_outcomes(sweep: SweepConfig, runs: Sequence[SweepRun]) -> list[Outcome]:
    """What there is of each run, in the sweep's order."""
    alike = {key for run in runs for key in run.settings if _same(key, runs)}
    return [_outcome(sweep, run, alike) for run in runs]


def _same(key: str, runs: Sequence[SweepRun]) -> bool:
    return all(key in run.settings and run.settings[key] == runs[0].settings.get(key) for run in runs)


def _outcome(sweep: SweepConfig, run: SweepRun, alike: set[str]) -> Outcome:
    folder = folder_of(sweep, run)
    stages = load_stages(run.config, run.words(folder)[1:]).runs
    made = [_made(stage) for stage in stages]
    steps, seconds = sum(count for count, _ in made), sum(seconds for _, seconds in made)
    measured = steps > 0
    if not measured:
        planned = [stage.steps for stage in stages]
        steps = None if None in planned else sum(planned)
        seconds = None if None in (planned[-1], run.planned_step_s) else planned[-1] * run.planned_step_s
    chips = run.topology.all_chips if run.topology else 1
    hours = None if seconds is None else seconds * chips / 3600
    price = sweep.price_per_chip_hour.get(run.topology.family.name if run.topology else HERE)
    path = folder / RESULTS
    results = Results.read(path) if path.is_file() else Results()
    return Outcome(
        name=run.name,
        size=run.size,
        settings={key: value for key, value in run.settings.items() if key not in alike},
        parameters=_parameters(stages[0].init, stages[0].model),
        where=run.topology.name if run.topology else HERE,
        chips=chips,
        steps=steps,
        step_seconds=seconds,
        measured=measured,
        chip_hours=hours,
        cost=None if None in (hours, price) else hours * price,
        scores=_scores(results, stages[-1].name),
        left_out=[f"{task}{line}" for task, _, section in _sections(results) for line in left_out(section)],
    )


def _sections(results: Results) -> list[tuple[str, tuple[str, ...], Results]]:
    """What a task's name is shown as, what it is reported by, and its results."""
    return [("", METRICS, results)] + [(f"{task} ", OF_OTHERS, each) for task, each in results.tasks.items()]


def _scores(results: Results, policy: str) -> dict[str, dict[str, float]]:
    """What is reported of a policy, by metric, with the task's name where it is not the inserter."""
    found = {}
    for task, metrics, section in _sections(results):
        measured = section.scores.get(policy, {}).get(DECODING, {})
        found |= {f"{task}{metric}": dict(measured[metric]) for metric in metrics if metric in measured}
    return found


def metrics_of(outcomes: Sequence[Outcome]) -> list[str]:
    """What any of the runs is measured by; while none is, what an inserter would be."""
    return list(dict.fromkeys(metric for outcome in outcomes for metric in outcome.scores)) or list(METRICS)


def _made(stage: RunConfig) -> tuple[int, float]:
    """Steps that were made, and the seconds they took: not every step need have been logged."""
    rows = read_metrics(stage.run)
    if not rows:
        return 0, 0.0
    steps, times = rows[-1]["step"], [row["step_time"] for row in rows]
    return steps, steps * sum(times) / len(times)


@cache
def _parameters(init: str, size: str | None) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(declared(config_of(init, size))))


def as_markdown(sweep: SweepConfig, outcomes: Sequence[Outcome]) -> str:
    """The table, with what its figures mean."""
    metrics = metrics_of(outcomes)
    heads = ["run", "size", "settings", "steps", *map(heading, metrics), "where", "chip-hours"]
    priced = bool(sweep.price_per_chip_hour)
    lines = [heads + ["cost"] * priced, ["---"] * (len(heads) + priced)]
    for outcome in outcomes:
        settings = " ".join(f"{key}={value}" for key, value in outcome.settings.items())
        cells = [outcome.name, outcome.size, settings, _shown(outcome.steps, "d")]
        cells += [_interval(outcome.scores.get(metric)) for metric in metrics]
        planned = outcome.chip_hours is not None and not outcome.measured
        cells += [outcome.where, _shown(outcome.chip_hours, ".3g") + " planned" * planned]
        lines.append(cells + [_shown(outcome.cost, ".3g")] * priced)
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    note = (
        "Points of 100 on held-out episodes, greedy, with half the width of the 95% interval. Chip-hours are those of "
        "steps, while planned those of the last stage: neither compiling nor waiting for machines is in them. This "
        "machine counts as one chip."
    )
    missing = "".join(f"- {outcome.name}: {line}\n" for outcome in outcomes for line in outcome.left_out)
    return f"# Sweep {sweep.name}\n\n{table}\n\n{note}\n" + (missing and f"\n{missing}")


def draw(outcomes: Sequence[Outcome]) -> bytes:
    """A PNG: the first metric of the finished runs against parameters, steps, and cost (chip-hours where not all have
    one)."""
    drawn = metrics_of(outcomes)[0]
    finished = [outcome for outcome in outcomes if drawn in outcome.scores]
    cost = "chip_hours" if any(outcome.cost is None for outcome in finished) else "cost"
    figure = Figure(figsize=(10.8, 3.2), dpi=110, facecolor=LIGHT.ground, layout="constrained")
    FigureCanvasAgg(figure)
    against = {"parameters": "Parameters", "steps": "Steps", cost: cost.replace("_", "-").capitalize()}
    sizes = list(dict.fromkeys(outcome.size for outcome in finished))
    for place, (name, title) in enumerate(against.items(), 1):
        axes = figure.add_subplot(1, 3, place)
        for number, size in enumerate(sizes):
            points = [(getattr(outcome, name), outcome.scores[drawn]) for outcome in finished if outcome.size == size]
            _draw(axes, [(x, score) for x, score in points if x], size, f"C{number}")
        _dress(axes, f"{heading(drawn)} against {title.lower()}", log=name != "steps")
    figure.axes[0].legend(fontsize=7, frameon=False)
    written = io.BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _draw(axes: Axes, points: Sequence[tuple[float, Mapping[str, float]]], size: str, colour: str) -> None:
    if points:
        means = [score["mean"] for _, score in points]
        below = [score["mean"] - score["low"] for _, score in points]
        above = [score["high"] - score["mean"] for _, score in points]
        axes.errorbar([x for x, _ in points], means, [below, above], fmt="o", color=colour, capsize=2, label=size)


def _dress(axes: Axes, title: str, *, log: bool) -> None:
    if log:
        axes.set_xscale("log")
    axes.set_title(title, fontsize=9, color=LIGHT.ink, loc="left")
    axes.grid(True, color=LIGHT.grid, linewidth=0.6)
    axes.tick_params(colors=LIGHT.ink, labelsize=7, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _interval(score: Mapping[str, float] | None) -> str:
    return "" if score is None else f"{score['mean']:.1f} ±{(score['high'] - score['low']) / 2:.1f}"


def _shown(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)
