"""Rewards: every completion is scored by its task, in parallel; what a length costs; and the metrics of it all.

A completion that could not be verified has the reward NaN. It is left out of the loss and of every metric, and counted;
it never counts as 0.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from m2io_jax.episodes.episode import Episode
from m2io_jax.parallel.exchange import gathered
from m2io_jax.rl.rollout import Group
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.tasks.task import Task
from m2io_jax.training.logging.samples import SampledCompletion, SampledGroup
from m2io_jax.verification.pool import MOST_WORKERS, Unverified

COUNTERS = {"error": "verifier/errors", "timeout": "verifier/timeouts"}


class Row(Protocol):
    """What completions are scored against, and the task that scores them."""

    episode: Episode
    task: Task


@dataclass(frozen=True)
class Scores:
    """Scores of completions, by row and place in the group.

    Attributes:
        parts: reward parts by name; None where a completion could not be scored.
        rewards: the parts' weighted sums; NaN where a completion could not be scored.
        unverified: how many could not be, by the kind of `Unverified`.
    """

    parts: list[list[Mapping[str, float] | None]]
    rewards: Float[np.ndarray, "rows group"]
    unverified: Counter[str]

    def all_gather(self) -> "Scores":
        """Return the scores of all processes, in the order of the processes. A collective: all call it together."""
        own = {"parts": self.parts, "rewards": self.rewards.tolist(), "unverified": self.unverified}
        return concatenate(
            [
                Scores(each["parts"], np.array(each["rewards"], np.float32), Counter(each["unverified"]))
                for each in gathered(own)
            ]
        )

    def metrics(self) -> dict[str, float]:
        """Compute reward metrics under TRL's names: the reward, its spread within groups, each part, and how many
        completions could not be scored."""
        scored = ~np.isnan(self.rewards)
        groups = [group[kept] for group, kept in zip(self.rewards, scored, strict=True)]
        stds = [group.std() for group in groups if group.size]
        metrics = {"reward": _mean(self.rewards[scored]), "reward_std": _mean(stds)}
        metrics["frac_reward_zero_std"] = _mean([not group.size or np.ptp(group) == 0 for group in groups])
        flat = [parts for group in self.parts for parts in group if parts is not None]
        for name in sorted({name for parts in flat for name in parts}):
            values = [parts[name] for parts in flat if name in parts]
            metrics[f"rewards/{name}/mean"], metrics[f"rewards/{name}/std"] = _mean(values), float(np.std(values))
        return metrics | {name: float(self.unverified[kind]) for kind, name in COUNTERS.items()}


def score_completions(rows: Sequence[Row], texts: Sequence[Sequence[str]], weights: Mapping[str, float]) -> Scores:
    """Score every completion by its row's task.

    Args:
        rows: one a prompt; texts: the completions of each.
        weights: of the reward parts by name; 0 for those it does not name.
    """

    def score(job: tuple[Row, str]) -> Mapping[str, float] | Unverified:
        row, text = job
        try:
            return row.task.score(text, row.episode)
        except Unverified as error:
            return error

    jobs = [(row, text) for row, group in zip(rows, texts, strict=True) for text in group]
    # Threads wait for verifier processes; what needs no verifier takes next to no time.
    with ThreadPoolExecutor(MOST_WORKERS) as threads:
        found = list(threads.map(score, jobs))
    unverified = Counter(each.kind for each in found if isinstance(each, Unverified))
    known = [None if isinstance(each, Unverified) else each for each in found]
    group = len(texts[0])
    rewards = [np.nan if parts is None else _weighted_sum(parts, weights) for parts in known]
    return Scores(
        parts=[known[start : start + group] for start in range(0, len(known), group)],
        rewards=np.array(rewards, np.float32).reshape(len(rows), group),
        unverified=unverified,
    )


def concatenate(scores: Sequence[Scores]) -> Scores:
    """Join the scores of several batches into those of one."""
    return Scores(
        parts=[group for each in scores for group in each.parts],
        rewards=np.concatenate([each.rewards for each in scores]),
        unverified=sum((each.unverified for each in scores), Counter()),
    )


def mask_unscored(rollouts: Rollouts, rewards: Float[Array, "rows group"]) -> Rollouts:
    """Mask every token of completions that could not be scored (NaN)."""
    mask = rollouts.completions.mask & ~jnp.isnan(rewards)[..., None]
    return replace(rollouts, completions=replace(rollouts.completions, mask=mask))


def soft_overlong_penalty(lengths: Int[Array, "*batch"], *, max_length: int, buffer: int) -> Float[Array, "*batch"]:
    """Compute DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), from 0 down to -1:

        0                                        up to max_length - buffer tokens
        (max_length - buffer - length)/buffer    from there to max_length

    Args:
        lengths: of completions, in tokens.
        max_length: the longest completion there may be, in tokens.
        buffer: how many tokens before that the penalty begins; 1 or more.
    """
    return jnp.clip((max_length - buffer - lengths) / buffer, -1.0, 0.0)


def is_terminated(
    tokens: Int[Array, "*batch time"], mask: Bool[Array, "*batch time"], stops: tuple[int, ...]
) -> Bool[Array, "*batch"]:
    """Return which completions ended with a stop token; the others were truncated."""
    return (jnp.isin(tokens, jnp.array(stops)) & mask).any(-1)


class StepSamples:
    """Everything this process sampled in one step, whatever became of it: the source of the step's metrics and of the
    samples that are shown."""

    def __init__(self):
        self.rows: list[Row] = []
        self.texts: list[Sequence[str]] = []
        self.groups: list[Group] = []
        self.scores: list[Scores] = []
        self.filter_metrics: list[Mapping[str, float]] = []

    def add(
        self,
        rows: Sequence[Row],
        texts: Sequence[Sequence[str]],
        groups: Sequence[Group],
        scores: Scores,
        filter_metrics: Mapping[str, float],
    ) -> None:
        """Add one round of sampling and what the filters did with it."""
        self.rows += rows
        self.texts += texts
        self.groups += groups
        self.scores.append(scores)
        self.filter_metrics.append(filter_metrics)

    def metrics(self, stops: tuple[int, ...]) -> dict[str, float]:
        """Compute reward and length metrics, all-gathered, and filter metrics averaged over resampling rounds."""
        filters = mean_metrics(self.filter_metrics) | {"rollout/rounds": float(len(self.filter_metrics))}
        rewards = concatenate(self.scores).all_gather().metrics()
        return rewards | length_metrics(self.groups, stops) | filters

    def shown(
        self, count: int, learnt: Sequence[Group], advantages: Float[np.ndarray, "rows group"]
    ) -> list[SampledGroup]:
        """Return the first `count` of these groups that an update learnt from, to be shown.

        Args:
            learnt: all groups of the update, those of other steps included.
            advantages: of each of them.
        """
        scores, places = concatenate(self.scores), {id(row.prompt): place for place, row in enumerate(self.rows)}
        found = [
            (places[id(group.prompt)], of_group)
            for group, of_group in zip(learnt, advantages, strict=True)
            if id(group.prompt) in places
        ]
        return [
            SampledGroup(row.task.name, row.episode, _sampled(self.texts[place], scores, place, of_group))
            for place, of_group in found[:count]
            for row in [self.rows[place]]
        ]


def length_metrics(groups: Sequence[Group], stops: tuple[int, ...]) -> dict[str, float]:
    """Compute length metrics, in tokens, over all processes; a completion without a stop token counts as clipped."""
    ended = [(np.isin(group.tokens, stops) & group.mask).any(-1) for group in groups]
    own = [(group.mask.sum(-1).tolist(), each.tolist()) for group, each in zip(groups, ended, strict=True)]
    every = [group for process in gathered(own) for group in process]
    lengths, stopped = (np.concatenate(each) for each in zip(*every, strict=True))
    return {
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float(1 - stopped.mean()),
        "num_tokens": float(lengths.sum()),
    }


def mean_metrics(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each metric over everything that all processes measured."""
    every = [each for process in gathered(list(measured)) for each in process]
    return {name: float(np.mean([each[name] for each in every])) for name in every[0]}


def _sampled(
    texts: Sequence[str], scores: Scores, row: int, advantages: Float[np.ndarray, " group"]
) -> tuple[SampledCompletion, ...]:
    """Return the completions of one row with their scores and advantages."""
    rewards = [None if np.isnan(reward) else float(reward) for reward in scores.rewards[row]]
    parts = [found or {} for found in scores.parts[row]]
    shown = zip(texts, parts, rewards, map(float, advantages), strict=True)
    return tuple(SampledCompletion(*each) for each in shown)


def _weighted_sum(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weights.get(name, 0.0) * part for name, part in parts.items())


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
