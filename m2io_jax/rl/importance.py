"""Weights for rollouts that came from another distribution than the trainer's: sampled by older weights, by quantised
ones, or by other code.

The trust region is then around the trainer's own log-probabilities before its updates, and the difference between
those and the sampler's is made up for by a weight on each token's loss, through which no gradient flows. In the field's
words these are the three policies of decoupled PPO (arXiv 2110.00641): behaviour, proximal and current.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from m2io_jax.rl.kl import log_ratio

Correction = Literal["truncate", "mask"]


def importance_ratio(
    own_log_probs: Float[Array, "*any"], rollout_log_probs: Float[Array, "*any"]
) -> Float[Array, "*any"]:
    """The trainer's probability of each token over the sampler's, before any correction."""
    return jax.lax.stop_gradient(jnp.exp(log_ratio(own_log_probs, rollout_log_probs)))


def importance_weights(
    ratio: Float[Array, "*any"], how: Correction, *, low: float, high: float
) -> Float[Array, "*any"]:
    """The weight of each token's loss. Tokens of weight 0 still count in the denominator. Of `gspo` and `gmpo`, whose
    tokens share their completion's loss, it is the mean weight of a completion that counts.

        truncate    min(ratio, high)                              TIS (F. Yao et al., 2025; V-trace, arXiv 1802.01561)
        mask        ratio where low <= ratio <= high, else 0      MIS, IcePop (Ling Team, 2025)

    Args:
        low, high: bounds of the ratio; `truncate` reads `high` alone.

    Raises:
        ValueError: an unknown way.
    """
    if how == "truncate":
        return jnp.minimum(ratio, high)
    if how == "mask":
        return jnp.where((low <= ratio) & (ratio <= high), ratio, 0.0)
    raise ValueError(f"no correction is called {how!r}: truncate or mask")
