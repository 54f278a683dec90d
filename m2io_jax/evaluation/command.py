"""What the command `m2io evaluate` does."""

import json
from pathlib import Path

from rich.console import Console

from m2io_jax.config import RunConfig, load_config
from m2io_jax.episodes.dataset import open_episodes, read_manifest
from m2io_jax.errors import UserError
from m2io_jax.evaluation.comparison import rules
from m2io_jax.evaluation.policy import Judge, summaries, take
from m2io_jax.evaluation.results import WIDE, Results, table
from m2io_jax.models.policy import load_policy
from m2io_jax.parallel.mesh import make_mesh


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
    """Evaluates a run's policy and the rules on a split, prints the table and writes `RUN/results.json`."""
    config = run_config(run)
    folder = config.episodes_of("inserter")
    counts = read_manifest(folder)["episodes"]
    if not counts.get(split):
        others = ", ".join(f"--split {name}" for name, count in counts.items() if count)
        mend = f"{others or 'none has any'}; or build episodes from more documents, or with other shares (train=0.6)"
        raise UserError(f"There are no episodes in the split `{split}`.", where=str(folder), mend=mend)
    test = take(open_episodes(folder, split), config.evaluate.episodes)
    policy = load_policy(str(run), size=config.model, mesh=make_mesh(config.mesh), dtype=config.computation.dtype)
    judge = Judge(config, policy)
    judged = judge.judge(policy, test, f"evaluating {config.name}")
    kept = [row.episode for row in judged["greedy"]]
    results = Results(
        scores={config.name: summaries(judged, config), "rules": rules(config, kept)},
        seed=config.seed,
        episodes=len(kept),
        config=config.model_dump(mode="json"),
        commands=(f"m2io evaluate {run}",),
    )
    results.write(run / "results.json")
    if as_json:
        print(json.dumps(results.to_json()))
        return
    out.print(table(results, narrow=out.width < WIDE))
    for reason, count in judge.dropped.items():
        out.print(f"left out, of the rules too: {count} of {len(test)} episodes: {reason}", markup=False)
    out.print(f"results {run / 'results.json'}", markup=False)
