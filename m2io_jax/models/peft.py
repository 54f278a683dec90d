"""Adapters as PEFT keeps them: what it loads is what we train, and the other way round.

    adapter_config.json          rank, alpha, the modules that are adapted
    adapter_model.safetensors    lora_A [rank, in] and lora_B [out, rank] of every layer
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from m2io_jax.errors import UserError
from m2io_jax.models.huggingface import json_bytes, read_json
from m2io_jax.models.lora import ADAPTER, is_adapter
from m2io_jax.models.sizes import LoraConfig, ModelConfig
from m2io_jax.models.weights import MODULES, declared, in_torch, listed, published, save_tensors
from m2io_jax.parallel.exchange import whole

SETTINGS, TENSORS = "adapter_config.json", "adapter_model.safetensors"
MATRICES = {"a": "lora_A", "b": "lora_B"}
# What would make an adapter compute something else than `alpha / rank * (x @ a) @ b`.
_UNKNOWN_TO_US = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "layer_replication")


def save_adapter(folder: Path | None, params: nnx.State, config: ModelConfig) -> None:
    """Writes the adapters among `params`, in float32. As `save_weights`: in every process, one of which has a `folder`.

    Raises:
        UserError: they cannot be written.
    """
    tensors = {}
    for path, param in nnx.to_flat_state(params):
        if is_adapter(path):
            value = whole(param.get_value()).astype(np.float32)
            for layer, name in enumerate(_tensor_names(path, value.shape)):
                one = value[layer] if value.ndim == 3 else value
                tensors[f"base_model.model.{in_torch(name)}"] = np.ascontiguousarray(one.T)
    if folder is None:
        return
    modules = sorted({re.sub(r"^base_model\.model\.|\.lora_[AB]\.weight$", "", name) for name in tensors})
    lora = config.lora
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "target_modules": modules,
        "inference_mode": True,
    }
    save_tensors(folder / TENSORS, tensors)
    try:
        (folder / SETTINGS).write_bytes(json_bytes(settings))
    except OSError as error:
        mend = "make room or allow writing there"
        raise UserError(f"The adapter cannot be written: {error.strerror}.", where=str(folder), mend=mend) from error


def read_lora(folder: Path) -> LoraConfig:
    """Rank, alpha and modules of a PEFT folder.

    Raises:
        UserError: it is no LoRA adapter, or one that computes what ours cannot.
    """
    settings, where = read_json(folder / SETTINGS), str(folder / SETTINGS)
    if settings.get("peft_type") != "LORA":
        raise UserError(f"peft_type is {settings.get('peft_type')!r}.", where=where, mend="give a LoRA adapter")
    used = [key for key in _UNKNOWN_TO_US if settings.get(key)]
    if settings.get("bias", "none") != "none":
        used.append("bias")
    # Other ways to begin change the model's own weights.
    if settings.get("init_lora_weights") not in (None, True, False, "gaussian"):
        used.append("init_lora_weights")
    if used:
        raise UserError(f"This adapter uses what is not implemented here: {', '.join(used)}.", where=where)
    try:
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"r and lora_alpha must be numbers: {error}.", where=where) from None
    with _open(folder) as file:
        targets = {re.escape(_our_module(name, folder)) for name in file.keys()}
    return LoraConfig(rank, alpha * rank**0.5 if settings.get("use_rslora") else alpha, tuple(sorted(targets)))


def load_adapter(folder: Path, config: ModelConfig) -> nnx.State:
    """The adapters of a PEFT folder for a model of `config`, whose `lora` is `read_lora(folder)`; float32.

    Raises:
        UserError: all listed together, tensors that are missing or of another shape.
    """
    filled, problems = {}, []
    with _open(folder) as file:
        stored = {_plain(name): name for name in file.keys()}
        unused = set(stored)
        for path, param in nnx.to_flat_state(declared(config)):
            if not is_adapter(path):
                continue
            shape, layers = param.get_value().shape, []
            for name in _tensor_names(path, shape):
                unused.discard(name)
                found = file.get_tensor(stored[name]) if name in stored else None
                if found is None:
                    problems.append(f"{name} is missing")
                elif found.shape != shape[-1:-3:-1]:
                    problems.append(f"{name} is {list(found.shape)}, the model's is {list(shape[-1:-3:-1])}")
                else:
                    layers.append(found.astype(np.float32).T)
            if not problems:
                filled[path] = param.replace(jnp.asarray(np.stack(layers) if len(shape) == 3 else layers[0]))
    problems += [f"{name} is no module of this model" for name in unused]
    if problems:
        raise UserError("\n    ".join(["The adapter is not this model's:", *listed(problems)]), where=str(folder))
    return nnx.from_flat_state(filled)


def copy_adapter(source: Path, folder: Path) -> None:
    """Copies the two files of a PEFT folder, and nothing else that lies there."""
    folder.mkdir(exist_ok=True)
    for name in (SETTINGS, TENSORS):
        shutil.copyfile(source / name, folder / name)


@contextmanager
def merging(folder: Path, config: ModelConfig) -> Iterator[Callable[[str, np.ndarray], np.ndarray]]:
    """What a published tensor becomes when the adapters of a PEFT folder are added to it, in float32.

    Raises:
        UserError: as `read_lora` and `load_adapter`.
    """
    lora = read_lora(folder)
    load_adapter(folder, config.with_lora(lora))  # complete, and of this model
    with _open(folder) as file:
        stored = {_plain(name): name for name in file.keys()}

        def merged(name: str, tensor: np.ndarray) -> np.ndarray:
            module = name.removesuffix(".weight")
            if f"{module}.lora_A.weight" not in stored:
                return tensor
            a, b = (file.get_tensor(stored[f"{module}.lora_{kind}.weight"]).astype(np.float32) for kind in "AB")
            return tensor.astype(np.float32) + lora.alpha / lora.rank * (b @ a)

        yield merged


def _open(folder: Path):
    try:
        return safe_open(str(folder / TENSORS), framework="numpy")
    except (OSError, SafetensorError) as error:
        raise UserError(f"The adapter cannot be read: {error}.", where=str(folder / TENSORS)) from None


def _tensor_names(path: tuple, shape: tuple[int, ...]) -> list[str]:
    """An adapter's matrix by its published name, one a layer."""
    module, matrix = ".".join(path[: path.index(ADAPTER)]), MATRICES[path[-1]]
    template = f"{MODULES[module]}.{matrix}.weight"
    return [template.format(layer) for layer in range(shape[0])] if len(shape) == 3 else [template]


def _plain(name: str) -> str:
    """PEFT's name of a tensor, without what it and the versions of transformers put before it."""
    return published(name.removeprefix("base_model.model.").replace(".default.weight", ".weight"))


def _our_module(name: str, folder: Path) -> str:
    module = re.sub(r"\.lora_[AB]\.weight$", "", _plain(name))
    ours = {theirs: ours for ours, theirs in MODULES.items()}
    template = re.sub(r"(?<=\.)\d+(?=\.)", "{}", module, count=1)
    if module in ours or template in ours:
        return ours.get(module) or ours[template]
    raise UserError(f"{name} adapts no module of this model.", where=str(folder / TENSORS))
