"""GSPO: one importance ratio for a whole completion."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.rl.aggregation import completion_mean
from m2io_jax.rl.kl import log_ratio


def gspo(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"],
    mask: Bool[Array, "*batch time"],
    *,
    low: float,
    high: float,
) -> tuple[Float[Array, "*batch time"], dict[str, Bool[Array, "*batch time"]]]:
    """Group Sequence Policy Optimization (arXiv 2507.18071, eq. 5 and 7); each token has its completion's loss:

        -min(s A, clip(s, 1 - low, 1 + high) A)        s = exp(mean over tokens of log(pi / pi_old))

    GSPO-token (eq. 13) differs only where tokens of one completion have different advantages; here they have not.

    Args:
        low, high: how far below and above 1 the ratio `s` counts; the paper's are 3e-4 and 4e-4.
    """
    ratio = jnp.exp(completion_mean(log_ratio(log_probs, old_log_probs), mask))
    surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - low, 1 + high) * advantages)
    clipped = {"low": (ratio < 1 - low) & (advantages < 0), "high": (ratio > 1 + high) & (advantages > 0)}

    def of_each_token(x):
        return jnp.broadcast_to(x[..., None], mask.shape)

    return of_each_token(-surrogate), {name: of_each_token(which) for name, which in clipped.items()}
