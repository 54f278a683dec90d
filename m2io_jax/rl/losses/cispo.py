"""CISPO: importance weights are clipped, tokens are not: every one keeps a gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.rl.advantages import of_tokens
from m2io_jax.rl.kl import log_ratio


def cispo(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    low: float,
    high: float,
) -> tuple[Float[Array, "*batch time"], dict[str, Bool[Array, "*batch time"]]]:
    """The loss of each token (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5), where no gradient flows through the weight:

        -clip(rho, 1 - low, 1 + high) A log pi(token)        rho = pi(token) / pi_old(token)

    Args:
        low, high: how far below and above 1 a weight may be; `low` of 1 leaves small weights as they are, as the paper
            does. ScaleRL (arXiv 2510.13786) lets weights grow to 5: `high` of 4.
    """
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    weight = jax.lax.stop_gradient(jnp.clip(ratio, 1 - low, 1 + high))
    return -weight * of_tokens(advantages, mask) * log_probs, {"low": ratio < 1 - low, "high": ratio > 1 + high}
