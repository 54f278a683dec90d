"""Which prompts are sampled, and which of their groups an update learns from: the methods of the section `data` at work
(docs/data.md). Each of them is a file of `rl/data`; here they are only put in order."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from m2io_jax.config import RunConfig
from m2io_jax.episodes.pipeline import RowIterator
from m2io_jax.errors import UserError
from m2io_jax.parallel.sharding import local_count
from m2io_jax.rl.data import METHODS
from m2io_jax.rl.data.method import Metrics, Scored
from m2io_jax.rl.data.replay import ReplayBuffer
from m2io_jax.rl.selection import signal, strongest
from m2io_jax.tasks import find_task
from m2io_jax.training.groups import Group, stack_groups, unstack_groups
from m2io_jax.training.scoring import Row, Scores


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Carried:
    """Groups that later steps learn from, in arrays whose shapes never change: what of them the checkpoint has.

    Attributes:
        groups: stacked; those that wait, then those to replay, then blank ones.
        waiting: how many of them are of each batch that waits, next one first; -1 where there is none.
        replay: how many are to be replayed.
    """

    groups: Group
    waiting: np.ndarray
    replay: np.ndarray


class DataSide:
    """The configured methods, which `require_suited` has let pass, and the groups that wait or may be replayed.

    Attributes:
        waiting: batches of groups that no update has learnt from yet, next one first.

    Args:
        blank: a group that teaches nothing; it fills an update that groups are missing for.
    """

    def __init__(self, config: RunConfig, blank: Group):
        self.config, self.blank, self._room = config, blank, local_count(config.batch.prompts)
        self.methods = {name: METHODS[name](given) for name in METHODS if (given := getattr(config.data, name))}
        self.buffer = ReplayBuffer[Group](config.data.replay.size) if config.data.replay else None
        self.waiting: list[list[Group]] = []

    @property
    def memory(self) -> dict[str, Any]:
        """What the methods keep, as JSON values; a copy: a checkpoint is written while the next step changes it."""
        return {name: deepcopy(method.memory) for name, method in self.methods.items()}

    @memory.setter
    def memory(self, saved: dict[str, Any]) -> None:
        for name, memory in saved.items():
            self.methods[name].memory = memory

    @property
    def rounds(self) -> int:
        """How often a step samples at most."""
        return self.config.data.filter.rounds if self.config.data.filter else 1

    def admitted(self, rows: RowIterator[Row], count: int) -> list[Row]:
        """This process's part of the next `count` rows that every method admits."""
        found: list[Row] = []
        while len(found) < local_count(count):
            row = next(rows)
            if all(method.admits(_key(row)) for method in self.methods.values()):
                found.append(row)
        return found

    def judged(self, rows: Sequence[Row], groups: Sequence[Group], scores: Scores) -> tuple[list[Group], Metrics]:
        """The groups with their rewards, weighed and without those that are dropped; and what was done, by name."""
        scored, metrics = self._scored(rows, groups, scores), {}
        for method in self.methods.values():
            scored, done = method.scored(scored)
            metrics |= done
        advantage = "none" if "single" in self.methods else self.config.grpo.advantage
        signals = signal(scored.rewards, advantage) * scored.weights
        kept = []
        for row in np.flatnonzero(scored.kept):
            rewards, weight = scored.rewards[row].astype(np.float32), np.float32(scored.weights[row])
            kept.append(replace(groups[row], rewards=rewards, weight=weight, signal=np.float32(signals[row])))
        return kept, metrics

    def missing(self, groups: Sequence[Group]) -> int:
        """How many groups an update would be short of."""
        return max(0, self._room - len(groups))

    def wait(self, groups: Sequence[Group]) -> None:
        """Puts groups behind those that wait: those with most signal, as many as an update takes."""
        chosen = strongest(np.array([group.signal for group in groups]), self._room)
        self.waiting.append([groups[index] for index in chosen])

    def next_batch(self, step: int) -> tuple[list[Group], Metrics]:
        """The groups that the step's update learns from, and what they are."""
        fresh, replayed, room, metrics = self.waiting.pop(0), [], self._room, {}
        if self.buffer is not None:
            settings = self.config.data.replay
            random = np.random.default_rng((self.config.seed, step))
            replayed = self.buffer.draw(round(settings.share * room), settings.alpha, random)
            self.buffer.add((group, float(group.signal)) for group in fresh)
            metrics = {"data/replay/groups": float(len(replayed)), "data/replay/buffer": float(len(self.buffer))}
        chosen = strongest(np.array([group.signal for group in fresh]), room - len(replayed))
        groups = [fresh[index] for index in chosen] + replayed
        ages = [step - int(group.step) for group in groups] or [0]
        metrics |= {"rollout/staleness/mean": float(np.mean(ages)), "rollout/staleness/max": float(max(ages))}
        metrics["data/missing"] = float(room - len(groups))
        return groups + [self.blank] * (room - len(groups)), metrics

    def learned(self, metrics: Metrics) -> None:
        """Tells the methods what the update measured."""
        for method in self.methods.values():
            method.learned(metrics)

    def carried(self) -> Carried | None:
        """The groups that later steps learn from; None where the configuration carries none."""
        ahead, replay = self.config.rollout.ahead, self.config.data.replay
        if not ahead and replay is None:
            return None
        kept = self.buffer.items if self.buffer is not None else []
        groups = [group for batch in self.waiting for group in batch] + kept
        room = ahead * self._room + (replay.size if replay else 0)
        waiting = [len(batch) for batch in self.waiting] + [-1] * (ahead - len(self.waiting))
        filled = stack_groups(groups + [self.blank] * (room - len(groups)))
        return Carried(filled, np.array(waiting, np.int32), np.array(len(kept), np.int32))

    def carry(self, saved: Carried) -> None:
        """Goes on with the groups of a checkpoint."""
        counts = [int(count) for count in saved.waiting if count >= 0]
        groups = unstack_groups(saved.groups, sum(counts) + int(saved.replay))
        self.waiting = [[groups.pop(0) for _ in range(count)] for count in counts]
        if self.buffer is not None:
            self.buffer.add((group, float(group.signal)) for group in groups)

    def _scored(self, rows: Sequence[Row], groups: Sequence[Group], scores: Scores) -> Scored:
        rewards = scores.rewards.astype(np.float64)
        outcomes = np.full(rewards.shape, np.nan)
        if self.config.data.judges:
            names = self.config.data.outcome
            outcomes = np.array([[_outcome(parts, names) for parts in group] for group in scores.parts])
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


def require_suited(config: RunConfig) -> None:
    """Raises UserError: a method asks whether completions are right, and a task has no reward part that says so; or
    groups are carried on, and there are several processes."""
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
