"""AdamW or Muon by Optax, with the learning rate as an argument of each step: a run that is bounded by time cannot
know its number of steps in advance, and a resumed run must not need to."""

import math

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from m2io_jax.config import OptimizerConfig

LIKE_ADAM = 0.2  # root mean square of Muon's updates, so that AdamW's learning rates suit it (arXiv 2502.16982)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW (arXiv 1711.05101) or Muon (arXiv 2502.16982). Unscaled: see `apply`."""
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    if config.name == "adamw":
        adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
        return optax.chain(clip, adam, optax.add_decayed_weights(config.weight_decay))
    descent = muon(
        1.0,
        consistent_rms=LIKE_ADAM,
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        eps=config.eps,
        adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=block_matrices,
    )
    return optax.chain(clip, descent, optax.scale(-1.0))  # the direction to subtract, as `apply` does


def block_matrices(params):
    """Which weights Muon orthogonalises: every matrix [layers, in, out] of the stacked blocks, each layer by itself.

    The others (embeddings, the head, what joins the towers, norms, biases) get None, and with it AdamW.
    """

    def numbers(path, param):
        names = [getattr(key, "key", None) for key in path]
        is_matrix = "blocks" in names and "kernel" in names and param.ndim == 3
        return MuonDimensionNumbers(reduction_axis=1, output_axis=2) if is_matrix else None

    return jax.tree_util.tree_map_with_path(numbers, params)


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
