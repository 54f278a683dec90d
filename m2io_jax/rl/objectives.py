"""The GRPO objective. Everything here is a pure function of arrays; no model is in sight.

A loss is returned as (sum, denominator). Micro-batches and devices add both up and divide once, so that neither
changes the gradient.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.rl.kl import k3, log_ratio

Aggregation = Literal["sequence_mean", "token_mean"]
SumAndDenominator = tuple[Float[Array, ""], Float[Array, ""]]


def grpo_loss(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    reference_log_probs: Float[Array, "*batch time"] | None,
    advantages: Float[Array, "*batch"],
    mask: Bool[Array, "*batch time"],
    *,
    clip_epsilon: float,
    kl_beta: float | Float[Array, ""],
    aggregation: Aggregation,
    entropy: Float[Array, "*batch time"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumAndDenominator]]:
    """Group Relative Policy Optimization (arXiv 2402.03300, eq. 3 and 4), to be minimised:

        L = 1/N sum_i 1/|o_i| sum_t [ -min(rho A_i, clip(rho, 1 - eps, 1 + eps) A_i) + beta k3 ]

        rho = pi(o_it) / pi_old(o_it)        k3 = pi_ref/pi - log(pi_ref/pi) - 1

    over N completions o_i of |o_i| tokens ("sequence_mean"); "token_mean" weighs every token of the batch alike
    (arXiv 2503.14476, eq. 8).

    Args:
        log_probs: of the completions' tokens under the policy, in nats; the gradient flows through these only.
        old_log_probs: under the policy that sampled them.
        reference_log_probs: under the frozen reference; None where there is none.
        advantages: of each completion (`rl/advantages.py`).
        mask: True where a completion has a token. What lies elsewhere is never looked at, be it NaN.
        clip_epsilon: half the width of the ratio's trust region.
        kl_beta: weight of the KL penalty.
        aggregation: how tokens are weighed.
        entropy: of the distribution each token was drawn from, in nats; for the metrics only.

    Returns:
        The loss's sum and denominator, and metrics by TRL's names, each a (sum, denominator) too: `policy_loss`;
        means over tokens: `kl`, `entropy` (where given), `clip_ratio/{low,high,region}_mean`.

    Raises:
        ValueError: a KL penalty without a reference, or an unknown aggregation.
    """
    if reference_log_probs is None and not (isinstance(kl_beta, int | float) and kl_beta == 0):
        raise ValueError(f"kl_beta is {kl_beta}, but there is no reference to diverge from")
    log_probs, old_log_probs = (jnp.where(mask, each, 0.0) for each in (log_probs, old_log_probs))
    per_token = clipped_surrogate(log_probs, old_log_probs, advantages, mask, epsilon=clip_epsilon)
    metrics = {"policy_loss": aggregate(per_token, mask, aggregation)}
    metrics |= clip_metrics(log_probs, old_log_probs, advantages, mask, epsilon=clip_epsilon)
    if reference_log_probs is not None:
        kl = k3(log_probs, jnp.where(mask, reference_log_probs, 0.0))
        per_token = per_token + kl_beta * kl
        metrics["kl"] = aggregate(kl, mask, "token_mean")
    if entropy is not None:
        metrics["entropy"] = aggregate(entropy, mask, "token_mean")
    total, denominator = aggregate(per_token, mask, aggregation)
    return total, denominator, metrics


def clipped_surrogate(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"],
    mask: Bool[Array, "*batch time"],
    *,
    epsilon: float,
) -> Float[Array, "*batch time"]:
    """PPO's loss of each token (arXiv 1707.06347, eq. 7): `-min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A)`.

    0 outside the mask. A token has no gradient once its ratio has moved beyond the clip in the direction the
    advantage asks for.
    """
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    advantages = advantages[..., None]
    clipped = jnp.clip(ratio, 1 - epsilon, 1 + epsilon)
    return jnp.where(mask, -jnp.minimum(ratio * advantages, clipped * advantages), 0.0)


def aggregate(
    per_token: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"], how: Aggregation
) -> SumAndDenominator:
    """Adds up a value of each token.

        sequence_mean    sum over completions of the mean over their tokens; the number of completions
        token_mean       sum over all tokens; the number of tokens

    A completion without tokens (padding, or left out by a filter) counts in neither. Both can be 0 then: divide by
    `max(denominator, 1)`.
    """
    values = jnp.where(mask, per_token, 0.0)
    if how == "token_mean":
        return values.sum(), mask.sum().astype(values.dtype)
    if how == "sequence_mean":
        tokens = mask.sum(-1)
        return (values.sum(-1) / jnp.maximum(tokens, 1)).sum(), (tokens > 0).sum().astype(values.dtype)
    raise ValueError(f"no aggregation is called {how!r}: sequence_mean or token_mean")


def clip_metrics(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"],
    mask: Bool[Array, "*batch time"],
    *,
    epsilon: float,
) -> dict[str, SumAndDenominator]:
    """Fractions of tokens the clip has silenced: `low` wanted rarer, `high` wanted more likely, `region` either."""
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    low = (ratio < 1 - epsilon) & (advantages[..., None] < 0)
    high = (ratio > 1 + epsilon) & (advantages[..., None] > 0)
    silenced = {"low": low, "high": high, "region": low | high}
    return {
        f"clip_ratio/{name}_mean": aggregate(which.astype(jnp.float32), mask, "token_mean")
        for name, which in silenced.items()
    }
