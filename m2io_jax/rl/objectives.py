"""The objective of a policy: one of the losses, importance weights, the KL penalty, the entropy bonus, added up.

Everything in this package is a pure function of arrays; no model is in sight. An objective is returned as (sum,
denominator): see `rl/aggregation.py`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.rl.aggregation import Aggregation, SumAndDenominator, aggregate, over_tokens
from m2io_jax.rl.kl import KL_ESTIMATORS
from m2io_jax.rl.losses import PolicyLoss

Weight = float | Float[Array, ""]


def policy_objective(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    loss: PolicyLoss,
    aggregation: Aggregation,
    max_length: int,
    importance_weights: Float[Array, "*batch time"] | None = None,
    reference_log_probs: Float[Array, "*batch time"] | None = None,
    kl_beta: Weight = 0.0,
    kl_estimator: str = "k3",
    entropy: Float[Array, "*batch time"] | None = None,
    entropy_coef: Weight = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumAndDenominator]]:
    """What is minimised, of each token before it is aggregated:

        importance weight * loss + kl_beta * KL - entropy_coef * entropy

    With the loss `clip`, `sequence_mean` and k3 this is GRPO (arXiv 2402.03300, eq. 3 and 4); docs/objectives.md has
    the others.

    Args:
        log_probs: of the completions' tokens under the policy, in nats; the gradient flows through these and `entropy`.
        old_log_probs: under the policy that the trust region is around.
        advantages: of each completion (`rl/advantages.py`), or of each token (`rl/gae.py`).
        mask: True where a completion has a token. What lies elsewhere is never looked at, be it NaN.
        loss: one of `rl/losses` with its settings.
        aggregation: how tokens are weighed (`rl/aggregation.py`).
        max_length: longest completion there may be, in tokens.
        importance_weights: of each token's loss (`rl/importance.py`); None where rollouts are the trainer's own.
        reference_log_probs: under the frozen reference; None where there is none.
        kl_beta, kl_estimator: weight of the KL penalty, and its estimate (`rl/kl.py`).
        entropy: of the distribution each token was drawn from, in nats.
        entropy_coef: weight of the entropy bonus.

    Returns:
        The sum, the denominator, and metrics by TRL's names, each a (sum, denominator) too: `policy_loss`; means over
        tokens: `clip_ratio/{low,high,...}_mean` and `clip_ratio/region_mean` (any), `kl`, `entropy`.

    Raises:
        ValueError: a KL penalty without a reference, a bonus without an entropy, an unknown aggregation or estimate.
    """
    if reference_log_probs is None and not _is_nothing(kl_beta):
        raise ValueError(f"kl_beta is {kl_beta}, but there is no reference to diverge from")
    if entropy is None and not _is_nothing(entropy_coef):
        raise ValueError(f"entropy_coef is {entropy_coef}, but there is no entropy")
    if kl_estimator not in KL_ESTIMATORS:
        raise ValueError(f"no estimate of the KL is called {kl_estimator!r}: {', '.join(KL_ESTIMATORS)}")

    def seen(x):
        # before anything is computed: a NaN that is masked only afterwards is still in the gradient
        return jnp.where(mask, x, 0.0)

    log_probs = seen(log_probs)
    per_token, clipped = loss(log_probs, seen(old_log_probs), advantages, mask)
    if importance_weights is not None:
        per_token = seen(importance_weights) * per_token
    metrics = {"policy_loss": aggregate(per_token, mask, aggregation, max_length=max_length)}
    metrics |= clip_metrics(clipped, mask)
    if reference_log_probs is not None:
        kl = KL_ESTIMATORS[kl_estimator](log_probs, seen(reference_log_probs))
        per_token = per_token + kl_beta * kl
        metrics["kl"] = over_tokens(kl, mask)
    if entropy is not None:
        entropy = seen(entropy)
        metrics["entropy"] = over_tokens(entropy, mask)
        if not _is_nothing(entropy_coef):
            per_token = per_token - entropy_coef * entropy
    return *aggregate(per_token, mask, aggregation, max_length=max_length), metrics


def clip_metrics(
    clipped: dict[str, Bool[Array, "*batch time"]], mask: Bool[Array, "*batch time"]
) -> dict[str, SumAndDenominator]:
    """Fractions of tokens that a loss clipped, by name and (`region`) at all."""
    if not clipped:
        return {}
    anyhow = jnp.any(jnp.stack(list(clipped.values())), axis=0)
    return {
        f"clip_ratio/{name}_mean": over_tokens(which.astype(jnp.float32), mask)
        for name, which in (clipped | {"region": anyhow}).items()
    }


def _is_nothing(weight: Weight) -> bool:
    """Whether a weight is known to be 0; one that is traced is not."""
    return isinstance(weight, int | float) and weight == 0
