"""Supervised training: the negative log-likelihood of target completions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.training.optimizer import apply
from m2io_jax.training.state import TrainState


def supervised_loss(model, prompts: PromptBatch, targets: Completions):
    """Sum of `-log p(token)` over target tokens and their number; nats. The stop token is a target, padding is not."""
    log_probs, _ = model.completion_log_probs(prompts, targets)
    return -jnp.sum(log_probs * targets.mask), jnp.sum(targets.mask)


def make_supervised_update(structure: nnx.GraphDef, optimizer: optax.GradientTransformation) -> Callable:
    """`update(state, prompts, targets, learning_rate) -> (state, metrics)`, to be jitted."""

    def update(state: TrainState, prompts: PromptBatch, targets: Completions, learning_rate):
        def mean_loss(params):
            total, count = supervised_loss(nnx.merge(structure, params), prompts, targets)
            return total / jnp.maximum(count, 1)

        loss, gradients = jax.value_and_grad(mean_loss)(state.params)
        direction, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = apply(state.params, direction, learning_rate)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(gradients), "num_tokens": jnp.sum(targets.mask)}
        return TrainState(params, opt_state, state.step + 1), metrics

    return update
