"""The clipped surrogate of PPO and GRPO, with DAPO's separate bounds and the dual clip."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.rl.advantages import of_tokens
from m2io_jax.rl.kl import log_ratio


def clip(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    low: float,
    high: float,
    dual: float | None = None,
) -> tuple[Float[Array, "*batch time"], dict[str, Bool[Array, "*batch time"]]]:
    """The loss of each token (PPO, arXiv 1707.06347, eq. 7; separate bounds: DAPO, arXiv 2503.14476, eq. 10):

        -min(rho A, clip(rho, 1 - low, 1 + high) A)        rho = pi(token) / pi_old(token)

    A token has no gradient once its ratio has moved beyond a bound in the direction that the advantage asks for.
    Where A < 0 that leaves large ratios unbounded; the dual clip (arXiv 1912.09729, dual-clip PPO) bounds the loss of
    such a token by `-dual A`.

    Args:
        low, high: how far below and above 1 the ratio counts.
        dual: the largest ratio that counts where A < 0; above 1, usually 3. None: any.
    """
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    advantages = of_tokens(advantages, mask)
    surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - low, 1 + high) * advantages)
    clipped = {"low": (ratio < 1 - low) & (advantages < 0), "high": (ratio > 1 + high) & (advantages > 0)}
    if dual is not None:
        surrogate = jnp.where(advantages < 0, jnp.maximum(surrogate, dual * advantages), surrogate)
        clipped["dual"] = (ratio > dual) & (advantages < 0)
    return -surrogate, clipped
