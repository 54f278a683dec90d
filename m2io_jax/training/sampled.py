"""All that a step of GRPO sampled, whatever became of it: what its metrics are of, and the samples that are shown."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from m2io_jax.parallel.exchange import gathered
from m2io_jax.training.group_sampler import length_metrics
from m2io_jax.training.groups import Group
from m2io_jax.training.logging.samples import SampledGroup
from m2io_jax.training.scoring import Row, Scores, joined, scored


class Sampled:
    """Of this process."""

    def __init__(self):
        self.rows: list[Row] = []
        self.texts: list[Sequence[str]] = []
        self.groups: list[Group] = []
        self.scores: list[Scores] = []
        self.done: list[Mapping[str, float]] = []

    def add(
        self,
        rows: Sequence[Row],
        texts: Sequence[Sequence[str]],
        groups: Sequence[Group],
        scores: Scores,
        done: Mapping[str, float],
    ) -> None:
        """One round of sampling, and what the data side did with it."""
        self.rows += rows
        self.texts += texts
        self.groups += groups
        self.scores.append(scores)
        self.done.append(done)

    def metrics(self, stops: tuple[int, ...]) -> dict[str, float]:
        """Of rewards and lengths, of all processes; of what the data side did, means over rounds."""
        done = means(self.done) | {"rollout/rounds": float(len(self.done))}
        return joined(self.scores).of_all().metrics() | length_metrics(self.groups, stops) | done

    def shown(
        self, count: int, learnt: Sequence[Group], advantages: Float[np.ndarray, "rows group"]
    ) -> list[SampledGroup]:
        """The first of these groups that an update learnt from; not those that another step had sampled.

        Args:
            learnt: all that the update learnt from.
            advantages: what it went by.
        """
        scores, places = joined(self.scores), {id(row.prompt): place for place, row in enumerate(self.rows)}
        found = [
            (places[id(group.prompt)], of_group)
            for group, of_group in zip(learnt, advantages, strict=True)
            if id(group.prompt) in places
        ]
        return [
            SampledGroup(row.task.name, row.episode, scored(self.texts[place], scores, place, of_group))
            for place, of_group in found[:count]
            for row in [self.rows[place]]
        ]


def means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each metric, over all that every process measured."""
    every = [each for process in gathered(list(measured)) for each in process]
    return {name: float(np.mean([each[name] for each in every])) for name in every[0]}
