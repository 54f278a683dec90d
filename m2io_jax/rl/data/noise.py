"""Noise on the pictures that half of a group is sampled from (NoisyRollout, arXiv 2504.13055)."""

from math import exp

import numpy as np
from jaxtyping import Float

STEPS = 1000
# Variances of the forward diffusion: a sigmoid from 1e-5 to 5e-3.
_BETAS = 1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-np.linspace(-6, 6, STEPS)))
_KEPT = np.cumprod(1 - _BETAS)


def noise_step(progress: float, *, steps: int, steepness: float, middle: float) -> int:
    """The diffusion step at `progress` (0 to 1) of the run:

        int(steps * (1 - sigmoid(steepness * (progress - middle))))

    `steps` at first, half of it at `middle`, then towards 0.
    """
    return int(steps * (1 - 1 / (1 + exp(-steepness * (progress - middle)))))


def diffused(pixels: Float[np.ndarray, "*any"], step: int, random: np.random.Generator) -> Float[np.ndarray, "*any"]:
    """`sqrt(k) x + sqrt(1 - k) z` with normal z, clipped to what a pixel can be; k is the product of 1 - beta up to
    `step`, which counts from 0.

    Args:
        pixels: 0 to 1.
    """
    kept = _KEPT[step]
    return np.clip(np.sqrt(kept) * pixels + np.sqrt(1 - kept) * random.standard_normal(pixels.shape), 0.0, 1.0)
