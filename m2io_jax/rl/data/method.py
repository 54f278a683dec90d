"""What a data-side method is given, and what it may do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Metrics = dict[str, float]


@dataclass(frozen=True)
class Scored:
    """Groups that were sampled and scored, a row each.

    Attributes:
        keys: name the prompts, the same ones at every visit.
        rewards: of the completions; NaN where one could not be scored.
        outcomes: how right they are, 0 to 1, whatever else is rewarded; NaN as there.
        lengths: tokens.
        largest: the reward that a completion without fault has.
        weights: what advantages are multiplied with.
        kept: which groups may be learnt from.
    """

    keys: tuple[str, ...]
    rewards: Float[np.ndarray, "rows group"]
    outcomes: Float[np.ndarray, "rows group"]
    lengths: Float[np.ndarray, "rows group"]
    largest: Float[np.ndarray, " rows"]
    weights: Float[np.ndarray, " rows"]
    kept: Bool[np.ndarray, " rows"]


class Method:
    """One that does nothing; methods override what they do.

    What it keeps from one step to the next is JSON values in `memory`, which are in the checkpoint.
    """

    def __init__(self, settings: Any):
        self.settings = settings
        self.memory: dict[str, Any] = {}

    def admits(self, key: str) -> bool:
        """Whether a prompt that the data offers is sampled."""
        return True

    def scored(self, groups: Scored) -> tuple[Scored, Metrics]:
        """The groups as the next method is to see them, and what was done to them, by name."""
        return groups, {}

    def learned(self, metrics: Mapping[str, float]) -> None:
        """Is told what an update measured."""


def mean_of_scored(values: Float[np.ndarray, "rows group"]) -> Float[np.ndarray, " rows"]:
    """Of each group, over what is not NaN; NaN where all is."""
    scored = ~np.isnan(values)
    total = np.where(scored, values, 0.0).sum(axis=1)
    return np.where(scored.any(axis=1), total / np.maximum(scored.sum(axis=1), 1), np.nan)
