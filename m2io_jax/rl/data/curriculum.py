"""PCuRL (VL-Cogito, arXiv 2507.22607): groups weigh by how hard they were, and wrong answers have a length to reach."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from m2io_jax.rl.data.method import Method, Metrics, Scored, mean_of_scored

PENALTY = 0.5  # the most that a length takes from a reward, before its weight


def difficulty_weights(accuracy: Float[np.ndarray, " rows"], difficulty: str) -> Float[np.ndarray, " rows"]:
    """What a group's advantages are multiplied with, by its share of right completions; c = cos(pi
    (accuracy - 1/2)), which is 1 at one half and 0 at 0 and 1:

                accuracy 0    to 1/2    above
        easy        0            c        1
        medium      0            c        c
        hard       1/4           1        c

    Raises:
        ValueError: another difficulty.
    """
    cosine = np.cos(np.pi * (accuracy - 0.5))
    by_half = {"easy": (0.0, cosine, 1.0), "medium": (0.0, cosine, cosine), "hard": (0.25, 1.0, cosine)}
    if difficulty not in by_half:
        raise ValueError(f"no difficulty is called {difficulty!r}: {', '.join(by_half)}")
    none, below, above = by_half[difficulty]
    return np.where(accuracy == 0, none, np.where(accuracy > 0.5, above, below))


def length_rewards(
    lengths: Float[np.ndarray, "rows group"], outcomes: Float[np.ndarray, "rows group"], *, target: float, limit: float
) -> Float[np.ndarray, "rows group"]:
    """What a length adds to the reward of a completion that is not right, from -1/2 to 0:

        -1/4 (1 + cos(pi length/aim))

    which is 0 at the aim. Where some of the group are right, that is their mean length, and twice it and more earns
    -1/2. Where none is, it is `target`: from there to `limit` earns 0, and from `limit` on -1/2.

    Args:
        lengths, target, limit: tokens.
        outcomes: 1 is right; NaN, of what was not scored, is neither right nor wrong, and earns 0.
    """
    right = outcomes >= 1
    some = right.any(axis=1, keepdims=True)
    mean = np.where(right, lengths, 0.0).sum(axis=1, keepdims=True) / np.maximum(right.sum(axis=1, keepdims=True), 1)
    aim = np.where(some, mean, float(target))
    wave = -PENALTY / 2 * (1 + np.cos(np.pi * lengths / aim))
    by_group = np.where(lengths >= 2 * aim, -PENALTY, wave)
    by_target = np.where(lengths >= limit, -PENALTY, np.where(lengths >= aim, 0.0, wave))
    return np.where(right | np.isnan(outcomes), 0.0, np.where(some, by_group, by_target))


class Curriculum(Method):
    """Weighs groups and, where it is asked to, adds to rewards by length."""

    def scored(self, groups: Scored) -> tuple[Scored, Metrics]:
        settings, accuracy = self.settings, mean_of_scored(groups.outcomes)
        weights = np.where(np.isnan(accuracy), 0.0, difficulty_weights(accuracy, settings.difficulty))
        groups = replace(groups, weights=groups.weights * weights)
        done = {"data/curriculum/weight": float(weights.mean())}
        if settings.length_weight:
            bounds = dict(target=settings.length_target, limit=settings.length_limit)
            added = settings.length_weight * length_rewards(groups.lengths, groups.outcomes, **bounds)
            groups = replace(groups, rewards=groups.rewards + added)
            done["data/curriculum/length_reward"] = float(added.mean())
        return groups, done
