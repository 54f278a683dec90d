"""The rollout buffer: which prompts are sampled, and which of their groups an update learns from (docs/data.md).

It puts the configured methods of `rl/data` in order, each a file of its own, and keeps what later steps need: groups
sampled ahead of their update (off-policy by `rollout.ahead` steps), groups to replay, and the methods' own state.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from m2io_jax.config import RunConfig
from m2io_jax.episodes.pipeline import RowIterator
from m2io_jax.errors import UserError
from m2io_jax.parallel.sharding import local_count
from m2io_jax.rl.data import METHODS
from m2io_jax.rl.data.method import Metrics, Scored
from m2io_jax.rl.data.replay import ReplayBuffer
from m2io_jax.rl.rewards import Row, Scores
from m2io_jax.rl.rollout import Group, stack_groups, unstack_groups
from m2io_jax.tasks import find_task


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BufferArrays:
    """The buffer's groups as a checkpoint keeps them: arrays whose shapes never change.

    Attributes:
        groups: stacked: those waiting for an update, then those to replay, then padding.
        waiting: the number of groups in each waiting batch, next one first; -1 where there is no batch.
        replay: the number of groups to replay.
    """

    groups: Group
    waiting: np.ndarray
    replay: np.ndarray


class RolloutBuffer:
    """The groups between sampling and the update. `require_supported` has checked the configuration.

    Attributes:
        waiting: batches of groups that no update has learnt from yet, next one first.

    Args:
        padding: the group that fills an update for which groups are missing.
    """

    def __init__(self, config: RunConfig, padding: Group):
        self.config, self.padding, self._room = config, padding, local_count(config.batch.prompts)
        self.methods = {name: METHODS[name](given) for name in METHODS if (given := getattr(config.data, name))}
        self.replay = ReplayBuffer[Group](config.data.replay.size) if config.data.replay else None
        self.waiting: list[list[Group]] = []
        self.rounds = config.data.filter.rounds if config.data.filter else 1  # most rounds of sampling in a step
        self._outcomes = config.data.outcome if config.data.judges else ()
        self._advantage = "none" if "single" in self.methods else config.grpo.advantage

    def next_prompts(self, rows: RowIterator[Row], count: int) -> list[Row]:
        """Take this process's part of the next `count` prompts that every method admits."""
        found, count = list[Row](), local_count(count)
        while len(found) < count:
            row = next(rows)
            if all(method.admits(_key(row)) for method in self.methods.values()):
                found.append(row)
        return found

    def apply_filters(
        self, rows: Sequence[Row], groups: Sequence[Group], scores: Scores
    ) -> tuple[list[Group], Metrics]:
        """Return the groups that the methods keep, with rewards, weights and signals filled in, and what was done."""
        scored, metrics = self._scored(rows, groups, scores), {}
        for method in self.methods.values():
            scored, done = method.scored(scored)
            metrics |= done
        signals = signal(scored.rewards, self._advantage) * scored.weights
        kept = []
        for row in np.flatnonzero(scored.kept):
            rewards, weight = scored.rewards[row].astype(np.float32), np.float32(scored.weights[row])
            kept.append(replace(groups[row], rewards=rewards, weight=weight, signal=np.float32(signals[row])))
        return kept, metrics

    def missing(self, groups: Sequence[Group]) -> int:
        """Return how many groups an update would be short of."""
        return max(0, self._room - len(groups))

    def enqueue(self, groups: Sequence[Group]) -> None:
        """Add a batch for a later update: the groups with most signal, as many as an update takes."""
        chosen = strongest(np.array([group.signal for group in groups]), self._room)
        self.waiting.append([groups[index] for index in chosen])

    def next_batch(self, step: int) -> tuple[list[Group], Metrics]:
        """Return the groups that the step's update learns from, filled up with padding, and their metrics."""
        fresh, replayed, room, metrics = self.waiting.pop(0), [], self._room, {}
        if self.replay is not None:
            settings = self.config.data.replay
            random = np.random.default_rng((self.config.seed, step))
            replayed = self.replay.draw(round(settings.share * room), settings.alpha, random)
            self.replay.add((group, float(group.signal)) for group in fresh)
            metrics = {"data/replay/groups": float(len(replayed)), "data/replay/buffer": float(len(self.replay))}
        chosen = strongest(np.array([group.signal for group in fresh]), room - len(replayed))
        groups = [fresh[index] for index in chosen] + replayed
        staleness = [step - int(group.step) for group in groups] or [0]
        metrics |= {"rollout/staleness/mean": float(np.mean(staleness)), "rollout/staleness/max": float(max(staleness))}
        metrics["data/missing"] = float(room - len(groups))
        return groups + [self.padding] * (room - len(groups)), metrics

    def learned(self, metrics: Metrics) -> None:
        """Tell the methods what the update measured."""
        for method in self.methods.values():
            method.learned(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return the methods' state as JSON values; a copy, since a checkpoint is written while the next step runs."""
        return {name: deepcopy(method.memory) for name, method in self.methods.items()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, memory in saved.items():
            self.methods[name].memory = memory

    def arrays(self) -> BufferArrays | None:
        """Return the groups that later steps learn from; None where the configuration keeps none."""
        ahead, settings = self.config.rollout.ahead, self.config.data.replay
        if not ahead and settings is None:
            return None
        kept = self.replay.items if self.replay is not None else []
        groups = [group for batch in self.waiting for group in batch] + kept
        room = ahead * self._room + (settings.size if settings else 0)
        waiting = [len(batch) for batch in self.waiting] + [-1] * (ahead - len(self.waiting))
        filled = stack_groups(groups + [self.padding] * (room - len(groups)))
        return BufferArrays(filled, np.array(waiting, np.int32), np.array(len(kept), np.int32))

    def load_arrays(self, saved: BufferArrays) -> None:
        """Restore what `arrays` returned."""
        counts = [int(count) for count in saved.waiting if count >= 0]
        groups = unstack_groups(saved.groups, sum(counts) + int(saved.replay))
        self.waiting = [[groups.pop(0) for _ in range(count)] for count in counts]
        if self.replay is not None:
            self.replay.add((group, float(group.signal)) for group in groups)

    def _scored(self, rows: Sequence[Row], groups: Sequence[Group], scores: Scores) -> Scored:
        rewards = scores.rewards.astype(np.float64)
        outcomes = np.full(rewards.shape, np.nan)
        if self._outcomes:
            outcomes = np.array([[_outcome(parts, self._outcomes) for parts in group] for group in scores.parts])
        largest = [sum(self.config.rewards.get(part, 0.0) for part in row.task.rewards) or 1.0 for row in rows]
        return Scored(
            keys=tuple(_key(row) for row in rows) if self.methods else (),
            rewards=rewards,
            outcomes=outcomes,
            lengths=np.array([group.mask.sum(-1) for group in groups], np.float64),
            largest=np.array(largest),
            weights=np.ones(len(groups)),
            kept=np.ones(len(groups), bool),
        )


def signal(rewards: Float[np.ndarray, "rows group"], advantage: str = "group") -> Float[np.ndarray, " rows"]:
    """Compute how much there is to learn from each group: the root mean square of its advantages before scaling.

    Where advantages are relative to the group, this is the standard deviation of its rewards. NaN (not scored) is left
    out.

    Args:
        advantage: name in `ADVANTAGES`: `batch` compares with the mean of all rewards, `none` takes them as they are.
    """
    given = np.ma.masked_invalid(rewards.astype(np.float64))
    if advantage != "none":
        axis = None if advantage == "batch" else 1
        equal = given.max(axis, keepdims=True) == given.min(axis, keepdims=True)
        given = np.ma.where(equal, 0.0, given - given.mean(axis, keepdims=True))  # rounding of the mean is no signal
    return np.sqrt((given**2).mean(axis=1)).filled(0)


def strongest(signals: Float[np.ndarray, " rows"], keep: int) -> Int[np.ndarray, " keep"]:
    """Return the indices of the groups with most signal, at most `keep`, in the order of the batch.

    A group whose rewards are all equal has no advantage to learn from: it was sampled, but need not be trained on
    (dynamic sampling of DAPO, arXiv 2503.14476, 3.2, at a fixed cost; by largest variance as in arXiv 2504.13818, here
    over groups).
    """
    return np.sort(np.argsort(-signals, kind="stable")[:keep]).astype(np.int32)


def require_supported(config: RunConfig) -> None:
    """Check that the tasks and the number of processes suit the configured methods.

    Raises:
        UserError: if a method needs to know whether completions are right and a task has no reward part that says so,
            or if several processes would have to share groups that are kept for later steps.
    """
    for task in filter(config.tasks.get, config.tasks if config.data.judges else ()):
        parts = find_task(task).rewards
        if not set(parts) & set(config.data.outcome):
            what = f"No reward part of the task `{task}` says whether a completion is right."
            raise UserError(what, where="data.outcome", mend=f"name one of these: {', '.join(parts)}")
    if jax.process_count() > 1 and (config.data.remembers or config.rollout.ahead):
        mend = "leave out data.history, data.replay, data.single and rollout.ahead, or run in one"
        raise UserError("What these methods keep is not shared by several processes.", where="data", mend=mend)


def _key(row: Row) -> str:
    return f"{row.task.name}: {row.episode.id}"


def _outcome(parts, names: Sequence[str]) -> float:
    return np.nan if parts is None else float(np.mean([parts[name] for name in names if name in parts]))
