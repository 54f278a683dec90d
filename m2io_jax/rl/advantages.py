"""Advantages: how much better a completion did than expected, judged against the others for the same prompt
(arXiv 2402.03300, 4.1) or by itself.

r is a completion's reward; mean and std without a word more are over its group; standard deviations are the
population's (divided by the number of values), as in OThink-MR1 (arXiv 2503.16081). Statistics over the batch are over
all rows that are given: under `jax.jit` with sharded rewards, over every device's. A completion that could not be
scored has the reward NaN: it has no part in any statistic, and its own advantage is 0.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPS = 1e-6  # keeps quotients finite, in the rewards' unit


def group_advantages(
    rewards: Float[Array, "rows group"], *, scale: bool = True, eps: float = EPS
) -> Float[Array, "rows group"]:
    """How much better each completion did than its group.

        A_i = (r_i - mean(r)) / (std(r) + eps)      scale=True   (GRPO, arXiv 2402.03300, 4.1.2)
        A_i =  r_i - mean(r)                        scale=False  (Dr. GRPO, arXiv 2503.20783, 3.1)

    A group whose rewards are all equal has advantages of exactly 0: rounding of the mean is not a signal.

    Args:
        rewards: of the completions, a row for each prompt; NaN where a completion could not be scored.
        scale: divide by the group's standard deviation.
        eps: keeps the quotient finite, in the rewards' unit.
    """
    centred = rewards - jnp.nanmean(rewards, axis=-1, keepdims=True)
    if scale:
        centred = centred / (jnp.nanstd(rewards, axis=-1, keepdims=True) + eps)
    return jnp.where(zero_variance(rewards)[..., None] | jnp.isnan(rewards), 0.0, centred)


def leave_one_out_advantages(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """`A_i = r_i - mean of the others in the group` (RLOO, arXiv 2402.14740, section 2.2): G/(G - 1) times the
    difference to the group's mean, where G are scored, and an unbiased baseline."""
    scored = jnp.sum(~jnp.isnan(rewards), axis=-1, keepdims=True)
    return group_advantages(rewards, scale=False) * scored / jnp.maximum(scored - 1, 1)


def batch_std_advantages(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """`A_i = (r_i - mean(r)) / (std of the batch's rewards + eps)` (Lite PPO, arXiv 2508.08221): a group in which
    little happened weighs little."""
    return group_advantages(rewards, scale=False) / (jnp.nanstd(rewards) + EPS)


def reinforce_baseline_advantages(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """`A_i = (r_i - mean(r)) / (std of these differences over the batch + eps)` (REINFORCE++-baseline, arXiv
    2501.03262). Unlike Lite PPO's, the deviation leaves out how groups differ from one another."""
    centred = group_advantages(rewards, scale=False)
    return centred / (jnp.nanstd(jnp.where(jnp.isnan(rewards), jnp.nan, centred)) + EPS)


def batch_advantages(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """`A_i = (r_i - mean of the batch's rewards) / (std of these + eps)` (REINFORCE++, arXiv 2501.03262): of rewards
    that have a baseline already, or need none."""
    centred = (rewards - jnp.nanmean(rewards)) / (jnp.nanstd(rewards) + EPS)
    return jnp.where(zero_variance(rewards.reshape(-1)) | jnp.isnan(rewards), 0.0, centred)


def no_baseline(rewards: Float[Array, "rows group"]) -> Float[Array, "rows group"]:
    """`A_i = r_i` (REINFORCE)."""
    return jnp.nan_to_num(rewards)


ADVANTAGES: dict[str, Callable] = {
    "group": group_advantages,
    "leave_one_out": leave_one_out_advantages,
    "batch_std": batch_std_advantages,
    "reinforce_baseline": reinforce_baseline_advantages,
    "batch": batch_advantages,
    "none": no_baseline,
}


def of_tokens(
    advantages: Float[Array, "*batch"] | Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch time"]:
    """Advantages of completions as those of their tokens (their last dimension is then 1); those of tokens as they
    are."""
    return advantages if advantages.ndim == mask.ndim else advantages[..., None]


def zero_variance(rewards: Float[Array, "*rows group"]) -> Bool[Array, "*rows"]:
    """Which groups have no signal: every completion that was scored got the same reward. NaN: not scored."""
    unscored = jnp.isnan(rewards)
    return jnp.where(unscored, -jnp.inf, rewards).max(-1) <= jnp.where(unscored, jnp.inf, rewards).min(-1)
