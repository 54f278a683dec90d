"""Published weights in and out: Hugging Face folders of Qwen2.5-VL and Qwen2-VL to our modules and back.

    config.json                                   dimensions
    model.safetensors.index.json, *.safetensors   weights, in one file or several
    everything else                               tokenizer, processor, generation settings: kept as it is

A weight of ours is a weight of theirs by one table, `MODULES`. Theirs are matrices [out, in], one tensor a layer; ours
are [in, out], the layers stacked.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors import SafetensorError, safe_open

from m2io_jax.errors import UserError
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.sizes import ModelConfig, SpecialTokens, TextConfig, VisionConfig
from m2io_jax.parallel.sharding import param_shardings

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FAMILIES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "qwen2_vl": "Qwen2VLForConditionalGeneration"}
SHARD_BYTES = 2 * 1024**3
_LISTED = 20

# What stands beside published weights, besides the tokenizer, and is kept as it is.
COMPANIONS = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "chat_template.json",
)

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


def read_config(folder: Path) -> ModelConfig:
    """The dimensions in a Hugging Face folder's config.json, as published or as newer transformers write it.

    Raises:
        UserError: it is not there, not of these families, or asks for something that is not implemented.
    """
    raw, where = _read_json(folder / "config.json"), str(folder / "config.json")
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"model_type is {family!r}.", where=where, mend=f"one of: {', '.join(FAMILIES)}")
    text, vision = raw | raw.get("text_config", {}), raw.get("vision_config", {})
    if text.get("use_sliding_window"):
        raise UserError("Sliding-window attention is not implemented.", where=f"{where}: use_sliding_window")
    try:
        return ModelConfig(_vision(family, vision), _text(text), _special(text))
    except KeyError as error:
        raise UserError(f"{error.args[0]} is missing.", where=where) from None


def is_published(folder: Path) -> bool:
    """Whether this is a Hugging Face folder and not a policy's: both have a config.json, only one says what it is."""
    path = folder / "config.json"
    return path.is_file() and "model_type" in _read_json(path)


def companions(folder: Path) -> dict[str, bytes]:
    """The files of `COMPANIONS` that a folder has."""
    return {name: (folder / name).read_bytes() for name in COMPANIONS if (folder / name).is_file()}


def _text(text: Mapping[str, Any]) -> TextConfig:
    heads, rope = text["num_attention_heads"], text.get("rope_parameters") or text.get("rope_scaling") or {}
    return TextConfig(
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        num_hidden_layers=text["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=text["num_key_value_heads"],
        mrope_section=tuple(rope["mrope_section"]),
        head_dim=text["hidden_size"] // heads,
        rms_norm_eps=text["rms_norm_eps"],
        rope_theta=rope.get("rope_theta") or text["rope_theta"],
        tie_word_embeddings=text.get("tie_word_embeddings", False),
        max_position_embeddings=text["max_position_embeddings"],
    )


def _vision(family: str, vision: Mapping[str, Any]) -> VisionConfig:
    common = dict(
        depth=vision["depth"],
        num_heads=vision["num_heads"],
        patch_size=vision["patch_size"],
        temporal_patch_size=vision.get("temporal_patch_size", 2),
        spatial_merge_size=vision.get("spatial_merge_size", 2),
        in_channels=vision.get("in_channels") or vision.get("in_chans") or 3,
    )
    if family == "qwen2_vl":  # whose `hidden_size` is what comes out
        return VisionConfig(
            hidden_size=vision["embed_dim"],
            intermediate_size=int(vision["embed_dim"] * vision.get("mlp_ratio", 4)),
            out_hidden_size=vision["hidden_size"],
            fullatt_block_indexes=tuple(range(vision["depth"])),
            norm="layer",
            mlp="quick_gelu",
            **common,
        )
    return VisionConfig(
        hidden_size=vision["hidden_size"],
        intermediate_size=vision["intermediate_size"],
        out_hidden_size=vision["out_hidden_size"],
        fullatt_block_indexes=tuple(vision["fullatt_block_indexes"]),
        window_size=vision["window_size"],
        **common,
    )


def _special(found: Mapping[str, Any]) -> SpecialTokens:
    default = SpecialTokens()

    def first(otherwise: int, *keys: str) -> int:
        for key in keys:
            value = found.get(key)
            if value is not None:
                return value[0] if isinstance(value, list) else value
        return otherwise

    return SpecialTokens(
        pad=first(default.pad, "pad_token_id", "bos_token_id"),
        eos=first(default.eos, "eos_token_id"),
        image_pad=first(default.image_pad, "image_token_id"),
        video_pad=first(default.video_pad, "video_token_id"),
        vision_start=first(default.vision_start, "vision_start_token_id"),
        vision_end=first(default.vision_end, "vision_end_token_id"),
    )


def write_config(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """A config.json in the published form, which transformers, vLLM and `read_config` read."""
    text, vision, special = config.text, config.vision, config.special
    family = "qwen2_vl" if vision.mlp == "quick_gelu" else "qwen2_5_vl"
    common = dict(
        depth=vision.depth,
        num_heads=vision.num_heads,
        patch_size=vision.patch_size,
        spatial_patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        spatial_merge_size=vision.spatial_merge_size,
        in_chans=vision.in_channels,
        in_channels=vision.in_channels,
    )
    if family == "qwen2_vl":
        ratio = vision.intermediate_size // vision.hidden_size
        towers = dict(embed_dim=vision.hidden_size, mlp_ratio=ratio, hidden_size=vision.out_hidden_size)
    else:
        towers = dict(
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            out_hidden_size=vision.out_hidden_size,
            fullatt_block_indexes=list(vision.fullatt_block_indexes),
            window_size=vision.window_size,
            hidden_act="silu",
            tokens_per_second=2,
        )
    return {
        "architectures": [FAMILIES[family]],
        "model_type": family,
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "hidden_act": "silu",
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(text.mrope_section)},
        "max_position_embeddings": text.max_position_embeddings,
        "tie_word_embeddings": text.tie_word_embeddings,
        "use_sliding_window": False,
        "torch_dtype": dtype,
        "bos_token_id": special.pad,
        "pad_token_id": special.pad,
        "eos_token_id": special.eos,
        "image_token_id": special.image_pad,
        "video_token_id": special.video_pad,
        "vision_start_token_id": special.vision_start,
        "vision_end_token_id": special.vision_end,
        "vision_config": {"model_type": family, **common, **towers},
    }


def matches(config: ModelConfig) -> dict[str, Match]:
    """Every parameter of `Inserter(config)` by its name, with the tensors it is made of."""
    return {name: _match(name, shape, config) for name, shape in _declared(config).items()}


def _declared(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    abstract = nnx.state(nnx.eval_shape(lambda: Inserter(config, rngs=nnx.Rngs(0))), nnx.Param)
    return {".".join(map(str, path)): param.get_value().shape for path, param in nnx.to_flat_state(abstract)}


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
        index = folder / INDEX
        files = sorted(set(_read_json(index)["weight_map"].values())) if index.is_file() else [SINGLE]
        self._where = {}
        for file in files:
            if Path(file).name != file:
                raise UserError(f"{file!r} is not the name of a file beside the index.", where=str(index))
            try:
                opened = stack.enter_context(safe_open(str(folder / file), framework="numpy"))
            except (OSError, SafetensorError) as error:
                mend = "give a folder with every file of the model"
                raise UserError(f"The weights cannot be read: {error}.", where=str(folder / file), mend=mend) from None
            self._where |= {published(name): (opened, name) for name in opened.keys()}

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def slice(self, name: str):
        file, stored = self._where[name]
        return file.get_slice(stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.slice(name).get_shape())


def published(name: str) -> str:
    """A tensor's name as the published checkpoints have it."""
    for prefix, short in PREFIXES.items():
        if name.startswith(prefix):
            return short + name.removeprefix(prefix)
    return name


def load_weights(folder: Path, config: ModelConfig, mesh: Mesh, dtype=None) -> nnx.State:
    """The parameters of `Inserter(config)` on the mesh's shards, read tensor by tensor.

    Beside the arrays themselves the host holds one tensor of one layer at a time, and of it only what its devices need.

    Args:
        dtype: of the parameters; None keeps each tensor's own.

    Raises:
        UserError: all listed together, tensors that are missing, unknown or of another shape.
    """
    with ExitStack() as stack:
        tensors, wanted = Tensors(folder, stack), matches(config)
        _check(tensors, wanted, config, folder)
        abstract = nnx.state(nnx.eval_shape(lambda: Inserter(config, rngs=nnx.Rngs(0))), nnx.Param)
        shardings = dict(nnx.to_flat_state(param_shardings(abstract, mesh)))
        filled = {}
        for path, param in nnx.to_flat_state(abstract):
            name, sharding = ".".join(map(str, path)), shardings[path].get_value()
            filled[path] = param.replace(_place(tensors, wanted[name], param.get_value().shape, sharding, dtype))
        return nnx.from_flat_state(filled)


def _check(tensors: Tensors, wanted: Mapping[str, Match], config: ModelConfig, folder: Path) -> None:
    """Every tensor is used once and has the shape that is expected of it."""
    expected = {name: match.their_shape for match in wanted.values() for name in match.theirs}
    tied = config.text.tie_word_embeddings
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    for name in tensors:
        if name == "lm_head.weight" and tied:  # some versions save the tied matrix twice
            if not _equal(tensors, "lm_head.weight", "model.embed_tokens.weight"):
                problems.append("lm_head.weight differs from the embeddings that config.json ties it to")
        elif name not in expected:
            problems.append(f"{name} is no tensor of this model")
        elif tensors.shape(name) != expected[name]:
            problems.append(f"{name} is {list(tensors.shape(name))}, the model's is {list(expected[name])}")
    if problems:
        problems.sort()
        lines = problems[:_LISTED] + [f"and {len(problems) - _LISTED} more"] * (len(problems) > _LISTED)
        mend = "give the config.json and the weights of the same model"
        raise UserError("\n    ".join(["The weights are not this model's:", *lines]), where=str(folder), mend=mend)


def _equal(tensors: Tensors, a: str, b: str, rows: int = 4096) -> bool:
    if b not in tensors or tensors.shape(a) != tensors.shape(b):
        return False
    first, second = tensors.slice(a), tensors.slice(b)
    parts = [slice(start, min(start + rows, end)) for end in tensors.shape(a)[:1] for start in range(0, end, rows)]
    return all(np.array_equal(first[part], second[part]) for part in parts)


def _place(tensors: Tensors, match: Match, shape: tuple[int, ...], sharding: NamedSharding, dtype) -> jax.Array:
    def read(tensor: str, index: tuple[slice, ...]) -> np.ndarray:
        if len(match.their_shape) > 2:  # the convolution over patches: small, read whole
            part = tensors.slice(tensor)[:].reshape(match.their_shape[0], -1).T[index]
        else:
            part = tensors.slice(tensor)[index[::-1]].T if match.turned else tensors.slice(tensor)[index]
        return np.ascontiguousarray(part if dtype is None else part.astype(dtype))

    if not match.stacked:
        return jax.make_array_from_callback(shape, sharding, partial(read, match.theirs[0]))
    one = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    kind = _dtype(tensors, match.theirs[0]) if dtype is None else jnp.dtype(dtype)
    stack = jax.jit(partial(jnp.zeros, shape, kind), out_shardings=sharding)()
    put = jax.jit(lambda stack, layer, number: stack.at[number].set(layer), donate_argnums=0, out_shardings=sharding)
    for number, tensor in enumerate(match.theirs):
        stack = put(stack, jax.make_array_from_callback(shape[1:], one, partial(read, tensor)), number)
    return stack


def _dtype(tensors: Tensors, name: str) -> np.dtype:
    shape = tensors.shape(name)
    return tensors.slice(name)[tuple(slice(0, 1) for _ in shape)].dtype


def save_weights(
    folder: Path, params: nnx.State, config: ModelConfig, *, dtype: str, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes published names and shapes, in files of at most `shard_bytes` (a larger tensor has a file of its own).

    The host holds one file's tensors at a time. Files appear under their names when they are complete.
    """
    flat, kind = {".".join(map(str, path)): value for path, value in nnx.to_flat_state(params)}, jnp.dtype(dtype)
    plan: list[list[tuple[str, Callable[[], np.ndarray]]]] = [[]]
    used = total = 0
    for name, match in matches(config).items():
        size = int(np.prod(match.their_shape)) * kind.itemsize
        for layer, tensor in enumerate(match.theirs):
            if used + size > shard_bytes and plan[-1]:
                plan.append([])
                used = 0
            plan[-1].append((tensor, partial(_one, flat[name], match, layer, kind)))
            used, total = used + size, total + size
    names = [SINGLE] if len(plan) == 1 else _numbered(len(plan))
    for file, tensors in zip(names, plan, strict=True):
        _write(folder / file, {tensor: make() for tensor, make in tensors})
    if len(plan) > 1:
        where = {tensor: file for file, tensors in zip(names, plan, strict=True) for tensor, _ in tensors}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _numbered(count: int) -> list[str]:
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def _one(param: nnx.Variable, match: Match, layer: int, kind: np.dtype) -> np.ndarray:
    value = param.get_value()
    return match.view(np.asarray(value[layer] if match.stacked else value).astype(kind))


def _write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    partial_path = path.with_name(f".{path.name}.partial")
    try:
        safetensors.numpy.save_file(tensors, str(partial_path), metadata={"format": "pt"})
        partial_path.replace(path)
    except (OSError, SafetensorError) as error:
        partial_path.unlink(missing_ok=True)
        mend = "make room or allow writing there"
        raise UserError(f"The weights cannot be written: {error}.", where=str(path), mend=mend) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"This file cannot be read: {error.strerror}.", where=str(path)) from None
    except ValueError as error:
        raise UserError(f"This is not JSON: {error}.", where=str(path)) from None
    if not isinstance(found, dict):
        raise UserError("A JSON object was expected.", where=str(path))
    return found
