"""What the command `m2io evaluate` does."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from m2io_jax.config import RunConfig, load_config
from m2io_jax.episodes.dataset import open_episodes, read_manifest
from m2io_jax.episodes.episode import Episode
from m2io_jax.errors import UserError
from m2io_jax.evaluation.comparison import rules
from m2io_jax.evaluation.policy import Judge, Judgement, summaries, take
from m2io_jax.evaluation.results import WIDE, Results, table
from m2io_jax.models.policy import load_policy
from m2io_jax.parallel.exchange import is_first, wait_for_all
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.tasks import find_task

WITH_RULES = "inserter"  # the task that rules can do too, and whose scores stand at the top of `results.json`


def run_config(run: Path) -> RunConfig:
    """The configuration that a run was started with.

    Raises:
        UserError: the folder holds no run.
    """
    if not (run / "config.yaml").is_file():
        mend = "give one that m2io train wrote"
        raise UserError("This is not a run's folder.", where=str(run / "config.yaml"), mend=mend)
    return load_config(run / "config.yaml", [f"run={json.dumps(str(run))}"])


def evaluate_run(run: Path, split: str, as_json: bool, out: Console) -> None:
    """Evaluates a run's policy on a split of each of its tasks, prints a table a task and writes `RUN/results.json`.

    Several processes share the episodes; the first one prints and writes.
    """
    config = run_config(run)
    episodes = {name: held_out(config, name, split) for name, weight in config.tasks.items() if weight}
    policy = load_policy(str(run), size=config.model, mesh=make_mesh(config.mesh), dtype=config.computation.dtype)
    wait_for_all(f"weights of {run}")  # what first joins processes gives up on one that comes 30 s later
    judge, judged = Judge(config, policy), {}
    policy = judge.ready(policy)
    for name, chosen in episodes.items():
        title = f"evaluating {config.name}" + (f" on {name}" if len(episodes) > 1 else "")
        judged[name] = judge.judge(policy, find_task(name), chosen, title)
    if is_first():
        _write(run, config, judged, as_json, out)


def _write(run: Path, config: RunConfig, judged: Mapping[str, Judgement], as_json: bool, out: Console) -> None:
    """What was measured, to `results.json` and to the reader; `judged` by task."""
    sections = {name: _section(config, name, each) for name, each in judged.items()}
    first = sections.get(WITH_RULES, Results())
    results = Results(
        scores=first.scores,
        episodes=first.episodes,
        dropped=first.dropped,
        seed=config.seed,
        config=config.model_dump(mode="json"),
        commands=(f"m2io evaluate {run}",),
        tasks={name: section for name, section in sections.items() if name != WITH_RULES},
    )
    results.write(run / "results.json")
    if as_json:
        print(json.dumps(results.to_json()))
        return
    for name, section in sections.items():
        shown = "" if list(sections) == [WITH_RULES] else name
        out.print(table(section, find_task(name).metrics, task=shown, narrow=out.width < WIDE))
        _tell_unscored(judged[name], out)
    out.print(f"results {run / 'results.json'}", markup=False, soft_wrap=True)


def held_out(config: RunConfig, task: str, split: str = "test") -> list[Episode]:
    """The episodes of a task that results are measured on.

    Raises:
        UserError: the split has none.
    """
    folder = config.episodes_of(task)
    counts = read_manifest(folder)["episodes"]
    if not counts.get(split):
        mend = _other_splits(counts)
        raise UserError(f"There are no episodes in the split `{split}`.", where=str(folder), mend=mend)
    return take(open_episodes(folder, split), config.evaluate.episodes)


def _other_splits(counts: Mapping[str, int]) -> str:
    others = ", ".join(f"--split {name}" for name, count in counts.items() if count)
    return f"{others or 'none has any'}; or build episodes from more documents, or with other shares (train=0.6)"


def _section(config: RunConfig, name: str, judged: Judgement) -> Results:
    """The table of one task."""
    scores = {config.name: summaries(judged, find_task(name), config)}
    if name == WITH_RULES:
        scores["rules"] = rules(config, judged.episodes)
    return Results(scores, episodes=len(judged.episodes), dropped=dict(judged.dropped))


def _tell_unscored(judged: Judgement, out: Console) -> None:
    """What is in no mean, though its episode was judged."""
    for decoding, rows in judged.rows.items():
        if unscored := Counter(row.rewards is None for row in rows)[True]:
            out.print(f"left out: {unscored} of {len(rows)} {decoding} completions that nobody can verify")
