"""Selective sample replay (VL-Rethinker, arXiv 2504.08837): what had an advantage is learnt from again."""

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float

T = TypeVar("T")


def replay_probabilities(strengths: Float[np.ndarray, " size"], alpha: float) -> Float[np.ndarray, " size"]:
    """Of being drawn: `|A_i|**alpha / sum_j |A_j|**alpha`.

    Args:
        strengths: |A|, the size of each one's advantages; above 0.
        alpha: 0 draws all alike.
    """
    powers = np.asarray(strengths, np.float64) ** alpha
    return powers / powers.sum()


class ReplayBuffer(Generic[T]):
    """The last `size` of what was added, first in, first out; drawing leaves it as it is."""

    def __init__(self, size: int):
        self._kept: deque[tuple[T, float]] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def items(self) -> list[T]:
        """Oldest first."""
        return [item for item, _ in self._kept]

    def add(self, items: Iterable[tuple[T, float]]) -> None:
        """Each with the size of its advantages; those of 0 are not kept."""
        self._kept.extend((item, strength) for item, strength in items if strength > 0)

    def draw(self, count: int, alpha: float, random: np.random.Generator) -> list[T]:
        """`count` different ones, or all where there are fewer, in the order of their arrival."""
        count = min(count, len(self._kept))
        if not count:
            return []
        chances = replay_probabilities(np.array([strength for _, strength in self._kept]), alpha)
        chosen = random.choice(len(self._kept), size=count, replace=False, p=chances)
        return [self._kept[index][0] for index in sorted(chosen)]
