"""The papers' objectives, token by token, in plain Python and float64; and ragged rollouts to try them on.

Where a paper stops a gradient, `at` is the point that the stopped part is taken at.
"""

import numpy as np

GROUP, TIME = 5, 7


def rollouts(seed=0, rows=3):
    """New, old and reference log-probabilities, advantages, mask: ragged; one completion is empty, one row of
    advantages is 0."""
    generator = np.random.default_rng(seed)
    old = -generator.exponential(size=(rows, GROUP, TIME))
    new, reference = (old + generator.normal(scale=0.4, size=old.shape) for _ in range(2))
    advantages = generator.normal(size=(rows, GROUP))
    advantages[1] = 0
    lengths = generator.integers(1, TIME + 1, size=(rows, GROUP))
    lengths[0, 2], lengths[2, 1] = 0, TIME
    return new, old, reference, advantages, np.arange(TIME) < lengths[..., None]


def between(x, low, high):
    return min(max(x, low), high)


def clip(new, old, advantage, at, *, low, high, dual=None):
    losses = []
    for ratio in np.exp(new - old):
        surrogate = min(ratio * advantage, between(ratio, 1 - low, 1 + high) * advantage)
        if dual and advantage < 0:
            surrogate = max(surrogate, dual * advantage)
        losses.append(-surrogate)
    return losses


def gspo(new, old, advantage, at, *, low, high):
    ratio = (np.prod(np.exp(new)) / np.prod(np.exp(old))) ** (1 / len(new))
    return [-min(ratio * advantage, between(ratio, 1 - low, 1 + high) * advantage)] * len(new)


def gmpo(new, old, advantage, at, *, low, high):
    """As in the paper: absolute values of what GRPO averages, multiplied, their root taken, the sign given back."""
    product = 1.0
    for ratio in np.exp(new - old):
        product *= abs(min(ratio * advantage, between(ratio, np.exp(-low), np.exp(high)) * advantage))
    return [-np.sign(advantage) * product ** (1 / len(new))] * len(new)


def cispo(new, old, advantage, at, *, low, high):
    return [-between(np.exp(a - o), 1 - low, 1 + high) * advantage * n for n, o, a in zip(new, old, at, strict=True)]


def sapo(new, old, advantage, at, *, temperatures):
    tau = temperatures[0] if advantage > 0 else temperatures[1]
    return [-4 / tau / (1 + np.exp(-tau * (ratio - 1))) * advantage for ratio in np.exp(new - old)]


# Each with settings under which some tokens of `rollouts` are clipped on either side and others are not.
LOSSES = {
    "clip": (clip, dict(low=0.2, high=0.28)),
    "clip_dual": (clip, dict(low=0.2, high=0.2, dual=1.3)),
    "gspo": (gspo, dict(low=0.05, high=0.1)),
    "gmpo": (gmpo, dict(low=0.3, high=0.4)),
    "cispo": (cispo, dict(low=0.4, high=0.5)),
    "sapo": (sapo, dict(temperatures=(1.0, 1.05))),
}


def k1(new, reference):
    return new - reference


def k2(new, reference):
    return (new - reference) ** 2 / 2


def k3(new, reference):
    ratio = np.exp(reference - new)
    return ratio - np.log(ratio) - 1


VALUES = {"k1": k1, "k2": k2, "k3": k3, "k1+": k1, "k3+": k3}
GRADIENTS = {"k1": k1, "k2": k2, "k3": k3, "k1+": k2, "k3+": k2}  # whose slope each has


def objective(
    data, name, aggregation, *, at=None, weights=None, kl=None, kl_beta=0.0, entropy=None, entropy_coef=0.0, longest=9
):
    """Sum and denominator of what is minimised."""
    new, old, reference, advantages, mask = data
    at = new if at is None else at
    function, settings = LOSSES[name]
    total, completions, tokens = 0.0, 0, 0
    for where in np.ndindex(advantages.shape):
        real = mask[where]
        count = int(real.sum())
        if not count:
            continue
        losses = function(new[where][real], old[where][real], advantages[where], at[where][real], **settings)
        for t, index in enumerate(np.flatnonzero(real)):
            losses[t] *= 1 if weights is None else weights[where][index]
            losses[t] += kl_beta * kl(new[where][index], reference[where][index]) if kl_beta else 0
            losses[t] -= entropy_coef * entropy[where][index] if entropy_coef else 0
        total += sum(losses) / count if aggregation == "sequence_mean" else sum(losses)
        completions, tokens = completions + 1, tokens + count
    return total, {"sequence_mean": completions, "token_mean": tokens, "constant_length": completions * longest}[
        aggregation
    ]


def slopes(function, point, step=1e-6):
    """Finite differences of a function of an array."""
    found = np.zeros_like(point)
    for where in np.ndindex(point.shape):
        sides = []
        for sign in (1, -1):
            moved = point.copy()
            moved[where] += sign * step
            sides.append(function(moved))
        found[where] = (sides[0] - sides[1]) / (2 * step)
    return found
