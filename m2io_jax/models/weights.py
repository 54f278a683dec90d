"""A model's weights as one safetensors file: `language.blocks.q.kernel` is the path of a parameter in the module."""

import os
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from safetensors import SafetensorError, safe_open

from m2io_jax.errors import UserError
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.sizes import ModelConfig

WeightType = Literal["float32", "bfloat16", "float16"]

_FLOATS = ("float32", "bfloat16", "float16")
_LISTED = 20


def save_weights(path: Path | str, params: nnx.State, *, dtype: WeightType) -> None:
    """Writes every parameter, rounded to `dtype`. The file is complete or absent, also when the writing is killed.

    Raises:
        UserError: the file cannot be written, or a weight is too large for `dtype`.
    """
    path = Path(path)
    # NumPy casts: JAX would compile a program for every shape.
    host = {name: np.asarray(param.get_value()) for name, param in _by_name(params).items()}
    with np.errstate(over="ignore"):
        weights = {name: value.astype(jnp.dtype(dtype)) for name, value in host.items()}
    unfit = [f"{name} has values that are not finite in {dtype}" for name in weights if not _finite(weights[name])]
    _refuse(unfit, "The weights cannot be saved", path, "save them as float32 or bfloat16, and look at the training")
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(weights, str(partial), metadata={"format": "m2io_jax"})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        if partial.exists():
            partial.unlink()
        mend = "make room or allow writing there"
        raise UserError(f"The weights cannot be written: {error}.", where=str(path), mend=mend) from error


def load_weights(path: Path | str, config: ModelConfig) -> nnx.State:
    """Reads the parameters of `Inserter(config)` as float32, each with the logical axes it was declared with.

    Use it as `nnx.update(model, load_weights(path, config))`. Nothing is downloaded.

    Raises:
        UserError: the file is not there or not a safetensors file; or, all listed together, weights that are missing,
            unknown, of another shape, or not floating point.
    """
    model = nnx.eval_shape(lambda: Inserter(config, rngs=nnx.Rngs(0)))
    declared = _by_name(nnx.state(model, nnx.Param))
    try:
        with safe_open(str(path), framework="flax") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        mend = "give a file that save_weights wrote"
        raise UserError(f"The weights cannot be read: {error}.", where=str(path), mend=mend) from None
    _refuse(_misfits(declared, stored), "The weights are not this model's", path, "give the size they were saved with")
    # Filled by name: the order of a file's keys means nothing.
    filled = {
        tuple(_key(part) for part in name.split(".")): param.replace(
            jnp.asarray(np.asarray(stored[name]).astype(np.float32))
        )
        for name, param in declared.items()
    }
    return nnx.from_flat_state(filled)


def _by_name(params: nnx.State) -> dict[str, nnx.Param]:
    return {".".join(map(str, path)): param for path, param in nnx.to_flat_state(params)}


def _key(part: str) -> str | int:
    return int(part) if part.isdecimal() else part


def _finite(weight: np.ndarray) -> bool:
    return bool(np.isfinite(weight.astype(np.float32)).all())


def _misfits(declared: dict[str, nnx.Param], stored: dict[str, jax.Array]) -> list[str]:
    found = [f"{name} is missing" for name in declared if name not in stored]
    found += [f"{name} is no parameter of the model" for name in stored if name not in declared]
    for name in declared.keys() & stored.keys():
        shape, weight = declared[name].get_value().shape, stored[name]
        if weight.shape != shape:
            found.append(f"{name} is {list(weight.shape)}, the model's is {list(shape)}")
        elif weight.dtype.name not in _FLOATS:
            found.append(f"{name} is {weight.dtype.name}; one of {', '.join(_FLOATS)} can be read")
    return sorted(found)


def _refuse(problems: list[str], what: str, path: Path | str, mend: str) -> None:
    if not problems:
        return
    lines = problems[:_LISTED] + [f"and {len(problems) - _LISTED} more"] * (len(problems) > _LISTED)
    raise UserError("\n    ".join([f"{what}:", *lines]), where=str(path), mend=mend)
