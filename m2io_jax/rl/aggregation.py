"""How the losses of tokens become one. Each way returns (sum, denominator): micro-batches and devices add both up and
divide once, so that neither changes the gradient."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Aggregation = Literal["sequence_mean", "token_mean", "constant_length"]
SumAndDenominator = tuple[Float[Array, ""], Float[Array, ""]]


def aggregate(
    per_token: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"], how: Aggregation, *, max_length: int
) -> SumAndDenominator:
    """Adds up a value of each token; over N completions of |o_i| tokens the quotient is

        sequence_mean      1/N sum_i 1/|o_i| sum_t        GRPO (arXiv 2402.03300, eq. 3)
        token_mean         1/(sum_i |o_i|) sum_i sum_t    DAPO (arXiv 2503.14476, eq. 8)
        constant_length    1/(N max_length) sum_i sum_t   Dr. GRPO (arXiv 2503.20783, section 3.1)

    BNPO is `token_mean` over the batch of one device; as numerator and denominator are added up over all of them here,
    it is DAPO's. A completion without tokens (padding, or left out by a filter) counts in none. Both numbers can be 0
    then: divide by `max(denominator, 1)`.

    Args:
        max_length: longest completion there may be, in tokens.

    Raises:
        ValueError: an unknown way.
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
    """The mean over each completion's tokens; 0 where it has none."""
    return jnp.where(mask, per_token, 0.0).sum(-1) / jnp.maximum(mask.sum(-1), 1)


def over_tokens(per_token: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]) -> SumAndDenominator:
    """Sum and number, for a metric that is a mean over all tokens."""
    return jnp.where(mask, per_token, 0.0).sum(), mask.sum().astype(jnp.float32)
