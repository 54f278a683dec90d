"""Policy losses: the loss of each token, its importance weight, the KL penalty, the entropy bonus, and how tokens are
aggregated. Pure functions of arrays; `policy_objective` puts them together.

A token loss takes the log-probs of the tokens under the policy and under the old policy (the centre of the trust
region), in nats, the advantages of completions or of tokens, and the mask. It takes by keyword those of `low`, `high`,
`dual` and `temperatures` that it names (`token_loss`). It returns the loss of every token, before aggregation, and by
name which tokens it clipped. Its value outside the mask is ignored but must be finite. To add a loss: write the
function, add it to `LOSSES`, and add its name to `GRPOConfig.loss`. Equations, settings and papers: docs/objectives.md.

A sum that is to be divided later is a pair (sum, denominator): micro-batches and devices add both up and divide once,
so that neither changes the gradient.
"""

from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.config import GRPOConfig
from m2io_jax.rl.kl import KL_ESTIMATORS, log_ratio

Aggregation = Literal["sequence_mean", "token_mean", "constant_length"]
Correction = Literal["truncate", "mask"]
SumAndDenominator = tuple[Float[Array, ""], Float[Array, ""]]
Coefficient = float | Float[Array, ""]
TokenLosses = tuple[Float[Array, "*batch time"], dict[str, Bool[Array, "*batch time"]]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossInputs:
    """What the objective reads. Log-probs and entropies are of the completions' tokens, in nats.

    Attributes:
        log_probs: under the policy that is trained; the gradient flows through these and `entropy`.
        old_log_probs: under the policy at the centre of the trust region.
        advantages: of completions or of tokens (rl/advantages.py).
        mask: the tokens that are learnt from. Nothing elsewhere is read, not even NaN.
        importance_weights: factors of the tokens' losses (off-policy correction); None: all 1.
        ref_log_probs: under the reference policy; None: there is no KL penalty.
        entropy: of the distribution that each token was drawn from; None: there is no entropy bonus.
    """

    log_probs: Float[Array, "*batch time"]
    old_log_probs: Float[Array, "*batch time"]
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"]
    mask: Bool[Array, "*batch time"]
    importance_weights: Float[Array, "*batch time"] | None = None
    ref_log_probs: Float[Array, "*batch time"] | None = None
    entropy: Float[Array, "*batch time"] | None = None


def policy_objective(
    inputs: LossInputs,
    config: GRPOConfig,
    *,
    max_length: int,
    kl_coef: Coefficient = 0.0,
    entropy_coef: Coefficient = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumAndDenominator]]:
    """Compute what is minimised: over all tokens, aggregated as configured,

        importance weight * loss + kl_coef * KL - entropy_coef * entropy

    With the loss `clip`, `sequence_mean` and k3 this is GRPO (arXiv 2402.03300, eq. 3 and 4).

    Args:
        max_length: the longest completion there may be, in tokens.

    Returns:
        The sum, the denominator, and metrics under TRL's names, each a (sum, denominator) too: `policy_loss`; means
        over tokens: `clip_ratio/{low,high,...}_mean`, `clip_ratio/region_mean` (clipped at all), `kl`, `entropy`.

    Raises:
        ValueError: if there is a KL coefficient without a reference, or an entropy coefficient without an entropy.
    """
    if inputs.ref_log_probs is None and not _is_zero(kl_coef):
        raise ValueError(f"kl_coef is {kl_coef}, but there are no ref_log_probs")
    if inputs.entropy is None and not _is_zero(entropy_coef):
        raise ValueError(f"entropy_coef is {entropy_coef}, but there is no entropy")
    mask = inputs.mask

    def masked(x):
        # before anything is computed: a NaN that is masked only afterwards is still in the gradient
        return jnp.where(mask, x, 0.0)

    aggregated = partial(aggregate, mask=mask, how=config.loss_aggregation, max_length=max_length)
    log_probs = masked(inputs.log_probs)
    per_token, clipped = token_loss(config)(log_probs, masked(inputs.old_log_probs), inputs.advantages, mask)
    if inputs.importance_weights is not None:
        per_token = masked(inputs.importance_weights) * per_token
    metrics = {"policy_loss": aggregated(per_token)} | clip_metrics(clipped, mask)
    if inputs.ref_log_probs is not None:
        kl = KL_ESTIMATORS[config.kl_estimator](log_probs, masked(inputs.ref_log_probs))
        per_token = per_token + kl_coef * kl
        metrics["kl"] = sum_over_tokens(kl, mask)
    if inputs.entropy is not None:
        entropy = masked(inputs.entropy)
        metrics["entropy"] = sum_over_tokens(entropy, mask)
        if not _is_zero(entropy_coef):
            per_token = per_token - entropy_coef * entropy
    return *aggregated(per_token), metrics


def token_loss(config: GRPOConfig) -> "PolicyLoss":
    """Return the configured token loss with those of the settings that it takes."""
    settings = dict(
        low=config.clip_epsilon,
        high=config.clip_epsilon_high or config.clip_epsilon,
        dual=config.dual_clip,
        temperatures=config.sapo_temperatures,
    )
    loss = LOSSES[config.loss]
    return partial(loss, **{name: settings[name] for name in signature(loss).parameters if name in settings})


class PolicyLoss(Protocol):
    """One of `LOSSES` with its settings given."""

    def __call__(
        self,
        log_probs: Float[Array, "*batch time"],
        old_log_probs: Float[Array, "*batch time"],
        advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
        mask: Bool[Array, "*batch time"],
    ) -> TokenLosses: ...


def clip(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    low: float,
    high: float,
    dual: float | None = None,
) -> TokenLosses:
    """Compute the clipped surrogate (PPO, arXiv 1707.06347, eq. 7; separate bounds: DAPO, arXiv 2503.14476, eq. 10):

        -min(rho A, clip(rho, 1 - low, 1 + high) A)        rho = pi(token) / pi_old(token)

    A token has no gradient once its ratio has moved beyond a bound in the direction that the advantage asks for.
    Where A < 0 that leaves large ratios unbounded; the dual clip (arXiv 1912.09729) bounds the loss of such a token by
    `-dual A`.

    Args:
        low, high: how far below and above 1 the ratio counts.
        dual: the largest ratio that counts where A < 0; above 1, usually 3. None: any.
    """
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    advantages = broadcast_to_tokens(advantages, mask)
    surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - low, 1 + high) * advantages)
    clipped = {"low": (ratio < 1 - low) & (advantages < 0), "high": (ratio > 1 + high) & (advantages > 0)}
    if dual is not None:
        surrogate = jnp.where(advantages < 0, jnp.maximum(surrogate, dual * advantages), surrogate)
        clipped["dual"] = (ratio > dual) & (advantages < 0)
    return -surrogate, clipped


def gspo(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"],
    mask: Bool[Array, "*batch time"],
    *,
    low: float,
    high: float,
) -> TokenLosses:
    """Compute the loss of Group Sequence Policy Optimization (arXiv 2507.18071, eq. 5 and 7), the same for all tokens
    of a completion:

        -min(s A, clip(s, 1 - low, 1 + high) A)        s = exp(mean over tokens of log(pi / pi_old))

    GSPO-token (eq. 13) differs only where tokens of one completion have different advantages; here they have not.

    Args:
        low, high: how far below and above 1 the ratio `s` counts; 3e-4 and 4e-4 in the paper.
    """
    ratio = jnp.exp(completion_mean(log_ratio(log_probs, old_log_probs), mask))
    surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - low, 1 + high) * advantages)
    clipped = {"low": (ratio < 1 - low) & (advantages < 0), "high": (ratio > 1 + high) & (advantages > 0)}

    def to_tokens(x):
        return jnp.broadcast_to(x[..., None], mask.shape)

    return to_tokens(-surrogate), {name: to_tokens(which) for name, which in clipped.items()}


def gmpo(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"],
    mask: Bool[Array, "*batch time"],
    *,
    low: float,
    high: float,
) -> TokenLosses:
    """Compute the loss of Geometric-Mean Policy Optimization (arXiv 2507.20673, section 3), the same for all tokens of
    a completion:

        -A exp(mean over tokens of min(x, high))         where A > 0        x = log(pi / pi_old)
        -A exp(mean over tokens of max(x, -low))         where A < 0

    It is the geometric mean of the terms whose arithmetic mean GRPO takes.

    Args:
        low, high: bounds of the log ratio (not of the ratio), in nats; 0.4 in the paper.
    """
    x = log_ratio(log_probs, old_log_probs)
    is_positive = advantages[..., None] > 0
    bounded = jnp.where(is_positive, jnp.minimum(x, high), jnp.maximum(x, -low))
    per_completion = -advantages * jnp.exp(completion_mean(bounded, mask))
    clipped = {"low": (x < -low) & (advantages[..., None] < 0), "high": (x > high) & is_positive}
    return jnp.broadcast_to(per_completion[..., None], mask.shape), clipped


def cispo(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    low: float,
    high: float,
) -> TokenLosses:
    """Compute the loss of CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5), where no gradient flows through the
    clipped weight, so that every token keeps a gradient:

        -clip(rho, 1 - low, 1 + high) A log pi(token)        rho = pi(token) / pi_old(token)

    Args:
        low, high: how far below and above 1 a weight may be; with `low` 1 small weights are not clipped, as in the
            paper. ScaleRL (arXiv 2510.13786) lets weights grow to 5: `high` of 4.
    """
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    weight = jax.lax.stop_gradient(jnp.clip(ratio, 1 - low, 1 + high))
    clipped = {"low": ratio < 1 - low, "high": ratio > 1 + high}
    return -weight * broadcast_to_tokens(advantages, mask) * log_probs, clipped


def sapo(
    log_probs: Float[Array, "*batch time"],
    old_log_probs: Float[Array, "*batch time"],
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    temperatures: tuple[float, float],
) -> TokenLosses:
    """Compute the loss of Soft Adaptive Policy Optimization (arXiv 2511.20347, section 3), a smooth gate in place of
    the clip:

        -4 / tau sigmoid(tau (rho - 1)) A        rho = pi(token) / pi_old(token)

    At rho = 1 the gradient is that of `-rho A`; it fades on both sides, the faster the larger tau.

    Args:
        temperatures: tau where A > 0, and elsewhere. They are 1 and 1.05 in the paper: the probability that a negative
            advantage takes from a token goes to all other tokens, which is the less stable direction.
    """
    ratio = jnp.exp(log_ratio(log_probs, old_log_probs))
    advantages = broadcast_to_tokens(advantages, mask)
    tau = jnp.where(advantages > 0, *temperatures)
    return -4 / tau * jax.nn.sigmoid(tau * (ratio - 1)) * advantages, {}


LOSSES = {"clip": clip, "gspo": gspo, "gmpo": gmpo, "cispo": cispo, "sapo": sapo}


def broadcast_to_tokens(
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch #time"]:
    """Return advantages of tokens as they are, and those of completions with a last dimension of 1."""
    return advantages if advantages.ndim == mask.ndim else advantages[..., None]


def importance_ratio(
    old_log_probs: Float[Array, "*any"], sampling_log_probs: Float[Array, "*any"]
) -> Float[Array, "*any"]:
    """Compute the trainer's probability of each token over the sampler's, without a gradient."""
    return jax.lax.stop_gradient(jnp.exp(log_ratio(old_log_probs, sampling_log_probs)))


def importance_weights(
    ratio: Float[Array, "*any"], how: Correction, *, low: float, high: float
) -> Float[Array, "*any"]:
    """Compute the weight of each token's loss on off-policy rollouts: those sampled by stale weights, by quantised
    ones, or by other code than the trainer's.

        truncate    min(ratio, high)                              TIS (F. Yao et al., 2025; V-trace, arXiv 1802.01561)
        mask        ratio where low <= ratio <= high, else 0      MIS, IcePop (Ling Team, 2025)

    The trust region is then around the trainer's own log-probs before its updates. The sampler, the policy before the
    updates and the policy that is trained are the behaviour, proximal and current policy of decoupled PPO (arXiv
    2110.00641). Tokens of weight 0 still count in the denominator.

    Args:
        low, high: bounds of the ratio; `truncate` reads `high` alone.

    Raises:
        ValueError: if the correction is unknown.
    """
    if how == "truncate":
        return jnp.minimum(ratio, high)
    if how == "mask":
        return jnp.where((low <= ratio) & (ratio <= high), ratio, 0.0)
    raise ValueError(f"no correction is called {how!r}: truncate or mask")


def aggregate(
    per_token: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"], how: Aggregation, *, max_length: int
) -> SumAndDenominator:
    """Aggregate a value of each token; over N completions of |o_i| tokens the quotient is

        sequence_mean      1/N sum_i 1/|o_i| sum_t        GRPO (arXiv 2402.03300, eq. 3)
        token_mean         1/(sum_i |o_i|) sum_i sum_t    DAPO (arXiv 2503.14476, eq. 8)
        constant_length    1/(N max_length) sum_i sum_t   Dr. GRPO (arXiv 2503.20783, section 3.1)

    BNPO is `token_mean` over the batch of one device; since sums and denominators are added up over all devices here,
    it is DAPO's. A completion without tokens (padding, or masked) counts nowhere. Both numbers can then be 0: divide by
    `max(denominator, 1)`.

    Args:
        max_length: the longest completion there may be, in tokens.

    Raises:
        ValueError: if the aggregation is unknown.
    """
    values = jnp.where(mask, per_token, 0.0)
    completions = mask.any(-1).sum().astype(values.dtype)
    if how == "sequence_mean":
        return completion_mean(values, mask).sum(), completions
    if how == "token_mean":
        return values.sum(), mask.sum().astype(values.dtype)
    if how == "constant_length":
        return values.sum(), completions * max_length
    raise ValueError(f"no aggregation is called {how!r}: sequence_mean, token_mean or constant_length")


def completion_mean(per_token: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]) -> Float[Array, "*batch"]:
    """Compute the mean over each completion's tokens; 0 where it has none."""
    return jnp.where(mask, per_token, 0.0).sum(-1) / jnp.maximum(mask.sum(-1), 1)


def sum_over_tokens(per_token: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]) -> SumAndDenominator:
    """Return sum and number, for a metric that is a mean over all tokens."""
    return jnp.where(mask, per_token, 0.0).sum(), mask.sum().astype(jnp.float32)


def clip_metrics(
    clipped: dict[str, Bool[Array, "*batch time"]], mask: Bool[Array, "*batch time"]
) -> dict[str, SumAndDenominator]:
    """Compute the fractions of tokens that a loss clipped, by name and (`region`) at all."""
    if not clipped:
        return {}
    region = jnp.any(jnp.stack(list(clipped.values())), axis=0)
    return {
        f"clip_ratio/{name}_mean": sum_over_tokens(which.astype(jnp.float32), mask)
        for name, which in (clipped | {"region": region}).items()
    }


def _is_zero(coefficient: Coefficient) -> bool:
    """Return whether a coefficient is known to be 0; a traced one is not."""
    return isinstance(coefficient, int | float) and coefficient == 0
