"""The main job on generated data, start to end: corpus, index, episodes, base, GRPO, evaluation, report."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from m2io_jax.config import RunConfig, load_config
from m2io_jax.corpus.importing import import_kitchen
from m2io_jax.corpus.kitchen import KitchenConfig
from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.building import EpisodeConfig
from m2io_jax.episodes.making import make_episodes
from m2io_jax.errors import UserError
from m2io_jax.evaluation.command import held_out
from m2io_jax.evaluation.comparison import rules
from m2io_jax.evaluation.curves import write_curves
from m2io_jax.evaluation.policy import Judge, Judged, shuffle_pixels, summaries
from m2io_jax.evaluation.report import Sample, write_report
from m2io_jax.evaluation.results import METRICS, WIDE, Results, merge_into, table
from m2io_jax.files import write_at_once
from m2io_jax.models.policy import load_policy
from m2io_jax.retrieval.search import Retriever, build_index, index_folder
from m2io_jax.tasks import find_task
from m2io_jax.tasks.inserter import parse
from m2io_jax.training.metrics import read_metrics
from m2io_jax.training.run import train

SAMPLES = 12
DOCUMENTS = 1600
IMPERFECT = dict(drop_labels=0.2, move_labels=0.1)  # labels as real documents have them; gold stays exact
EPISODES = dict(min_candidates=4, max_candidates=6, train=0.7, validation=0.02, **IMPERFECT)
SEEDS = (0, 1, 2)


def kitchen(folder: Path, *, documents: int, seed: int, episodes: EpisodeConfig, say: Console) -> Path:
    """A generated corpus with its index and episodes in `folder`; made once. Returns the episodes' folder."""
    out = folder / "episodes"
    if (out / "episodes.json").is_file():
        return out
    say.print(f"drawing a kitchen of {documents} recipes ...")
    import_kitchen(KitchenConfig(documents=documents, seed=seed), folder / "corpus")
    corpus = Corpus.open(folder / "corpus")
    build_index(corpus, index_folder(corpus.path))
    say.print("building episodes: questions, answers, candidate pictures by retrieval ...")
    make_episodes(corpus, Retriever.open(index_folder(corpus.path), corpus), out, episodes)
    return out


def demo(config_path: Path, overrides: Sequence[str], say: Console) -> Path:
    """Trains by GRPO from the base and evaluates both. Returns the report's path."""
    began = time.perf_counter()
    config = _with_data(load_config(config_path, overrides), say)
    test, policy = held_out(config, "inserter"), load_policy(config.init, size=config.model)
    judge, task = Judge(config, policy), find_task("inserter")
    before = judge.judge(policy, task, test, "evaluating the base")
    finished = train(config)
    after = judge.judge(finished.policy, task, test, "evaluating GRPO's policy")
    judged = {"base": summaries(before, task, config), "grpo": summaries(after, task, config)}
    results = Results(
        scores=judged | {"rules": rules(config, after.episodes)},
        seed=config.seed,
        seconds=round(time.perf_counter() - began, 1),
        episodes=len(after.episodes),
        dropped=dict(after.dropped),
        config=config.model_dump(mode="json"),
        commands=("make demo",),
    )
    results.write(config.run / "results.json")
    return conclude(config, results, after.rows["greedy"], say)


def controls(config_path: Path, overrides: Sequence[str], say: Console) -> Path:
    """Adds to the demo's results what it has to be compared with: supervision for as long, and a blindfold."""
    config = _with_data(load_config(config_path, overrides), say)
    if not (config.run / "results.json").is_file():
        raise UserError("There is no demo to control.", where=str(config.run), mend="run `make demo` first")
    test, policy = held_out(config, "inserter"), load_policy(str(config.run), size=config.model)
    judge, task = Judge(config, policy), find_task("inserter")
    policy = judge.ready(policy)
    blindfold = [shuffle_pixels(episode, config.seed) for episode in test]
    shuffled = judge.judge(policy, task, blindfold, "evaluating GRPO's policy, pictures exchanged")
    beside = config_path.with_stem(config_path.stem + "_sft")
    supervision = load_config(beside, [*overrides, f"run={config.run / 'sft'}"])
    supervised = train(supervision.model_copy(update={"episodes": config.episodes}))
    later = judge.judge(supervised.policy, task, test, "evaluating supervision continued")
    scores = {"sft_same_time": summaries(later, task, config)}
    scores["grpo_pixels_shuffled"] = summaries(shuffled, task, config)
    results = merge_into(
        config.run / "results.json",
        Results(
            scores=scores,
            seed=config.seed,
            episodes=len(later.episodes),
            dropped=dict(later.dropped),
            commands=("make demo-controls",),
        ),
    )
    after = judge.judge(policy, task, test[: 4 * SAMPLES], "answers for the report")
    return conclude(config, results, after.rows["greedy"], say)


def conclude(config: RunConfig, results: Results, judged: Sequence[Judged], say: Console) -> Path:
    """Prints the table and writes the report."""
    courses = {"GRPO": read_metrics(config.run)}
    if (config.run / "sft" / "metrics.jsonl").is_file():
        courses["Supervised, the same time"] = read_metrics(config.run / "sft")
    write_curves(config.run / "curves.png", config.run)
    report = write_report(config.run / "report.html", results, samples(judged), courses)
    say.print(table(results, narrow=say.width < WIDE))
    say.print(f"\nresults  {config.run / 'results.json'}\nreport   {report}", markup=False, soft_wrap=True)
    return report


def samples(judged: Sequence[Judged], count: int = SAMPLES) -> list[Sample]:
    """The first answers for the report: most with gold pictures, a few where placing none is right."""
    with_gold = [row for row in judged if row.episode.gold]
    without = [row for row in judged if not row.episode.gold]
    chosen = with_gold[: count - 2] + without[:2]
    return [_sample(row) for row in chosen]


def _sample(row: Judged) -> Sample:
    said = parse(row.completion, row.episode)
    placements, reasoning = (said.placements, said.thinking) if said else (None, "")
    return Sample(row.episode, row.completion, placements, row.rewards or {}, reasoning)


def _with_data(config: RunConfig, say: Console) -> RunConfig:
    """The configuration with its generated episodes, which are made where they are missing."""
    if config.episodes is not None:
        return config
    episodes = kitchen(
        config.run,
        documents=DOCUMENTS,
        seed=config.seed,
        episodes=EpisodeConfig(seed=config.seed, **EPISODES),
        say=say,
    )
    return config.model_copy(update={"episodes": episodes})


def seeds(config_path: Path, overrides: Sequence[str], say: Console) -> Path:
    """The demo and its controls for several seeds, each in a folder of its own; prints mean and range."""
    runs = []
    for seed in SEEDS:
        run = Path(f"runs/demo-seed{seed}")
        settings = [*overrides, f"seed={seed}", f"run={run}"]
        if not _is_complete(run, load_config(config_path, settings)):
            demo(config_path, settings, say)
            controls(config_path, settings, say)
        runs.append(Results.read(run / "results.json"))
    out = Path("runs") / "demo-seeds.md"
    write_at_once(out, spread(runs), what="table of seeds")
    say.print(out.read_text(), markup=False, highlight=False, soft_wrap=True)
    return out


def _is_complete(run: Path, config: RunConfig) -> bool:
    """Whether this demo and its controls have been made."""
    if not (run / "results.json").is_file():
        return False
    results = Results.read(run / "results.json")
    made = dict(results.config, episodes=str(config.episodes) if config.episodes else None)
    return "sft_same_time" in results.scores and made == config.model_dump(mode="json")


def spread(runs: Sequence[Results]) -> str:
    """Mean and range over runs of every policy's metrics, as a Markdown table."""
    lines = [f"| policy | decoding | {' | '.join(METRICS)} |", "|---|---|" + "---:|" * len(METRICS)]
    for policy, decodings in runs[0].scores.items():
        for decoding, metrics in decodings.items():
            cells = []
            for metric in METRICS:
                values = [run.scores[policy][decoding][metric]["mean"] for run in runs if metric in metrics]
                mean = sum(values) / max(1, len(values))
                cells.append(f"{mean:.1f} ({min(values):.1f} to {max(values):.1f})" if values else "")
            lines.append(f"| {policy} | {decoding} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
