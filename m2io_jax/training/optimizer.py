"""AdamW by Optax, with the learning rate as an argument of each step: a run that is bounded by time cannot know its
number of steps in advance, and a resumed run must not need to."""

import math

import jax
import optax

from m2io_jax.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping by global norm, Adam's direction, decoupled weight decay (arXiv 1711.05101). Unscaled: see `apply`."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay),
    )


def apply(params, direction, learning_rate):
    """`params - learning_rate * direction`, leaf by leaf."""
    return jax.tree.map(lambda param, step: (param - learning_rate * step).astype(param.dtype), params, direction)


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate at `progress` (0 to 1) of the run: linear warm-up, then constant, linear or cosine decay to 0."""
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    rest = (progress - config.warmup) / max(1e-9, 1 - config.warmup)
    decay = {"constant": 1.0, "linear": 1 - rest, "cosine": (1 + math.cos(math.pi * min(rest, 1.0))) / 2}
    return config.learning_rate * max(0.0, decay[config.schedule])
