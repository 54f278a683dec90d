"""Whether one arm does better than another: on the same episodes, over all seeds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from m2io_jax.evaluation.bootstrap import bootstrap_mean

HOLDS, REVERSED, UNDECIDED = "holds", "the other way round", "not decided"


@dataclass(frozen=True)
class Difference:
    """By how much one arm is above another, in points of 100.

    Attributes:
        mean, low, high: over seeds and episodes, with the 95% bootstrap interval over episodes.
        by_seed: of each seed by itself.
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """What the interval and every seed say alike; else it is not decided. Episodes are many and seeds few: the one
        says nothing of the other's luck."""
        if self.low > 0 and min(self.by_seed) > 0:
            return HOLDS
        if self.high < 0 and max(self.by_seed) < 0:
            return REVERSED
        return UNDECIDED


def difference(
    better: Float[np.ndarray, "seeds episodes"], than: Float[np.ndarray, "seeds episodes"], *, seed: int = 0
) -> Difference:
    """`better` above `than`, shares in [0, 1], paired by episode and by seed. An arm that was made once has one row,
    which stands against every seed of the other; where either is NaN, the pair is left out.

    Raises:
        ValueError: no pair is left for some seed.
    """
    above = 100 * (better - than)
    known = ~np.isnan(above)
    if not known.any(axis=1).all():
        raise ValueError("there is no pair of episodes to compare")
    by_seed = tuple(float(row[kept].mean()) for row, kept in zip(above, known, strict=True))
    paired = np.nansum(above, axis=0)[known.any(axis=0)] / known.sum(axis=0)[known.any(axis=0)]
    interval = bootstrap_mean(paired, seed=seed)
    return Difference(interval.mean, interval.low, interval.high, by_seed)
