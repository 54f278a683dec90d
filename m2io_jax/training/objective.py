"""The objective that `grpo` in the configuration asks for, made of the functions of `rl/`."""

from collections.abc import Mapping
from functools import partial
from inspect import signature

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.config import GRPOConfig, SingleConfig
from m2io_jax.models.inputs import Completions
from m2io_jax.rl.advantages import ADVANTAGES, group_advantages
from m2io_jax.rl.aggregation import over_tokens
from m2io_jax.rl.entropy import adapted_coefficient, shaping_weights
from m2io_jax.rl.importance import importance_ratio, importance_weights
from m2io_jax.rl.losses import LOSSES, PolicyLoss
from m2io_jax.rl.objectives import policy_objective
from m2io_jax.rl.overlong import finished
from m2io_jax.rl.schedules import kl_weight
from m2io_jax.sampling.sampler import Rollouts


def configured_loss(settings: GRPOConfig) -> PolicyLoss:
    """The loss of tokens, given those of the settings that it takes."""
    known = dict(
        low=settings.clip_epsilon,
        high=settings.clip_epsilon_high or settings.clip_epsilon,
        dual=settings.dual_clip,
        temperatures=settings.sapo_temperatures,
    )
    loss = LOSSES[settings.loss]
    return partial(loss, **{name: known[name] for name in signature(loss).parameters if name in known})


def configured_advantages(settings: GRPOConfig, rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """Of all completions of a step at once, whatever parts the batch goes through in: some look at all of it."""
    if settings.advantage == "group":
        return group_advantages(rewards, scale=settings.scale_rewards)
    return ADVANTAGES[settings.advantage](rewards)


def configured_kl_weight(settings: GRPOConfig, progress: float) -> float:
    """The KL penalty's weight at `progress` (0 to 1) of the run."""
    bounds = dict(least=settings.kl_beta_min, most=settings.kl_beta, turn=settings.kl_turn)
    return kl_weight(settings.kl_schedule, progress, **bounds)


def remembered(settings: GRPOConfig, memory: Mapping[str, float] | None = None, entropy: float = 0.0) -> dict:
    """What the objective leaves to the next step: the entropy bonus's weight, where it adapts.

    Args:
        memory: what the step before left; None before the first.
        entropy: of the step, in nats a token.
    """
    if settings.entropy_target is None:
        return {}
    if memory is None:
        return {"entropy_coef": settings.entropy_coef}
    rule = dict(target=settings.entropy_target, delta=settings.entropy_delta, most=settings.entropy_coef_max)
    return {"entropy_coef": adapted_coefficient(memory["entropy_coef"], entropy, **rule)}


def learnt_from(
    settings: GRPOConfig, completions: Completions, stops: tuple[int, ...]
) -> Bool[Array, "rows group time"]:
    """The tokens that an update learns from: all, or those of completions that came to a stop token."""
    mask = completions.mask
    return mask & finished(completions.tokens, mask, stops)[..., None] if settings.overlong_filter else mask


def configured_objective(
    settings: GRPOConfig,
    log_probs: Float[Array, "rows group time"],
    entropy: Float[Array, "rows group time"],
    rollouts: Rollouts,
    advantages: Float[Array, "rows group"] | Float[Array, "rows group time"],
    *,
    own_log_probs: Float[Array, "rows group time"] | None,
    reference_log_probs: Float[Array, "rows group time"] | None,
    kl_beta: Float[Array, ""],
    entropy_coef: Float[Array, ""] | None,
    max_length: int,
    stops: tuple[int, ...],
    shaping: SingleConfig | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""], dict]:
    """Sum, denominator and metrics of an update.

    Where rollouts are corrected, the trust region is around the trainer's own log-probabilities before the first of
    the updates: `own_log_probs`, or (None) those it has now, of which the ratio is exactly 1.

    Args:
        log_probs, entropy: of the policy that is trained.
        advantages: of completions or of tokens; `shaping` is of the first.
        entropy_coef: weight of the entropy bonus where it adapts; None where it is constant.
        max_length: longest completion there may be, in tokens.
        stops: tokens of which a completion that was not cut off ends with one.
        shaping: whose `entropy_weight` and `entropy_bound` shape the advantages of tokens; None: nothing does.
    """
    completions = rollouts.completions
    own = jax.lax.stop_gradient(log_probs) if own_log_probs is None else own_log_probs
    ratio = importance_ratio(own, rollouts.log_probs)
    old, weights = rollouts.log_probs, None
    if settings.rollout_correction != "none":
        bounds = dict(low=settings.rollout_weight_min, high=settings.rollout_weight_max)
        old, weights = own, importance_weights(ratio, settings.rollout_correction, **bounds)
    if shaping is not None and shaping.entropy_weight:
        bounds = dict(weight=shaping.entropy_weight, bound=shaping.entropy_bound)
        shaped = shaping_weights(advantages, entropy, **bounds)
        weights = shaped if weights is None else weights * shaped
    mask = learnt_from(settings, completions, stops)
    total, denominator, metrics = policy_objective(
        log_probs,
        old,
        advantages,
        mask,
        loss=configured_loss(settings),
        aggregation=settings.loss_aggregation,
        max_length=max_length,
        importance_weights=weights,
        reference_log_probs=reference_log_probs,
        kl_beta=0.0 if reference_log_probs is None else kl_beta,
        kl_estimator=settings.kl_estimator,
        entropy=entropy,
        entropy_coef=settings.entropy_coef if entropy_coef is None else entropy_coef,
    )
    return total, denominator, metrics | sampling_metrics(own - rollouts.log_probs, ratio, completions.mask)


LEAST_RATIO = "sampling/importance_sampling_ratio/min"


def sampling_metrics(
    gap: Float[Array, "rows group time"], ratio: Float[Array, "rows group time"], mask: Bool[Array, "rows group time"]
) -> dict:
    """How far the sampler is from the trainer, before any correction. Of `LEAST_RATIO` the negative: of an array it is
    the largest that a step keeps."""
    gap = jnp.where(mask, jnp.abs(gap), 0.0)
    return {
        "sampling/sampling_logp_difference/mean": over_tokens(gap, mask),
        "sampling/sampling_logp_difference/max": gap.max(),
        LEAST_RATIO: -jnp.where(mask, ratio, jnp.inf).min(),
        "sampling/importance_sampling_ratio/mean": over_tokens(ratio, mask),
        "sampling/importance_sampling_ratio/max": jnp.where(mask, ratio, 0.0).max(),
    }
