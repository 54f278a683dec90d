"""Labels made imperfect on purpose, as those of real documents are: pictures missing or out of place."""

import hashlib
from collections.abc import Sequence

import numpy as np

from m2io_jax.episodes.episode import Placement


def seeded(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and the names alone, so a row's draws do not change with its neighbours."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def imperfect(
    gold: Sequence[Placement], sentences: int, *, drop: float, move: float, random: np.random.Generator
) -> tuple[Placement, ...]:
    """Drop or move each gold placement independently.

    Args:
        gold: exact placements.
        sentences: how many sentences the answer has; there is one slot more than that.
        drop: probability that a placement is left out.
        move: probability that it moves, to any other slot with equal chance.
        random: the row's own generator (`seeded`).

    Returns:
        Placements ordered by slot.
    """
    kept = []
    for placement in gold:
        fate = random.random()
        elsewhere = int(random.integers(sentences)) if sentences else 0
        if fate < drop:
            continue
        if fate < drop + move and sentences:
            slot = elsewhere + (elsewhere >= placement.slot)
            placement = Placement(slot=slot, picture=placement.picture)
        kept.append(placement)
    return tuple(sorted(kept, key=lambda placement: placement.slot))
