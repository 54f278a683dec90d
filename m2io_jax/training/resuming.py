"""What makes a run's next step: all that is in its checkpoints, and how it goes on from them."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from m2io_jax.config import RunConfig, require_resumable
from m2io_jax.episodes.dataset import EpisodeSource, open_episodes
from m2io_jax.episodes.pipeline import RowIterator
from m2io_jax.errors import UserError, unknown_name
from m2io_jax.models.policy import fingerprint
from m2io_jax.parallel.exchange import gathered, is_first, wait_for_all
from m2io_jax.progress import fraction_done
from m2io_jax.training.checkpoints import Checkpoints
from m2io_jax.training.state import TrainState
from m2io_jax.training.trainer import Trainer


class Saves:
    """A run's checkpoints, as the run writes them and goes on from them.

    Attributes:
        best: what the best are chosen by.

    Args:
        begun_with: `fingerprints(config)`, of before anything was read.
    """

    def __init__(
        self,
        config: RunConfig,
        checkpoints: Checkpoints,
        trainer: Trainer,
        rows: RowIterator,
        begun_with: Mapping[str, Any],
    ):
        self.config, self._checkpoints, self._trainer, self._rows = config, checkpoints, trainer, rows
        self._begun_with, self.best = begun_with, BestBy(config)

    def save(self, step: int, state: TrainState, elapsed: float) -> None:
        """Begins to write everything that makes the next step."""
        carried, data = self._trainer.state_dict(), self._rows.get_state() | {"dropped": dropped_by_all(self._rows)}
        extra = {"resume_key": self.config.resume_key(), "seconds": elapsed, "memory": carried.values, "data": data}
        given = (step, state, extra | self._begun_with)
        self._checkpoints.save(*given, rollouts=carried.arrays, measured=self.best.take())

    def wait(self) -> None:
        """Returns when what was saved last is complete."""
        self._checkpoints.wait()

    def resume(self, params: nnx.State) -> tuple[TrainState, float]:
        """Restore the newest checkpoint: trainer, data and state; where there is none, begin with these weights.

        Returns:
            The state, and the seconds trained so far.

        Raises:
            UserError: it is of a run with other settings, from other weights or on other episodes; or it cannot be
                read.
        """
        checkpoints, trainer, rows = self._checkpoints, self._trainer, self._rows
        newest = gathered(checkpoints.latest())[0]
        if newest is None:
            return trainer.init_state(params), 0.0
        saved = checkpoints.extra(newest)
        require_resumable(saved["resume_key"], self.config)
        if progress_of(self.config, newest, saved["seconds"]) < 1:
            self._require_unchanged(saved)
        state, extra = checkpoints.restore(newest, trainer.abstract_state())
        # What all dropped together is counted on by one of them, however many they are now.
        rows.set_state(extra["data"] if is_first() else extra["data"] | {"dropped": {}})
        carried = trainer.state_dict()
        arrays = None if carried.arrays is None else checkpoints.rollouts(newest, carried.arrays)
        trainer.load_state_dict(carried.values | extra.get("memory", {}), arrays)  # old checkpoints have no memory
        return state, extra["seconds"]

    def _require_unchanged(self, saved: Mapping[str, Any]) -> None:
        """Raises UserError: what a run reads again when it goes on is not what it was. Older checkpoints do not say."""
        config, mend = self.config, "put them back, or give another directory with run=..."
        # What is not trained, and the reference, are loaded from there again.
        goes_by_start = self._trainer.reference is not None or bool(jax.tree.leaves(self._trainer.frozen))
        if goes_by_start and saved.get("start", now := self._begun_with["start"]) != now:
            what = "The weights that the run started from have changed since, and it goes by them still."
            raise UserError(what, where=config.init, mend=mend)
        for task, now in self._begun_with["episodes"].items():
            if saved.get("episodes", {}).get(task, now) != now:
                what = f"The episodes of the task `{task}` have changed since the run began: it would lose its place."
                raise UserError(what, where=str(config.episodes_of(task)), mend=mend)


def fingerprints(config: RunConfig) -> dict[str, Any]:
    """Of the weights that a run starts from, and of the episodes of its tasks; the same in every process.

    Raises:
        UserError: as `open_episodes`; or the processes, each on its own host, find different files.
    """
    opened = [(source.fingerprint(), tasks) for source, tasks in open_sources(config)]
    found = {"start": fingerprint(config.init), "episodes": {task: of for of, tasks in opened for task in tasks}}
    of_tasks = {str(config.episodes_of(task)): of for task, of in found["episodes"].items()}
    places = {config.init: found["start"]} | of_tasks
    wait_for_all(f"files of {config.run}")  # one host may be slower than what first joins processes waits
    every = gathered(places)
    if differ := [place for place, of in places.items() if any(each.get(place) != of for each in every)]:
        mend = "give every host the same files, best on a disk that all see"
        raise UserError("Not every process finds the same files here.", where=", ".join(differ), mend=mend)
    return found


def open_sources(config: RunConfig) -> list[tuple[EpisodeSource, dict[str, float]]]:
    """Each folder's episodes once, with the weights of the tasks that they are for."""
    folders: dict[Path, dict[str, float]] = {}
    for task, weight in config.tasks.items():
        if weight:
            folders.setdefault(config.episodes_of(task), {})[task] = weight
    return [(open_episodes(folder, "train"), tasks) for folder, tasks in folders.items()]


def dropped_by_all(rows: RowIterator) -> Counter[str]:
    """Rows left out so far by all processes, by reason."""
    return sum((Counter(each) for each in gathered(rows.dropped)), Counter())


def progress_of(config: RunConfig, step: int, seconds: float) -> float:
    """How much of the run is done, 0 to 1: by steps or by seconds, whichever is further."""
    return fraction_done(step, config.steps, seconds, config.seconds)


class BestBy:
    """What the best checkpoints are chosen by: the mean of a metric over the steps since the one before, since single
    steps differ by chance."""

    def __init__(self, config: RunConfig):
        self._name, self._since = config.checkpoint.best_by, list[float]()
        parts = [f"rewards/{part}/{of}" for part in config.rewards for of in ("mean", "std")]
        self._known = self._name in (None, *parts)  # a step has those of its own tasks alone

    def note(self, metrics: Mapping[str, float]) -> None:
        """Raises UserError: there is no such metric."""
        if self._name in metrics:
            self._known = True
            self._since.append(float(metrics[self._name]))
        elif not self._known:
            raise unknown_name("checkpoint.best_by", self._name, metrics)

    def take(self) -> float | None:
        """The mean, which begins anew; None where there is none, or no number."""
        mean = sum(self._since) / len(self._since) if self._since else math.nan
        self._since = []
        return mean if math.isfinite(mean) else None
