"""SAPO: a smooth gate in place of the clip."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.rl.advantages import of_tokens
from m2io_jax.rl.kl import log_ratio


def sapo(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    temperatures: tuple[float, float],
) -> tuple[Float[Array, "*batch time"], dict[str, Bool[Array, "*batch time"]]]:
    """The loss of each token (Soft Adaptive Policy Optimization, arXiv 2511.20347, section 3):

        -4 / tau sigmoid(tau (rho - 1)) A        rho = pi(token) / pi_old(token)

    At rho = 1 the gradient is that of `-rho A`; it fades on both sides, the faster the larger tau. Nothing is clipped.

    Args:
        temperatures: tau where A > 0, and elsewhere. The paper's are 1 and 1.05: what a negative advantage pushes away
            goes to all other tokens, which is the less stable direction.
    """
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    advantages = of_tokens(advantages, mask)
    tau = jnp.where(advantages > 0, *temperatures)
    return -4 / tau * jax.nn.sigmoid(tau * (ratio - 1)) * advantages, {}
