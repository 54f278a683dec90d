"""Estimates, from one sample a token, of the KL divergence of the policy from a frozen reference.

They are J. Schulman's (joschu.net/blog/kl-approx.html, 2020). With x = log pi(token) - log pi_ref(token), in nats,
and tokens drawn from pi:

    k1 = x                    unbiased, can be negative, noisy
    k2 = x**2 / 2             biased; its gradient is that of the divergence
    k3 = exp(-x) - 1 + x      unbiased, never negative: GRPO's (arXiv 2402.03300, eq. 4)

The log ratio is clamped to +-20 and k3 to 10, so that one token the reference finds absurd cannot outweigh the batch;
beyond a clamp the gradient is 0.

In a loss it is the gradient that counts, and a gradient of k1 or k3 at sampled tokens is not, in expectation, that of
the divergence: k1's expects nothing at all, k3's the gradient of KL(pi_ref || pi). `k1+` and `k3+` report their own
value and have k2's gradient (Y. Tang and R. Munos, arXiv 2506.09477, derive it).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_LOG_RATIO = 20.0
MAX_K3 = 10.0


def log_ratio(log_probs: Float[Array, "*any"], others: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """`log_probs - others`, clamped so that its exponential is finite in float32."""
    return jnp.clip(log_probs - others, -MAX_LOG_RATIO, MAX_LOG_RATIO)


def k1(log_probs: Float[Array, "*any"], reference: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """The log ratio itself."""
    return log_ratio(log_probs, reference)


def k2(log_probs: Float[Array, "*any"], reference: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Half the squared log ratio."""
    return jnp.square(log_ratio(log_probs, reference)) / 2


def k3(log_probs: Float[Array, "*any"], reference: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """What GRPO penalises, at each token."""
    x = log_ratio(log_probs, reference)
    # expm1: near the reference, exp(-x) - 1 + x would cancel to noise in float32.
    return jnp.clip(jnp.expm1(-x) + x, -MAX_K3, MAX_K3)


def with_the_gradient_of_k2(estimator: Callable) -> Callable:
    """The value of an estimator with the gradient that estimates the divergence's."""

    def corrected(log_probs: Float[Array, "*any"], reference: Float[Array, "*any"]) -> Float[Array, "*any"]:
        value, proxy = estimator(log_probs, reference), k2(log_probs, reference)
        return jax.lax.stop_gradient(value) + (proxy - jax.lax.stop_gradient(proxy))

    return corrected


KL_ESTIMATORS: dict[str, Callable] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "k1+": with_the_gradient_of_k2(k1),
    "k3+": with_the_gradient_of_k2(k3),
}
