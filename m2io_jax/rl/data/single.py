"""One rollout a prompt (MSSR, arXiv 2512.18215): its past visits are the baseline that a group would be.

Of every prompt there are two numbers, a and b, of a Beta distribution: as if a visits had been right and b wrong. What
is expected of it is a/(a + b) of the largest reward (single-stream policy optimisation, arXiv 2509.13232, eq. 5 to 7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from m2io_jax.rl.data.method import Method, Metrics, Scored, mean_of_scored

WINDOW = 10  # steps whose KL counts


def started(start: float, decay_min: float) -> tuple[float, float]:
    """(a, b) before the first visit, of 1/(1 - decay_min) visits: as many as the shortest memory holds."""
    visits = 1 / (1 - decay_min)
    return visits * start, visits * (1 - start)


def visited(a: float, b: float, right: float, decay: float) -> tuple[float, float]:
    """(a, b) after a visit: `decay * a + right`, `decay * b + 1 - right`. `right`: 0 to 1."""
    return decay * a + right, decay * b + (1 - right)


def decay(kls: Sequence[float], *, target: float, low: float, high: float) -> float:
    """How much of the past is kept, from the KL (nats a token) of recent steps, k on the mean of the last ten:

        (low + high)/2                    before the first
        low + (high - low) k/target       up to the target
        low                               above it

    This is what the authors' code computes. It jumps at the target, from `high` to `low`, and keeps less, not more, the
    nearer the KL is to 0.
    """
    if not kls:
        return (low + high) / 2
    mean = float(np.mean(kls[-WINDOW:]))
    return low if mean > target else max(low, low + (high - low) * mean / target)


class Single(Method):
    """Takes from every reward what was expected of its prompt, then lets the prompt's completions count as a visit."""

    def __init__(self, settings):
        super().__init__(settings)
        self.memory = {"prompts": {}, "kl": []}

    def scored(self, groups: Scored) -> tuple[Scored, Metrics]:
        settings, prompts = self.settings, self.memory["prompts"]
        keep = decay(self.memory["kl"], target=settings.kl_target, low=settings.decay_min, high=settings.decay_max)
        right = np.clip(mean_of_scored(groups.rewards) / groups.largest, 0, 1)
        expected = np.zeros(len(groups.keys))
        for row, key in enumerate(groups.keys):
            a, b = prompts.get(key) or started(settings.start, settings.decay_min)
            expected[row] = a / (a + b)
            if not np.isnan(right[row]):
                prompts[key] = list(visited(a, b, float(right[row]), keep))
        rewards = groups.rewards - (expected * groups.largest)[:, None]
        done = {
            "data/single/expected": float(expected.mean()),
            "data/single/decay": keep,
            "data/single/prompts": float(len(prompts)),
        }
        return replace(groups, rewards=rewards), done

    def learned(self, metrics: Mapping[str, float]) -> None:
        if "kl" in metrics:  # there is none without a reference
            self.memory["kl"] = [*self.memory["kl"], float(metrics["kl"])][-WINDOW:]
