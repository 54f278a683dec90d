"""Group-relative advantages: a completion is judged against the others for the same prompt (arXiv 2402.03300, 4.1)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def group_advantages(
    rewards: Float[Array, "rows group"], *, scale: bool, eps: float = 1e-6
) -> Float[Array, "rows group"]:
    """How much better each completion did than its group.

        A_i = (r_i - mean(r)) / (std(r) + eps)      scale=True   (GRPO, arXiv 2402.03300, 4.1.2)
        A_i =  r_i - mean(r)                        scale=False  (Dr. GRPO, arXiv 2503.20783, 3.1)

    The standard deviation is the population's (divided by the group's size), as in OThink-MR1 (arXiv 2503.16081).
    A group whose rewards are all equal has advantages of exactly 0: rounding of the mean is not a signal. So has a
    completion without a reward, which has no part in its group's mean and deviation.

    Args:
        rewards: of the completions, a row for each prompt; NaN where a completion could not be scored.
        scale: divide by the group's standard deviation.
        eps: keeps the quotient finite, in the rewards' unit.
    """
    centred = rewards - jnp.nanmean(rewards, axis=-1, keepdims=True)
    if scale:
        centred = centred / (jnp.nanstd(rewards, axis=-1, keepdims=True) + eps)
    return jnp.where(zero_variance(rewards)[..., None] | jnp.isnan(rewards), 0.0, centred)


def zero_variance(rewards: Float[Array, "rows group"]) -> Bool[Array, " rows"]:
    """Which groups have no signal: every completion that was scored got the same reward. NaN: not scored."""
    unscored = jnp.isnan(rewards)
    return jnp.where(unscored, -jnp.inf, rewards).max(-1) <= jnp.where(unscored, jnp.inf, rewards).min(-1)
