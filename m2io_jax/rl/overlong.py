"""DAPO's two answers to completions that grow too long (arXiv 2503.14476, section 3.4)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def soft_overlong_penalty(lengths: Int[Array, "*batch"], *, max_length: int, buffer: int) -> Float[Array, "*batch"]:
    """What a completion's length adds to its reward (eq. 13), from 0 down to -1:

        0                                        up to max_length - buffer tokens
        (max_length - buffer - length)/buffer    from there to max_length

    Args:
        lengths: of completions, in tokens.
        max_length: longest completion there may be, in tokens.
        buffer: how many tokens before that the penalty begins; 1 or more.
    """
    return jnp.clip((max_length - buffer - lengths) / buffer, -1.0, 0.0)


def finished(
    tokens: Int[Array, "*batch time"], mask: Bool[Array, "*batch time"], stops: tuple[int, ...]
) -> Bool[Array, "*batch"]:
    """Which completions came to a stop token; the overlong filter learns from no other."""
    return (jnp.isin(tokens, jnp.array(stops)) & mask).any(-1)
