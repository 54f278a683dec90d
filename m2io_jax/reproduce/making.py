"""Makes a reproduction: data, then one run after another, each trained and evaluated. Started again, it goes on.

    runs/reproduce/NAME/plan.json                what it was begun with
    runs/reproduce/NAME/data/TASK                episodes
    runs/reproduce/NAME/once/ARM, seed0/ARM      a run's folder each, with `scores.json` once it is evaluated
    runs/reproduce/NAME/results.json, results.md
"""

import json
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from m2io_jax.config import RunConfig, resume_differences
from m2io_jax.demo import kitchen
from m2io_jax.episodes.building import EpisodeConfig
from m2io_jax.episodes.generated import find_generated
from m2io_jax.episodes.generated.making import make_generated
from m2io_jax.errors import UserError, unknown_name
from m2io_jax.evaluation.command import held_out
from m2io_jax.evaluation.policy import Judge, scores
from m2io_jax.files import write_at_once
from m2io_jax.models.growing import grown
from m2io_jax.models.policy import Policy, load_policy
from m2io_jax.reproduce.plan import Data, Plan, Planned, load_plan
from m2io_jax.reproduce.report import Measured, write_results
from m2io_jax.tasks import find_task
from m2io_jax.training.checks import check
from m2io_jax.training.run import train

SCORES = "scores.json"


def reproduce(name: str, overrides: list[str], folder: Path, out: Console) -> Path:
    """Makes what is missing of a reproduction, prints and writes its results; returns where they lie.

    Raises:
        UserError: the plan is not valid, or was begun with other settings; or as `train`.
    """
    plan = load_plan(name, overrides, folder)
    for planned in plan.runs:
        check(planned.config)
    makers = {task: maker(task, data) for task, data in plan.data.items()}
    begin(plan)
    for task, make_data in makers.items():
        if not (plan.frame.run / "data" / task / "episodes.json").is_file():
            make_data(plan.frame.run / "data" / task, out)
    judge = None
    for number, planned in enumerate(plan.runs, 1):
        if is_done(planned):
            continue
        out.print(f"{number} of {len(plan.runs)}: {planned.arm}, seed {planned.seed}", highlight=False)
        judge = make(planned, plan, judge)
    return write_results(plan, measured(plan), out)


def begin(plan: Plan) -> None:
    """Notes what the reproduction is made with; seeds may be added later.

    Raises:
        UserError: what is there was begun with other settings.
    """
    path, key = plan.frame.run / "plan.json", begun_with(plan)
    if path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        changed = resume_differences(saved, {name: key.get(name, value) for name, value in saved.items()})
        if changed:
            said = "\n  ".join(changed[:10])
            what = f"The reproduction was begun with other settings and cannot go on with these:\n  {said}"
            raise UserError(what, where=str(path), mend="put the settings back, or give another folder with run=...")
        key = saved | key
    write_at_once(path, json.dumps(key, indent=1) + "\n", what="plan")


def begun_with(plan: Plan) -> dict[str, Any]:
    """Keys and JSON values that must not change while a reproduction goes on."""
    of_runs = {
        f"{planned.config.run.relative_to(plan.frame.run)}.{name}": value
        for planned in plan.runs
        for name, value in (planned.config.resume_key() | {"steps": planned.config.steps}).items()
    }
    of_data = {f"data.{task}.{name}": value for task, data in plan.data.items() for name, value in data}
    judged = {f"evaluate.{name}": value for name, value in plan.judged_by.evaluate}
    return json.loads(json.dumps(of_runs | of_data | judged))


def maker(task: str, data: Data) -> Callable[[Path, Console], None]:
    """What makes a data set in a folder.

    Raises:
        UserError: nothing is generated for the task, or its settings are wrong.
    """
    if task == "inserter":
        config = _configured(EpisodeConfig(seed=data.seed), data.settings, task)

        def draw(folder: Path, out: Console) -> None:
            made = kitchen(folder.parent / "kitchen", documents=data.count, seed=data.seed, episodes=config, say=out)
            made.rename(folder)

        return draw
    generator = _configured(find_generated(task), data.settings, task)
    return lambda folder, out: make_generated(task, generator, folder, count=data.count, seed=data.seed)


def make(planned: Planned, plan: Plan, judge: Judge | None) -> Judge:
    """Trains and evaluates one arm, and writes its scores; returns the judge, which serves all."""
    config, arm = planned.config, plan.arms[planned.arm]
    if arm.grow:
        config = _grown(config)
    if arm.settings is None:
        policy, said = load_policy(config.init, size=config.model), {"steps": 0, "seconds": 0.0}
    else:
        finished = train(config)
        policy, said = finished.policy, {"steps": finished.steps, "seconds": finished.seconds}
    if arm.label is not None:
        judge, began = judge or Judge(plan.judged_by, policy), time.perf_counter()
        policy = judge.ready(policy)
        judged = {task: _judged(policy, task, plan.judged_by, judge, config.name) for task in plan.frame.metrics}
        said["tasks"] = {task: scored for task, (scored, _) in judged.items()}
        said["dropped"] = {task: dropped for task, (_, dropped) in judged.items() if dropped}
        said["judging_seconds"] = time.perf_counter() - began
    write_at_once(config.run / SCORES, json.dumps(said) + "\n", what="scores")
    return judge


def is_done(planned: Planned) -> bool:
    """Whether a run was trained and evaluated."""
    return (planned.config.run / SCORES).is_file()


def measured(plan: Plan) -> list[Measured]:
    """What every run came to, in the plan's order."""
    return [
        Measured(planned.arm, planned.seed, json.loads((planned.config.run / SCORES).read_text(encoding="utf-8")))
        for planned in plan.runs
    ]


def _judged(
    policy: Policy, task: str, config: RunConfig, judge: Judge, name: str
) -> tuple[dict[str, dict[str, list]], dict[str, int]]:
    """Every metric of every episode, by decoding; and how many episodes were left out, by reason."""
    judged = judge.judge(policy, find_task(task), held_out(config, task), f"evaluating {name} on {task}")
    told = {decoding: scores(rows, find_task(task), config) for decoding, rows in judged.rows.items()}
    metrics = {
        decoding: {metric: [row.get(metric) for row in rows] for metric in find_task(task).metrics}
        for decoding, rows in told.items()
    }
    return metrics, dict(judged.dropped)


def _grown(config: RunConfig) -> RunConfig:
    """The run that begins with its start grown to its size."""
    folder = config.run.with_name(f"{config.run.name}-grown")
    if not (folder / "config.json").is_file():
        grown(load_policy(config.init, size=None), config.model).save(folder)
    return config.model_copy(update={"init": str(folder)})


def _configured(default, settings: dict[str, Any], task: str):
    """A generator's settings with those of the plan. Raises UserError: it has no such setting."""
    known = [field.name for field in fields(default)]
    for key in settings:
        if key not in known:
            raise unknown_name(f"data.{task}.settings", key, known)
    return replace(default, **settings)
