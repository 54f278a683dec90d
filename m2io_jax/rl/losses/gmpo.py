"""GMPO: the geometric mean of a completion's clipped ratios."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.rl.aggregation import completion_mean
from m2io_jax.rl.kl import log_ratio


def gmpo(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"],
    mask: Bool[Array, "*batch time"],
    *,
    low: float,
    high: float,
) -> tuple[Float[Array, "*batch time"], dict[str, Bool[Array, "*batch time"]]]:
    """Geometric-Mean Policy Optimization (arXiv 2507.20673, section 3); each token has its completion's loss:

        -A exp(mean over tokens of min(x, high))         where A > 0        x = log(pi / pi_old)
        -A exp(mean over tokens of max(x, -low))         where A < 0

    that is, the geometric mean of the terms whose arithmetic mean GRPO takes.

    Args:
        low, high: bounds of the log ratio (not of the ratio), in nats; the paper's are 0.4.
    """
    x = log_ratio(log_probs, old_log_probs)
    liked = advantages[..., None] > 0
    bounded = jnp.where(liked, jnp.minimum(x, high), jnp.maximum(x, -low))
    of_completion = -advantages * jnp.exp(completion_mean(bounded, mask))
    clipped = {"low": (x < -low) & (advantages[..., None] < 0), "high": (x > high) & liked}
    return jnp.broadcast_to(of_completion[..., None], mask.shape), clipped
