"""Online difficulty filter: groups that are too easy or too hard teach little and are dropped."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from m2io_jax.rl.data.method import Method, Metrics, Scored, mean_of_scored


def within(outcomes: Float[np.ndarray, "rows group"], low: float, high: float) -> Bool[np.ndarray, " rows"]:
    """Which groups have a mean outcome of `low` to `high`, both included. One of which nothing was scored has not.

    With bounds just inside of 0 and 1 this is DAPO's 0 < number of right ones < G (arXiv 2503.14476, eq. 11); MM-Eureka
    (arXiv 2503.07365) takes 0.1 to 0.9. It goes by the outcome: a reward that is shaped, say by length, differs inside
    groups of which every completion is wrong.
    """
    mean = mean_of_scored(outcomes)
    return (mean >= low) & (mean <= high)  # both are false of NaN


class Filter(Method):
    """Drops groups out of bounds."""

    def scored(self, groups: Scored) -> tuple[Scored, Metrics]:
        mean = mean_of_scored(groups.outcomes)
        kept = within(groups.outcomes, self.settings.low, self.settings.high)
        dropped = {
            "data/filter/dropped_low": float((groups.kept & (mean < self.settings.low)).sum()),
            "data/filter/dropped_high": float((groups.kept & (mean > self.settings.high)).sum()),
        }
        return replace(groups, kept=groups.kept & kept), dropped
