"""Weights by their published names: safetensors of Qwen2.5-VL and Qwen2-VL to our modules and back.

A weight of ours is a weight of theirs by one table, `MODULES`. Theirs are matrices [out, in], one tensor a layer; ours
are [in, out], the layers stacked.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from safetensors import SafetensorError, safe_open

from m2io_jax.errors import UserError
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.json_files import json_bytes
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.models.weight_files import INDEX, SINGLE, WHOLE_HINT, require_plain, require_weights
from m2io_jax.parallel.exchange import whole
from m2io_jax.parallel.sharding import param_shardings

WeightType = Literal["float32", "bfloat16", "float16"]

FILE_BYTES = 1024**3
STAGED_BYTES = 256 * 1024**2  # larger stacks of layers go to their device layer by layer
_FLOATS = ("float32", "bfloat16", "float16")
_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_LISTED = 20

# Our module: theirs. `{}` is the number of the layer.
MODULES = {
    "language.embedding": "model.embed_tokens",
    "language.norm": "model.norm",
    "language.head": "lm_head",
    "language.blocks.norm1": "model.layers.{}.input_layernorm",
    "language.blocks.norm2": "model.layers.{}.post_attention_layernorm",
    "language.blocks.q": "model.layers.{}.self_attn.q_proj",
    "language.blocks.k": "model.layers.{}.self_attn.k_proj",
    "language.blocks.v": "model.layers.{}.self_attn.v_proj",
    "language.blocks.o": "model.layers.{}.self_attn.o_proj",
    "language.blocks.mlp.gate": "model.layers.{}.mlp.gate_proj",
    "language.blocks.mlp.up": "model.layers.{}.mlp.up_proj",
    "language.blocks.mlp.down": "model.layers.{}.mlp.down_proj",
    "vision.patch_embed": "visual.patch_embed.proj",
    "vision.blocks.norm1": "visual.blocks.{}.norm1",
    "vision.blocks.norm2": "visual.blocks.{}.norm2",
    "vision.blocks.qkv": "visual.blocks.{}.attn.qkv",
    "vision.blocks.proj": "visual.blocks.{}.attn.proj",
    "vision.blocks.mlp.gate": "visual.blocks.{}.mlp.gate_proj",
    "vision.blocks.mlp.up": "visual.blocks.{}.mlp.up_proj",
    "vision.blocks.mlp.down": "visual.blocks.{}.mlp.down_proj",
    "vision.blocks.mlp.fc1": "visual.blocks.{}.mlp.fc1",
    "vision.blocks.mlp.fc2": "visual.blocks.{}.mlp.fc2",
    "vision.merger.norm": "visual.merger.ln_q",
    "vision.merger.fc1": "visual.merger.mlp.0",
    "vision.merger.fc2": "visual.merger.mlp.2",
}
# Later versions of transformers write the same names behind other prefixes.
PREFIXES = {"model.visual.": "visual.", "model.language_model.": "model."}


@dataclass(frozen=True)
class Match:
    """One of our parameters and the tensors of theirs that it is made of: one, or one a layer."""

    ours: str
    theirs: tuple[str, ...]
    stacked: bool
    turned: bool  # a matrix, theirs [out, in]
    their_shape: tuple[int, ...]

    def view(self, ours: np.ndarray) -> np.ndarray:
        """One tensor of theirs from ours."""
        return np.ascontiguousarray(ours.T if self.turned else ours).reshape(self.their_shape)


def matches(config: ModelConfig) -> dict[str, Match]:
    """Every parameter of `Inserter(config)` by its name, adapters apart, with the tensors it is made of."""
    plain = nnx.to_flat_state(declared(replace(config, lora=None)))
    shapes = {_name(path): param.get_value().shape for path, param in plain}
    return {name: _match(name, shape, config) for name, shape in shapes.items()}


def declared(config: ModelConfig) -> nnx.State:
    """The parameters of `Inserter(config)` as shapes with logical axes."""
    return nnx.state(nnx.eval_shape(lambda: Inserter(config, rngs=nnx.Rngs(0))), nnx.Param)


def _match(name: str, shape: tuple[int, ...], config: ModelConfig) -> Match:
    module, _, leaf = name.rpartition(".")
    if name in MODULES:
        module, leaf = name, "weight"
    template, stacked = MODULES[module], ".blocks." in name
    tensor = f"{template}.{'bias' if leaf == 'bias' else 'weight'}"
    theirs = tuple(tensor.format(layer) for layer in range(shape[0])) if stacked else (tensor,)
    one = shape[1:] if stacked else shape
    turned, vision = leaf == "kernel", config.vision
    their_shape = one[::-1] if turned else one
    if name == "vision.patch_embed.kernel":
        their_shape = (one[1], vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    return Match(name, theirs, stacked, turned, their_shape)


class Tensors:
    """The tensors of a folder's safetensors files, by their published names; each is read when it is asked for."""

    def __init__(self, folder: Path, stack: ExitStack):
        self._where, self.twice = {}, list[str]()
        for file in require_weights(folder):
            try:
                opened = stack.enter_context(safe_open(str(file), framework="numpy"))
            except (OSError, SafetensorError) as error:
                raise UserError(f"The weights cannot be read: {error}.", where=str(file), mend=WHOLE_HINT) from None
            for name in opened.keys():
                if published(name) in self._where:
                    self.twice.append(published(name))
                self._where[published(name)] = (opened, name)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def slice(self, name: str):
        file, stored = self._where[name]
        return file.get_slice(stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.slice(name).get_shape())

    def dtype(self, name: str) -> str:
        kind = self.slice(name).get_dtype()
        return _NAMES.get(kind, kind)


def published(name: str) -> str:
    """A tensor's name as the published checkpoints have it."""
    for prefix, short in PREFIXES.items():
        if name.startswith(prefix):
            return short + name.removeprefix(prefix)
    return name


def in_torch(name: str) -> str:
    """A published name as it is called inside transformers' models."""
    for prefix, short in PREFIXES.items():
        if name.startswith(short):
            return prefix + name.removeprefix(short)
    return name


def load_weights(folder: Path, config: ModelConfig, mesh: Mesh, dtype: WeightType | None = None) -> nnx.State:
    """The parameters of `Inserter(config)` on the mesh's shards, adapters apart.

    Beside the arrays themselves the host holds one layer's part of one parameter, or a stack of a quarter of a GiB.

    Args:
        dtype: of the parameters; None keeps each tensor's own.

    Raises:
        UserError: no weights; or, all listed together, tensors that are missing, unknown, of another shape, or not
            floating point.
    """
    with ExitStack() as stack:
        tensors, wanted = Tensors(folder, stack), matches(config)
        _check(tensors, wanted, config, folder)
        abstract = declared(replace(config, lora=None))
        shardings = dict(nnx.to_flat_state(param_shardings(abstract, mesh)))
        filled = {}
        for path, param in nnx.to_flat_state(abstract):
            sharding = shardings[path].get_value()
            filled[path] = param.replace(_place(tensors, wanted[_name(path)], param.get_value().shape, sharding, dtype))
        return nnx.from_flat_state(filled)


def _check(tensors: Tensors, wanted: Mapping[str, Match], config: ModelConfig, folder: Path) -> None:
    """Raise UserError unless every tensor is used once and has the shape that is expected of it."""
    require_plain(list(tensors), tensors.dtype, folder)
    expected = {name: match.their_shape for match in wanted.values() for name in match.theirs}
    tied = config.text.tie_word_embeddings
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is there twice" for name in tensors.twice]
    for name in tensors:
        if name == "lm_head.weight" and tied:  # some versions save the tied matrix twice
            if not _equal(tensors, "lm_head.weight", "model.embed_tokens.weight"):
                problems.append("lm_head.weight differs from the embeddings that config.json ties it to")
        elif name not in expected:
            problems.append(f"{name} is no tensor of this model")
        elif tensors.shape(name) != expected[name]:
            problems.append(f"{name} is {list(tensors.shape(name))}, the model's is {list(expected[name])}")
        elif tensors.dtype(name) not in _FLOATS:
            problems.append(f"{name} is {tensors.dtype(name)}; one of {', '.join(_FLOATS)} can be read")
    if problems:
        what = "\n    ".join(["The weights are not this model's:", *listed(problems)])
        raise UserError(what, where=str(folder), mend="give the config.json and the weights of the same model")


def listed(problems: list[str]) -> list[str]:
    """The first of many problems, in order, and how many more there are."""
    problems = sorted(problems)
    return problems[:_LISTED] + [f"and {len(problems) - _LISTED} more"] * (len(problems) > _LISTED)


def _equal(tensors: Tensors, a: str, b: str, rows: int = 4096) -> bool:
    if b not in tensors or tensors.shape(a) != tensors.shape(b):
        return False
    first, second = tensors.slice(a), tensors.slice(b)
    parts = [slice(start, min(start + rows, end)) for end in tensors.shape(a)[:1] for start in range(0, end, rows)]
    return all(np.array_equal(first[part], second[part]) for part in parts)


def _place(
    tensors: Tensors, match: Match, shape: tuple[int, ...], sharding: NamedSharding, dtype: WeightType | None
) -> jax.Array:
    placed: dict[str, jax.Array] = {}  # by the part of the whole: it is read once, copies go from device to device
    shards = []
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        part = str(index)
        if part not in placed:
            placed[part] = _shard(tensors, match, index, dtype, device)
        shards.append(jax.device_put(placed[part], device))
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def _shard(
    tensors: Tensors, match: Match, index: tuple[slice, ...], dtype: WeightType | None, device: jax.Device
) -> jax.Array:
    """`index` of a parameter of ours, on one device."""
    if not match.stacked:
        whole = _one_tensor(tensors, match, match.theirs[0], index, dtype)
        return jax.device_put(np.ascontiguousarray(whole), device)
    names, inner = match.theirs[index[0]], index[1:]
    kind = jnp.dtype(dtype) if dtype else jnp.result_type(*(tensors.dtype(name) for name in names))
    layers = (_one_tensor(tensors, match, name, inner, dtype) for name in names)
    first = next(layers)
    if len(names) * first.nbytes <= STAGED_BYTES:
        return jax.device_put(np.stack([first, *layers]).astype(kind, copy=False), device)
    with jax.default_device(device):
        stack = jnp.zeros((len(names), *first.shape), kind)
    for number, layer in enumerate(chain([first], layers)):
        stack = _put_layer(stack, jax.device_put(np.ascontiguousarray(layer), device), number)
    return stack


@partial(jax.jit, donate_argnums=0)
def _put_layer(stack, layer, number):
    return jax.lax.dynamic_update_index_in_dim(stack, layer.astype(stack.dtype), number, axis=0)


def _one_tensor(tensors: Tensors, match: Match, name: str, index: tuple[slice, ...], dtype: WeightType | None):
    if len(match.their_shape) > 2:  # the convolution over patches: small, read whole
        part = tensors.slice(name)[:].reshape(match.their_shape[0], -1).T[index]
    else:
        part = tensors.slice(name)[index[::-1]].T if match.turned else tensors.slice(name)[index]
    return part if dtype is None else part.astype(jnp.dtype(dtype), copy=False)


def save_weights(
    folder: Path | None, params: nnx.State, config: ModelConfig, *, dtype: WeightType, file_bytes: int = FILE_BYTES
) -> None:
    """Writes published names and shapes, in files of at most `file_bytes` (a larger tensor has a file of its own).

    The host holds one file's tensors at a time. Adapters are left out (models/peft.py). All processes call it
    together; without a `folder` one only gives its shards to the one that writes.

    Raises:
        UserError: a file cannot be written, or a weight is too large for `dtype`.
    """
    flat, kind = {_name(path): param for path, param in nnx.to_flat_state(params)}, jnp.dtype(dtype)
    makers = {}
    for name, match in matches(config).items():
        size = int(np.prod(match.their_shape)) * kind.itemsize
        for layer, tensor in enumerate(match.theirs):
            makers[tensor] = size, partial(_their_tensor, flat[name], match, layer, kind)
    if folder is None:
        for _, make in makers.values():
            make()
    else:
        _write_files(folder, makers, file_bytes)


def copy_weights(
    source: Path,
    folder: Path,
    config: ModelConfig,
    *,
    dtype: WeightType | None = None,
    change: Callable[[str, np.ndarray], np.ndarray] = lambda name, tensor: tensor,
    file_bytes: int = FILE_BYTES,
) -> None:
    """Copies the weights of a folder, checked as `load_weights` does, without placing them anywhere.

    Args:
        dtype: of the copy; None keeps each tensor's own.
        change: what a tensor becomes, given its published name.

    Raises:
        UserError: as `load_weights` and `save_weights`.
    """

    def copied(name: str) -> np.ndarray:
        tensor = change(name, tensors.slice(name)[:])
        with np.errstate(over="ignore"):
            return tensor.astype(jnp.dtype(dtype or tensors.dtype(name)), copy=False)

    with ExitStack() as stack:
        tensors, wanted = Tensors(source, stack), matches(config)
        _check(tensors, wanted, config, source)
        makers = {
            name: (
                int(np.prod(match.their_shape)) * jnp.dtype(dtype or tensors.dtype(name)).itemsize,
                partial(copied, name),
            )
            for match in wanted.values()
            for name in match.theirs
        }
        _write_files(folder, makers, file_bytes)


def _write_files(folder: Path, makers: Mapping[str, tuple[int, Callable[[], np.ndarray]]], file_bytes: int) -> None:
    """Tensors by name, with their bytes, into one file or several with an index."""
    files: list[dict[str, Callable[[], np.ndarray]]] = [{}]
    used = 0
    for name, (size, make) in makers.items():
        if used + size > file_bytes and files[-1]:
            files.append({})
            used = 0
        files[-1][name] = make
        used += size
    count = len(files)
    names = [SINGLE] if count == 1 else [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    for file, tensors in zip(names, files, strict=True):
        save_tensors(folder / file, {name: make() for name, make in tensors.items()})
    if count > 1:
        where = {name: file for file, tensors in zip(names, files, strict=True) for name in tensors}
        total = sum(size for size, _ in makers.values())
        (folder / INDEX).write_bytes(json_bytes({"metadata": {"total_size": total}, "weight_map": where}))


def _their_tensor(param: nnx.Variable, match: Match, layer: int, kind: np.dtype) -> np.ndarray:
    value = param.get_value()
    # NumPy cuts and casts: JAX would compile a program for every shape. But a device's memory is not read whole.
    if isinstance(value, jax.Array) and [device.platform for device in value.devices()] == ["cpu"]:
        value = np.asarray(value)  # no copy
    with np.errstate(over="ignore"):  # what does not fit is said when it is written
        return match.view(whole(value[layer] if match.stacked else value).astype(kind, copy=False))


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """One safetensors file, complete or absent, also when the writing is killed.

    Raises:
        UserError: it cannot be written, or a number is not finite.
    """
    unfit = [f"{name} has values that are not finite in {t.dtype}" for name, t in tensors.items() if not _finite(t)]
    if unfit:
        what = "\n    ".join(["The weights cannot be saved:", *listed(unfit)])
        raise UserError(what, where=str(path), mend="save them as float32 or bfloat16, and look at the training")
    draft = path.with_name(f".{path.name}.partial")
    try:
        safetensors.numpy.save_file(dict(tensors), str(draft), metadata={"format": "pt"})
        draft.chmod(0o644)
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            draft.unlink()
        mend = "make room or allow writing there"
        raise UserError(f"The weights cannot be written: {error}.", where=str(path), mend=mend) from error


def _finite(tensor: np.ndarray) -> bool:
    return bool(np.isfinite(tensor.astype(np.float32, copy=False)).all())


def _name(path: tuple) -> str:
    return ".".join(map(str, path))
