"""Which weights a run trains. The others are kept once, for the policy and its reference together."""

import re

import jax
from flax import nnx

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.models.lora import is_adapter
from m2io_jax.parallel.sharding import are_shapes


def split(params: nnx.State, config: RunConfig) -> tuple[nnx.State, nnx.State]:
    """Trained and frozen parameters: with adapters, those alone are trained; else all that `freeze` does not name.

    Trained ones keep their dtype (float32: the master weights); frozen ones are stored in the run's.

    Raises:
        UserError: a pattern of `freeze` names nothing, or nothing is left to train.
    """
    flat = nnx.to_flat_state(params)
    names = [".".join(map(str, path)) for path, _ in flat]
    for pattern in config.freeze:
        if not any(re.fullmatch(pattern, name) for name in names):
            mend = f"patterns are for whole names, such as {names[0]}"
            raise UserError(f"{pattern!r} names no parameter.", where="freeze", mend=mend)

    def is_trained(path: tuple, name: str) -> bool:
        chosen = is_adapter(path) if config.lora else True
        return chosen and not any(re.fullmatch(pattern, name) for pattern in config.freeze)

    trained = [(path, param) for (path, param), name in zip(flat, names, strict=True) if is_trained(path, name)]
    kept = {path for path, _ in trained}
    if not trained:
        raise UserError("Nothing is left to train.", where="freeze")
    frozen = [(path, param) for path, param in flat if path not in kept]
    return nnx.from_flat_state(trained), stored(nnx.from_flat_state(frozen), config)


def stored(params: nnx.State, config: RunConfig) -> nnx.State:
    """Weights (or their shapes) that do not change, in the run's dtype, in which they would be used anyway."""
    dtype = config.computation.dtype
    if are_shapes(params):
        return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape.shape, dtype, sharding=shape.sharding), params)
    return jax.tree.map(lambda weight: weight.astype(dtype), params)


def join(trained: nnx.State, frozen: nnx.State) -> nnx.State:
    """All parameters again."""
    return nnx.from_flat_state([*nnx.to_flat_state(trained), *nnx.to_flat_state(frozen)])
