"""From judged completions to a run's results: means with intervals, the file that keeps them, and the table."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from m2io_jax.episodes.episode import Episode
from m2io_jax.errors import UserError
from m2io_jax.evaluation.bootstrap import bootstrap_mean
from m2io_jax.files import write_at_once
from m2io_jax.tasks.inserter import METRICS
from m2io_jax.tasks.task import Task

# Columns of a terminal from which every metric stands on one line with its interval.
WIDE = 120

Scores = Mapping[str, Mapping[str, float]]

# The order and the names under which policies stand in a table; others follow under their own names.
POLICIES = {
    "base": "Base",
    "grpo": "GRPO",
    "sft_same_time": "SFT, same time",
    "grpo_pixels_shuffled": "GRPO, shuffled",
    "rules": "Rule",
}
_SHORT = {
    "precision": "prec.",
    "recall": "rec.",
    "placement": "place",
    "f1_with_gold": "F1 g.",
    "abstention": "abst.",
    "validity": "valid",
    "reward": "rew.",
}
_FACTS = ("seconds", "seed", "episodes", "dropped", "config", "commands")
_TASKS = "tasks"
_IN_TOKENS = "length"  # all other metrics are shares


def score_completion(
    task: Task, completion: str, episode: Episode, rewards: Mapping[str, float] | None, weights: Mapping[str, float]
) -> dict[str, float | None]:
    """What there is to tell of one completion, in [0, 1]; None where it does not apply.

    Args:
        rewards: its parts by name; None where nobody could score it, of which then nothing else is told.
        weights: of the parts, 0 where not named. The reward is their weighted mean.
    """
    if rewards is None:
        return {"unscored": 1.0}
    told = task.measure(completion, episode, rewards)
    return {**told, "reward": weighted_reward(rewards, weights), "unscored": 0.0}


def weighted_reward(rewards: Mapping[str, float], weights: Mapping[str, float] | None = None) -> float:
    """Mean of the reward parts by `weights` (0 where not named, equal for None); 0 where all weights are 0."""
    weights = dict.fromkeys(rewards, 1.0) if weights is None else weights
    total = sum(weights.get(name, 0.0) for name in rewards)
    return sum(weights.get(name, 0.0) * value for name, value in rewards.items()) / total if total else 0.0


def summarise(
    scores: Iterable[Mapping[str, float | None]], seed: int = 0, metrics: Sequence[str] = METRICS
) -> dict[str, dict[str, float]]:
    """Mean and bootstrap interval (`low`, `high`) of each metric over episodes, in points from 0 to 100; of the length,
    in tokens.

    Episodes that a metric does not apply to are left out of its mean; a metric that applies to none is left out.

    Raises:
        ValueError: no episodes.
    """
    rows = list(scores)
    if not rows:
        raise ValueError("there are no episodes to summarise")
    summary = {}
    for metric in metrics:
        unit = 1 if metric == _IN_TOKENS else 100
        values = [unit * row[metric] for row in rows if row.get(metric) is not None]
        if values:
            interval = bootstrap_mean(values, seed=seed)
            summary[metric] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return summary


@dataclass(frozen=True)
class Results:
    """What `results.json` holds.

    Attributes:
        scores: policy → decoding (for `rules`: the rule) → metric → {mean, low, high}.
        seed: of the run.
        seconds: that the run took; None for a command that adds to another's results.
        episodes: how many were scored. dropped: how many more were asked for and did not fit the shapes, by reason; no
            score counts them.
        config: the run's configuration.
        commands: that made the results.
        tasks: the same of every task but the inserter, whose scores are those above.
    """

    scores: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)
    seed: int | None = None
    seconds: float | None = None
    episodes: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    tasks: Mapping[str, "Results"] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values: the facts, beside them one key a policy, and `tasks`, where there are others."""
        facts = {name: getattr(self, name) for name in _FACTS}
        plain = {name: list(fact) if name == "commands" else fact for name, fact in facts.items()}
        tasks = {
            name: {"episodes": each.episodes, "dropped": each.dropped} | dict(each.scores)
            for name, each in self.tasks.items()
        }
        return plain | dict(self.scores) | ({_TASKS: tasks} if tasks else {})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Results":
        """The inverse of `to_json`. Raises TypeError or AttributeError for a row of another shape."""
        scores = {name: value for name, value in row.items() if name not in (*_FACTS, _TASKS)}
        for policy in scores.values():
            for decoding in policy.values():
                if not all({"mean", "low", "high"} <= set(value) for value in decoding.values()):
                    raise TypeError("a metric needs mean, low and high")
        facts = {name: row[name] for name in _FACTS if name in row}
        facts["commands"], facts["dropped"] = tuple(row.get("commands") or ()), dict(row.get("dropped") or {})
        tasks = {name: cls.from_json(each) for name, each in row.get(_TASKS, {}).items()}
        return cls(scores=scores, **facts, tasks=tasks)

    @classmethod
    def read(cls, path: str | Path) -> "Results":
        """Reads `results.json`. Raises UserError where it is missing or damaged."""
        mend = "Evaluate the run again."
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            what = f"The results cannot be read: {error.strerror}."
            raise UserError(what, where=str(path), mend=mend) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"The results are damaged: {error}", where=str(path), mend=mend) from error

    def write(self, path: str | Path) -> None:
        """Writes to `path` in one step: a reader finds the former results or these. Raises UserError."""
        write_at_once(path, json.dumps(self.to_json(), indent=2, default=str) + "\n", what="results")

    def merged(self, later: "Results") -> "Results":
        """These results with `later` ones added; where both have a policy's decoding, or a fact, the later one's."""
        scores = {policy: dict(each) for policy, each in self.scores.items()}
        for policy, each in later.scores.items():
            scores[policy] = scores.get(policy, {}) | dict(each)
        facts = {name: getattr(later, name) for name in _FACTS if getattr(later, name) not in (None, {}, ())}
        facts["commands"] = tuple(dict.fromkeys((*self.commands, *later.commands)))
        return replace(self, scores=scores, **facts, tasks=dict(self.tasks) | dict(later.tasks))


def merge_into(path: str | Path, results: Results) -> Results:
    """Adds `results` to the file at `path`, or begins it, and returns what it then holds.

    Raises:
        UserError: the file cannot be read or written, or its results are of another seed or number of episodes.
    """
    path = Path(path)
    if path.exists():
        former = Results.read(path)
        for name in ("seed", "episodes"):
            old, new = getattr(former, name), getattr(results, name)
            if None not in (old, new) and old != new:
                what = f"The results there have {name} {old}, the new ones {new}: they cannot stand in one table."
                raise UserError(what, where=str(path), mend="Use the same, or another run folder.")
        results = former.merged(results)
    results.write(path)
    return results


@dataclass(frozen=True)
class Row:
    """One line of the table; `cells` has one for each metric: (mean, half the interval's width), or None."""

    policy: str
    decoding: str
    cells: tuple[tuple[float, float] | None, ...]


def rows(results: Results, metrics: Sequence[str] = METRICS) -> list[Row]:
    """The table's lines, in the order of `POLICIES`."""
    order = [*filter(results.scores.__contains__, POLICIES), *(p for p in results.scores if p not in POLICIES)]
    return [
        Row(POLICIES.get(policy, policy), decoding, tuple(_cell(scores.get(metric)) for metric in metrics))
        for policy in order
        for decoding, scores in results.scores[policy].items()
    ]


def table(results: Results, metrics: Sequence[str] = METRICS, *, task: str = "", narrow: bool = False) -> Table:
    """For a terminal: means in points, each with half the width of its 95% interval.

    Args:
        task: to name in the title.
        narrow: intervals stand under their means, for a terminal of less than `WIDE` columns.
    """
    title = f"Points of 100 over {results.episodes} episodes" if results.episodes else "Points of 100"
    title = f"{task}: {title[0].lower()}{title[1:]}" if task else title
    caption = Text("\n".join(left_out(results))) if results.dropped else None
    made = Table(title=title, caption=caption, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("policy")
    made.add_column("decoding")
    for metric in metrics:
        made.add_column(_SHORT.get(metric, heading(metric)), justify="right")
    previous = None
    for row in rows(results, metrics):
        if previous not in (None, row.policy):
            made.add_row()
        # Text, not markup: names may come from a file.
        name = "" if row.policy == previous else row.policy
        cells = (_shown(cell, "\n" if narrow else " ") for cell in row.cells)
        made.add_row(Text(name), Text(row.decoding), *cells)
        previous = row.policy
    return made


def plain_table(results: Results, metrics: Sequence[str] = METRICS, width: int = 160) -> str:
    """The same table as text without colours, for `width` columns; 80 are enough for all metrics."""
    written = io.StringIO()
    made = table(results, metrics, narrow=width < WIDE)
    Console(file=written, width=width, color_system=None, force_terminal=False).print(made)
    return "".join(line.rstrip() + "\n" for line in written.getvalue().splitlines())


def left_out(results: Results) -> list[str]:
    """A line for each reason why episodes are in no figure."""
    asked = (results.episodes or 0) + sum(results.dropped.values())
    return [f"left out: {count} of {asked} episodes: {reason}" for reason, count in results.dropped.items()]


def heading(metric: str) -> str:
    """A metric's name as a column's heading."""
    named = {"f1": "F1", "f1_with_gold": "F1 with gold", _IN_TOKENS: "tokens"}
    return named.get(metric, metric.replace("_", " "))


def _cell(value: Mapping[str, float] | None) -> tuple[float, float] | None:
    return None if value is None else (value["mean"], (value["high"] - value["low"]) / 2)


def _shown(cell: tuple[float, float] | None, between: str) -> str:
    return "–" if cell is None else f"{cell[0]:.1f}{between}±{cell[1]:.1f}"
