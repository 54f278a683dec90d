"""A deeper model that computes what a shallower one does, to go on from there (block expansion, arXiv 2401.02415)."""

from dataclasses import replace

import jax.numpy as jnp
from flax import nnx

from m2io_jax.errors import UserError
from m2io_jax.models.policy import Policy
from m2io_jax.models.sizes import model_config

BLOCKS = ("language", "blocks")
WRITES = (("o", "kernel"), ("mlp", "down", "kernel"))  # what a block adds to the residual stream goes through these


def grown(policy: Policy, size: str) -> Policy:
    """The policy with more blocks in its language model: after each stand copies of it that add nothing until trained.

    Raises:
        UserError: the size differs in more than the number of blocks, which must be a multiple; or there are adapters.
    """
    config, own = model_config(size), policy.config.text.num_hidden_layers
    layers = config.text.num_hidden_layers
    deeper = replace(policy.config, text=replace(policy.config.text, num_hidden_layers=layers))
    if layers % own or not config.same_shapes(deeper) or policy.config.lora is not None:
        what = f"A policy of {own} blocks cannot be grown to the size `{size}`."
        raise UserError(what, where="model", mend="give a size of a multiple of as many blocks, alike in all else")
    flat = [(path, _grown(path, param, layers // own)) for path, param in nnx.to_flat_state(policy.params)]
    return replace(policy, config=deeper, params=nnx.from_flat_state(flat))


def _grown(path: tuple, param: nnx.Variable, times: int) -> nnx.Variable:
    if path[:2] != BLOCKS:
        return param
    value = jnp.repeat(param.get_value(), times, axis=0)
    if path[2:] in WRITES:
        value = value.at[jnp.arange(len(value)) % times != 0].set(0.0)
    return param.replace(value)
