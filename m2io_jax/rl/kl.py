"""The KL penalty and the entropy bonus: estimators of the KL divergence from the reference policy, the schedule of the
KL coefficient, and what adapts to the policy's entropy.

The estimators are J. Schulman's (joschu.net/blog/kl-approx.html, 2020). Each needs one sample a token. With
x = log pi(token) - log pi_ref(token), in nats, and tokens drawn from pi:

    k1 = x                    unbiased, can be negative, noisy
    k2 = x**2 / 2             biased; its gradient is that of the divergence
    k3 = exp(-x) - 1 + x      unbiased, never negative: GRPO's (arXiv 2402.03300, eq. 4)

The log ratio is clamped to +-20 and k3 to 10, so that one token with a tiny reference probability cannot outweigh the
batch. Beyond a clamp the gradient is 0.

As a loss, an estimator counts by its gradient. In expectation over sampled tokens, the gradient of k1 is 0 and that of
k3 is the gradient of KL(pi_ref || pi). `k1+` and `k3+` report their own value and have k2's gradient, which is that of
KL(pi || pi_ref) (Y. Tang and R. Munos, arXiv 2506.09477).
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_LOG_RATIO = 20.0
MAX_K3 = 10.0

Schedule = Literal["constant", "linear", "grpo_d"]


def log_ratio(log_probs: Float[Array, "*any"], other_log_probs: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Compute `log_probs - other_log_probs`, clamped so that its exponential is finite in float32."""
    return jnp.clip(log_probs - other_log_probs, -MAX_LOG_RATIO, MAX_LOG_RATIO)


def k1(log_probs: Float[Array, "*any"], ref_log_probs: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Estimate the KL by the log ratio itself."""
    return log_ratio(log_probs, ref_log_probs)


def k2(log_probs: Float[Array, "*any"], ref_log_probs: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Estimate the KL by half the squared log ratio."""
    return jnp.square(log_ratio(log_probs, ref_log_probs)) / 2


def k3(log_probs: Float[Array, "*any"], ref_log_probs: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Estimate the KL as GRPO does: `exp(-x) - 1 + x`."""
    x = log_ratio(log_probs, ref_log_probs)
    # expm1: near the reference, exp(-x) - 1 + x would cancel to noise in float32.
    return jnp.clip(jnp.expm1(-x) + x, -MAX_K3, MAX_K3)


def with_k2_gradient(estimator: Callable) -> Callable:
    """Return an estimator with the same value and the gradient of k2."""

    def estimate(log_probs: Float[Array, "*any"], ref_log_probs: Float[Array, "*any"]) -> Float[Array, "*any"]:
        value, proxy = estimator(log_probs, ref_log_probs), k2(log_probs, ref_log_probs)
        return jax.lax.stop_gradient(value) + (proxy - jax.lax.stop_gradient(proxy))

    return estimate


KL_ESTIMATORS: dict[str, Callable] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "k1+": with_k2_gradient(k1),
    "k3+": with_k2_gradient(k3),
}


def kl_coefficient(schedule: Schedule, progress: float, *, low: float, high: float, turn: float) -> float:
    """Compute the coefficient of the KL penalty at `progress` of the run. A resumed run needs no state for it.

        constant    high
        linear      from low to high
        grpo_d      from (low + high)/2 down to low at `turn`, then up to high

    `grpo_d` is GRPO-D (OThink-MR1, arXiv 2503.16081, eq. 3) with progress = s/t and turn = w/t, which is 0.3 there.
    The paper's prose has the coefficient start small; the equation is followed.

    Args:
        progress: fraction of the run that is done; beyond 1 it counts as 1.

    Raises:
        ValueError: if the schedule is unknown.
    """
    progress = min(progress, 1.0)
    if schedule == "constant":
        return high
    if schedule == "linear":
        return low + (high - low) * progress
    if schedule == "grpo_d":
        if progress < turn:
            middle = (low + high) / 2
            return middle - (middle - low) * progress / turn
        return low + (high - low) * (progress - turn) / (1 - turn)
    raise ValueError(f"no schedule is called {schedule!r}: constant, linear or grpo_d")


def adapt_entropy_coef(coef: float, entropy: float, *, target: float, delta: float, high: float) -> float:
    """Compute the next step's entropy coefficient: `delta` more below the target, `delta` less above it.

    This is the rule of Skywork-OR1 (arXiv 2505.22312, adaptive entropy control), with two differences: above the
    target the coefficient falls step by step rather than to 0 at once, and it stays between 0 and `high`, since it
    would grow without end under a target that cannot be reached.

    Args:
        coef: the coefficient of this step.
        entropy, target: nats a token.
    """
    step = delta if entropy < target else -delta if entropy > target else 0.0
    return min(max(coef + step, 0.0), high)


def entropy_shaping_weights(
    advantages: Float[Array, "*batch"], entropy: Float[Array, "*batch time"], *, weight: float, bound: float
) -> Float[Array, "*batch time"]:
    """Compute the factors that add an entropy term to the advantage of each token (arXiv 2506.14758, eq. 4 and 5;
    MSSR, arXiv 2512.18215):

        A + min(weight * H, |A|/bound) = A (1 + min(weight * H, |A|/bound)/A)

    No gradient flows through the entropy. With a bound above 1 an advantage keeps its sign, so the factor is above 0
    and can multiply any loss that is proportional to |A|. An advantage of 0 stays 0.

    Args:
        advantages: of completions.
        entropy: nats. The paper takes the sampling policy's; a run takes the current policy's, which is the same in
            the first update on rollouts that are not stale.
    """
    advantages = advantages[..., None]
    added = jnp.minimum(weight * jax.lax.stop_gradient(entropy), jnp.abs(advantages) / bound)
    return 1 + jnp.where(advantages == 0, 0.0, added / jnp.where(advantages == 0, 1.0, advantages))
