"""A grown policy computes what it was grown from, and its new blocks can be trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m2io_jax.config import BatchConfig
from m2io_jax.episodes.batching import PromptEncoder, stack_completions, stack_prompts
from m2io_jax.episodes.prompt import Prompt
from m2io_jax.errors import UserError
from m2io_jax.models.growing import grown
from m2io_jax.models.policy import load_policy

TIMES = 3


@pytest.fixture(scope="module")
def both():
    policy = load_policy("base")
    return policy, grown(policy, "deep")


@pytest.fixture(scope="module")
def batch(both):
    encoder = PromptEncoder(both[0].config, both[0].codec, BatchConfig(prompt_length=40, pictures=1, patches=4))
    rows = [encoder.row(Prompt("Say it.", (words,)), (), seed=0) for words in ("three red eggs", "a pan")]
    targets = [[list(both[0].codec.encode(words))] for words in (" in the pan=2", " none")]
    return stack_prompts(rows), stack_completions(targets, 8, 0)


def log_probs(structure, params, batch):
    return nnx.merge(structure, params).completion_log_probs(*batch)[0]


def test_it_computes_the_same_and_learns_with_every_block(both, batch):
    policy, deep = both
    assert deep.config.text.num_hidden_layers == TIMES * policy.config.text.num_hidden_layers

    def loss(params, structure):
        values = log_probs(structure, params, batch)
        return -jnp.sum(values * batch[1].mask), values

    found, gradients = {}, {}
    for name, each in (("own", policy), ("deep", deep)):
        step = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
        (_, found[name]), gradients[name] = step(each.params, each.structure)
    mask = np.asarray(batch[1].mask)
    np.testing.assert_allclose(found["deep"][mask], found["own"][mask], rtol=0, atol=2e-5)
    of = dict(nnx.to_flat_state(gradients["deep"]))
    for path in (("o", "kernel"), ("mlp", "down", "kernel")):
        by_block = np.abs(of["language", "blocks", *path].get_value()).max(axis=(1, 2))
        assert (by_block > 1e-6).all()  # the projections that are 0 move; then what is before them does


def test_every_old_block_is_followed_by_copies_that_write_nothing(both):
    old, new = (dict(nnx.to_flat_state(each.params)) for each in both)
    for path, param in new.items():
        value, own = np.asarray(param.get_value()), np.asarray(old[path].get_value())
        if path[:2] != ("language", "blocks"):
            np.testing.assert_array_equal(value, own)
            continue
        np.testing.assert_array_equal(value[::TIMES], own)
        copies = np.delete(value, np.s_[::TIMES], axis=0)
        writes = path[2:] in (("o", "kernel"), ("mlp", "down", "kernel"))
        np.testing.assert_array_equal(copies, 0 if writes else np.repeat(own, TIMES - 1, axis=0))


def test_other_sizes_are_refused(both):
    for policy, size in ((both[0], "3b"), (both[1], "tiny")):
        with pytest.raises(UserError, match="cannot be grown"):
            grown(policy, size)
