"""Advantages of tokens by a critic, and what the critic learns by: PPO as language models have it.

A completion is an episode and each of its tokens an action; the value of a token is that of the state before it, which
is the prompt and the tokens before. Nothing is expected after the last token, be it a stop token or the one at which
the completion was cut off. A mask is True from a completion's first token to its last; what lies elsewhere is never
looked at, be it NaN.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m2io_jax.rl.advantages import EPS
from m2io_jax.rl.aggregation import SumAndDenominator, over_tokens


def token_rewards(
    rewards: Float[Array, "*batch"],
    kl: Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    kl_beta: float | Float[Array, ""],
) -> Float[Array, "*batch time"]:
    """What each token earns: `-kl_beta * kl`, and the last one the completion's reward too (InstructGPT, arXiv
    2203.02155, eq. 2, token by token).

    Args:
        kl: of the policy that sampled from the reference, at each token, in nats (`rl/kl.py`'s k1).
    """
    after = jnp.concatenate([mask[..., 1:], jnp.zeros_like(mask[..., :1])], axis=-1)
    earned = jnp.where(mask & ~after, rewards[..., None], 0.0)
    return earned - kl_beta * jnp.where(mask, kl, 0.0)


def generalized_advantages(
    rewards: Float[Array, "*batch time"],
    values: Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    discount: float,
    gae_lambda: float,
) -> tuple[Float[Array, "*batch time"], Float[Array, "*batch time"]]:
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16), with gamma the discount:

        A_t = sum_l (gamma lambda)^l d_(t+l)        d_t = r_t + gamma V_(t+1) - V_t

    Args:
        rewards: of each token; values: of the state before each token, in the rewards' unit.

    Returns:
        The advantages, and what the values should have been: `A_t + V_t`. Both are 0 outside of the mask.
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


def whitened(advantages: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]) -> Float[Array, "*batch time"]:
    """Less their mean, over their standard deviation, both over all tokens of the batch. Where all are equal, 0:
    rounding of the mean is not a signal."""
    centred = advantages - jnp.mean(advantages, where=mask)
    least, most = (jnp.where(mask, advantages, limit) for limit in (jnp.inf, -jnp.inf))
    scaled = centred / (jnp.std(advantages, where=mask) + EPS)
    return jnp.where(mask & (least.min() < most.max()), scaled, 0.0)


def value_loss(
    values: Float[Array, "*batch time"],
    old_values: Float[Array, "*batch time"],
    returns: Float[Array, "*batch time"],
    mask: Bool[Array, "*batch time"],
    *,
    clip: float | None,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumAndDenominator]]:
    """Half the squared error of the values, the larger of two (as in the code published with PPO, arXiv 1707.06347):

        max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2

    A token has no gradient once its value has moved by more than c and lies nearer to its return than c would bring it.

    Args:
        old_values: before the first of the updates that go by these returns.
        clip: c, in the rewards' unit; None: the first of the two alone.

    Returns:
        The sum, the number of tokens, and metrics by TRL's names, each a (sum, denominator) too.
    """
    values, old_values, returns = (jnp.where(mask, each, 0.0) for each in (values, old_values, returns))
    error = jnp.square(values - returns)
    worst = error
    if clip is not None:
        near = jnp.clip(values, old_values - clip, old_values + clip)
        worst = jnp.maximum(error, jnp.square(near - returns))
    total, tokens = over_tokens(worst / 2, mask)
    clipped = over_tokens((worst > error).astype(jnp.float32), mask)
    return total, tokens, {"loss/value_avg": (total, tokens), "val/clipfrac_avg": clipped}


def explained_variance(
    values: Float[Array, "*batch time"], returns: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, ""]:
    """The share of the returns' variance over tokens that the values know of: 1 where they are the returns, 0 where
    they are as good as one number, below 0 where they are worse. 0 where the returns do not vary."""
    left, all_of_it = (jnp.var(each, where=mask) for each in (returns - values, returns))
    return jnp.where(all_of_it > 0, 1 - left / jnp.where(all_of_it > 0, all_of_it, 1.0), 0.0)
