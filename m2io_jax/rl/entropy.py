"""What entropy is used for beside a bonus of constant weight: a weight that holds it near a target, and advantages that
grow with it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def adapted_coefficient(coef: float, entropy: float, *, target: float, delta: float, most: float) -> float:
    """The weight of the next step: a step of `delta` up where the entropy is below the target, down where it is above.

    Skywork-OR1's rule (arXiv 2505.22312, adaptive entropy control), which also drops the bonus whole while the entropy
    is above the target. Here it falls step by step, and it stays between 0 and `most`: a target that cannot be reached
    would have it grow without end.

    Args:
        coef: the weight of this step.
        entropy, target: nats a token.
    """
    step = delta if entropy < target else -delta if entropy > target else 0.0
    return min(max(coef + step, 0.0), most)


def shaping_weights(
    advantages: Float[Array, "*batch"], entropy: Float[Array, "*batch time"], *, weight: float, bound: float
) -> Float[Array, "*batch time"]:
    """What a token's loss is multiplied with so that its advantage grows by its entropy (arXiv 2506.14758, eq. 4 and 5;
    MSSR, arXiv 2512.18215):

        A + min(weight * H, |A|/bound) = A (1 + min(weight * H, |A|/bound)/A)

    No gradient flows through the entropy. With a bound above 1 an advantage keeps its sign, so the weight is above 0,
    and a loss that is proportional to the advantage's size may as well be weighed. An advantage of 0 stays 0.

    Args:
        entropy: nats. The paper takes that of the policy that drew the token; a run gives that of the policy as it is
            updated, which is the same in the first update of rollouts that are not ahead.
    """
    advantages = advantages[..., None]
    added = jnp.minimum(weight * jax.lax.stop_gradient(entropy), jnp.abs(advantages) / bound)
    return 1 + jnp.where(advantages == 0, 0.0, added / jnp.where(advantages == 0, 1.0, advantages))
