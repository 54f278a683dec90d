"""The critic: what the rest of a completion will earn, told before each of its tokens."""

from functools import cache

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.layers import Linear
from m2io_jax.models.sizes import ModelConfig

VALUE = "value"  # the name of the head in a parameter's path


class Critic(Inserter):
    """An inserter with a scalar in place of logits, which is 0 until it has learnt."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.language.head = None
        self.value = Linear((config.text.hidden_size, 1), ("embed", None), rngs=rngs, gain=0.0, bias=True)

    def values(
        self, prompts: PromptBatch, completions: Completions, pictures: Float[Array, "rows media size"] | None = None
    ) -> Float[Array, "rows group time"]:
        """The value of the state before each completion token, in the rewards' unit, in float32: read where the policy
        reads the token's logits."""
        hidden = self.language.norm(self.before_tokens(prompts, completions, pictures))
        return self.value(hidden.astype(jnp.float32))[..., 0]


@cache
def critic_structure(config: ModelConfig) -> nnx.GraphDef:
    """What `nnx.merge` needs beside the weights; nothing is allocated."""
    return nnx.split(nnx.eval_shape(lambda: Critic(config, rngs=nnx.Rngs(0))))[0]


def critic_start(trained: nnx.State, config: ModelConfig) -> nnx.State:
    """The weights that a critic begins with and trains: a policy's own, and a head that expects nothing.

    Args:
        trained: of the policy's weights those that are trained, or their shapes.
    """
    declared = nnx.state(nnx.eval_shape(lambda: Critic(config, rngs=nnx.Rngs(0))), nnx.Param)
    head = [
        (path, param.replace(np.zeros(param.get_value().shape, np.float32)))
        for path, param in nnx.to_flat_state(declared)
        if path[0] == VALUE
    ]
    return nnx.from_flat_state([*nnx.to_flat_state(without_logits(trained)), *head])


def without_logits(params: nnx.State) -> nnx.State:
    """A policy's weights but for the head, where it has one of its own: those that its critic has too."""
    return nnx.from_flat_state([each for each in nnx.to_flat_state(params) if each[0][:2] != ("language", "head")])
