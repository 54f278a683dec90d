"""Advantage estimators: of completions, relative to their group or batch (GRPO and others), and of tokens, by a critic
(GAE).

r is a completion's reward. Means and standard deviations are over its group unless the batch is named; standard
deviations are the population's, as in OThink-MR1 (arXiv 2503.16081). Batch statistics are over all rows that are
given: under `jax.jit` with sharded rewards, over the rows of every device. A completion that could not be scored has
the reward NaN: it enters no statistic, and its own advantage is 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPS = 1e-6  # keeps quotients finite, in the rewards' unit


def group_advantages(
    rewards: Float[Array, "rows group"], *, scale: bool = True, eps: float = EPS
) -> Float[Array, "rows group"]:
    """Compute advantages relative to the group:

        A_i = (r_i - mean(r)) / (std(r) + eps)      scale=True   (GRPO, arXiv 2402.03300, 4.1.2)
        A_i =  r_i - mean(r)                        scale=False  (Dr. GRPO, arXiv 2503.20783, 3.1)

    A group whose rewards are all equal has advantages of exactly 0, whatever the rounding of the mean.

    Args:
        rewards: one row a prompt; NaN where a completion could not be scored.
        scale: divide by the group's standard deviation.
        eps: keeps the quotient finite, in the rewards' unit.
    """
    centred = rewards - jnp.nanmean(rewards, axis=-1, keepdims=True)
    if scale:
        centred = centred / (jnp.nanstd(rewards, axis=-1, keepdims=True) + eps)
    return jnp.where(has_equal_rewards(rewards)[..., None] | jnp.isnan(rewards), 0.0, centred)


def leave_one_out_advantages(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """Compute `A_i = r_i - mean of the others in the group` (RLOO, arXiv 2402.14740, section 2.2).

    The baseline is unbiased. With G scored completions this is G/(G - 1) times the difference to the group's mean.
    """
    scored = jnp.sum(~jnp.isnan(rewards), axis=-1, keepdims=True)
    return group_advantages(rewards, scale=False) * scored / jnp.maximum(scored - 1, 1)


def batch_std_advantages(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """Compute `A_i = (r_i - mean(r)) / (std of the batch's rewards + eps)` (Lite PPO, arXiv 2508.08221)."""
    return group_advantages(rewards, scale=False) / (jnp.nanstd(rewards) + EPS)


def reinforce_baseline_advantages(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """Compute `A_i = (r_i - mean(r)) / (std of these differences over the batch + eps)` (REINFORCE++-baseline, arXiv
    2501.03262). Unlike Lite PPO's, the deviation leaves out how groups differ from one another."""
    centred = group_advantages(rewards, scale=False)
    return centred / (jnp.nanstd(jnp.where(jnp.isnan(rewards), jnp.nan, centred)) + EPS)


def batch_advantages(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """Compute `A_i = (r_i - mean of the batch's rewards) / (their std + eps)` (REINFORCE++, arXiv 2501.03262), for
    rewards that have a baseline already or need none."""
    centred = (rewards - jnp.nanmean(rewards)) / (jnp.nanstd(rewards) + EPS)
    return jnp.where(has_equal_rewards(rewards.reshape(-1)) | jnp.isnan(rewards), 0.0, centred)


def no_baseline(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """Compute `A_i = r_i` (REINFORCE)."""
    return jnp.nan_to_num(rewards)


ADVANTAGES: dict[str, Callable] = {
    "group": group_advantages,
    "leave_one_out": leave_one_out_advantages,
    "batch_std": batch_std_advantages,
    "reinforce_baseline": reinforce_baseline_advantages,
    "batch": batch_advantages,
    "none": no_baseline,
}


def has_equal_rewards(rewards: Float[Array, "*rows group"]) -> Bool[Array, "*rows"]:
    """Return which groups give no learning signal: all completions that were scored (not NaN) have the same reward."""
    unscored = jnp.isnan(rewards)
    return jnp.where(unscored, -jnp.inf, rewards).max(-1) <= jnp.where(unscored, jnp.inf, rewards).min(-1)


def token_rewards(
    rewards: Float[Array, "*batch"],
    kl: Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    kl_coef: float | Float[Array, ""],
) -> Float[Array, "*batch time"]:
    """Compute the reward of each token: `-kl_coef * kl`, plus the completion's reward at its last token (InstructGPT,
    arXiv 2203.02155, eq. 2, token by token).

    Args:
        kl: of the sampling policy from the reference policy at each token, in nats (k1).
        mask: the completion's tokens; nothing elsewhere is read, not even NaN.
    """
    after = jnp.concatenate([mask[..., 1:], jnp.zeros_like(mask[..., :1])], axis=-1)
    at_last = jnp.where(mask & ~after, rewards[..., None], 0.0)
    return at_last - kl_coef * jnp.where(mask, kl, 0.0)


def generalized_advantages(
    rewards: Float[Array, "*batch time"],
    values: Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    discount: float,
    gae_lambda: float,
) -> tuple[Float[Array, "*batch time"], Float[Array, "*batch time"]]:
    """Compute generalised advantage estimates (GAE, arXiv 1506.02438, eq. 16), with gamma the discount:

        A_t = sum_l (gamma lambda)^l d_(t+l)        d_t = r_t + gamma V_(t+1) - V_t

    A completion is an episode and each of its tokens an action. The value after the last token is 0, whether it is a
    stop token or the one at which the completion was truncated.

    Args:
        rewards: of each token; values: of the state before each token, in the rewards' unit.
        mask: the completion's tokens; nothing elsewhere is read, not even NaN.

    Returns:
        The advantages, and the returns `A_t + V_t` that the critic is trained towards. Both are 0 outside the mask.
    """
    rewards, values = jnp.where(mask, rewards, 0.0), jnp.where(mask, values, 0.0)
    following = jnp.concatenate([values[..., 1:], jnp.zeros_like(values[..., :1])], axis=-1)
    errors = rewards + discount * following - values

    def back(later, error):
        advantage = error + discount * gae_lambda * later
        return advantage, advantage

    last_first = jnp.moveaxis(errors, -1, 0)
    _, advantages = jax.lax.scan(back, jnp.zeros_like(last_first[0]), last_first, reverse=True)
    advantages = jnp.moveaxis(advantages, 0, -1)
    return advantages, advantages + values


def whiten(advantages: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]) -> Float[Array, "*batch time"]:
    """Normalise advantages to mean 0 and standard deviation 1 over all tokens of the batch; 0 where all are equal."""
    centred = advantages - jnp.mean(advantages, where=mask)
    low, high = (jnp.where(mask, advantages, limit) for limit in (jnp.inf, -jnp.inf))
    scaled = centred / (jnp.std(advantages, where=mask) + EPS)
    return jnp.where(mask & (low.min() < high.max()), scaled, 0.0)


def explained_variance(
    values: Float[Array, "*batch time"], returns: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, ""]:
    """Compute the share of the returns' variance over tokens that the values explain: 1 where they are equal, 0 where
    the values are as good as a constant, below 0 where they are worse. 0 where the returns do not vary."""
    residual, total = (jnp.var(each, where=mask) for each in (returns - values, returns))
    return jnp.where(total > 0, 1 - residual / jnp.where(total > 0, total, 1.0), 0.0)
