"""What completions are worth: each scored by its task, side by side. What cannot be verified is left out, never 0."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from m2io_jax.episodes.episode import Episode
from m2io_jax.parallel.exchange import gathered
from m2io_jax.sampling.sampler import Rollouts
from m2io_jax.tasks.task import Task
from m2io_jax.training.logging.samples import SampledCompletion
from m2io_jax.verification.pool import MOST_WORKERS, Unverified

COUNTED = {"error": "verifier/errors", "timeout": "verifier/timeouts"}


class Row(Protocol):
    """What completions are scored against, and by which task."""

    episode: Episode
    task: Task


@dataclass(frozen=True)
class Scores:
    """Of every completion, by row and place in its group.

    Attributes:
        parts: reward parts by name; None where a completion could not be scored.
        rewards: the parts' weighted sums; NaN where a completion could not be scored.
        unverified: how many could not, by the kind of `Unverified`.
    """

    parts: list[list[Mapping[str, float] | None]]
    rewards: Float[np.ndarray, "rows group"]
    unverified: Counter[str]

    def of_all(self) -> "Scores":
        """Those of every process together, in the order of the processes. All call it together."""
        own = {"parts": self.parts, "rewards": self.rewards.tolist(), "unverified": self.unverified}
        return joined(
            [
                Scores(each["parts"], np.array(each["rewards"], np.float32), Counter(each["unverified"]))
                for each in gathered(own)
            ]
        )

    def metrics(self) -> dict[str, float]:
        """TRL's names, over all that was sampled and scored: the reward, its spread inside groups, each part; and how
        many could not be scored."""
        scored = ~np.isnan(self.rewards)
        groups = [group[kept] for group, kept in zip(self.rewards, scored, strict=True)]
        spreads = [group.std() for group in groups if group.size]
        metrics = {"reward": _mean(self.rewards[scored]), "reward_std": _mean(spreads)}
        metrics["frac_reward_zero_std"] = _mean([not group.size or np.ptp(group) == 0 for group in groups])
        flat = [parts for group in self.parts for parts in group if parts is not None]
        for name in sorted({name for parts in flat for name in parts}):
            values = [parts[name] for parts in flat if name in parts]
            metrics[f"rewards/{name}/mean"], metrics[f"rewards/{name}/std"] = _mean(values), float(np.std(values))
        return metrics | {name: float(self.unverified[kind]) for kind, name in COUNTED.items()}


def score_completions(rows: Sequence[Row], texts: Sequence[Sequence[str]], weights: Mapping[str, float]) -> Scores:
    """Scores every completion.

    Args:
        rows: one a prompt; texts: the completions of each.
        weights: of the reward parts by name, 0 for those it does not name.
    """

    def of_one(job: tuple[Row, str]) -> Mapping[str, float] | Unverified:
        row, text = job
        try:
            return row.task.score(text, row.episode)
        except Unverified as error:
            return error

    jobs = [(row, text) for row, group in zip(rows, texts, strict=True) for text in group]
    # Threads that wait for verifiers; what needs none takes no time to speak of.
    with ThreadPoolExecutor(MOST_WORKERS) as threads:
        found = list(threads.map(of_one, jobs))
    unverified = Counter(each.kind for each in found if isinstance(each, Unverified))
    known = [None if isinstance(each, Unverified) else each for each in found]
    group = len(texts[0])
    rewards = [np.nan if parts is None else _weighted(parts, weights) for parts in known]
    return Scores(
        parts=[known[start : start + group] for start in range(0, len(known), group)],
        rewards=np.array(rewards, np.float32).reshape(len(rows), group),
        unverified=unverified,
    )


def joined(scores: Sequence[Scores]) -> Scores:
    """Scores of several batches as those of one."""
    return Scores(
        parts=[group for each in scores for group in each.parts],
        rewards=np.concatenate([each.rewards for each in scores]),
        unverified=sum((each.unverified for each in scores), Counter()),
    )


def scored(
    texts: Sequence[str], scores: Scores, row: int, advantages: Float[np.ndarray, " group"]
) -> tuple[SampledCompletion, ...]:
    """The completions of one row with what they earned, to be shown."""
    rewards = [None if np.isnan(reward) else float(reward) for reward in scores.rewards[row]]
    parts = [found or {} for found in scores.parts[row]]
    shown = zip(texts, parts, rewards, map(float, advantages), strict=True)
    return tuple(SampledCompletion(*each) for each in shown)


def without_unscored(rollouts: Rollouts, rewards: Float[Array, "rows group"]) -> Rollouts:
    """The rollouts as if completions without a reward (NaN) had no token: no loss and no mean knows of them."""
    mask = rollouts.completions.mask & ~jnp.isnan(rewards)[..., None]
    return replace(rollouts, completions=replace(rollouts.completions, mask=mask))


def _weighted(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weights.get(name, 0.0) * part for name, part in parts.items())


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
