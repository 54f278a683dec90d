"""Adapters as PEFT keeps them: what it loads is what we train, and the other way round.

    adapter_config.json          rank, alpha, the modules that are adapted
    adapter_model.safetensors    lora_A [rank, in] and lora_B [out, rank] of every layer

A policy's folder keeps them in `adapter/`. Beside its weights lie the same two files once more, and a README.md: so
transformers 5 with PEFT opens the whole policy, and whoever opens the base alone can read that it is.
"""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from m2io_jax.errors import UserError
from m2io_jax.models.json_files import json_bytes, read_json
from m2io_jax.models.lora import ADAPTER, fresh, is_adapter
from m2io_jax.models.sizes import LoraConfig, ModelConfig
from m2io_jax.models.weight_files import ADAPTER_SETTINGS as SETTINGS
from m2io_jax.models.weight_files import ADAPTER_TENSORS as TENSORS
from m2io_jax.models.weight_files import require_complete
from m2io_jax.models.weights import MODULES, declared, in_torch, listed, published, save_tensors
from m2io_jax.parallel.exchange import whole

ADAPTER_FOLDER = "adapter"
MATRICES = {"a": "lora_A", "b": "lora_B"}
# Settings that make an adapter compute something else than `alpha / rank * (x @ a) @ b` in every module, and why.
_REFUSED = {
    "use_dora": "it scales the weights' columns too (DoRA)",
    "modules_to_save": "it trained whole modules beside the adapters",
    "fan_in_fan_out": "its matrices are stored the other way round",
    "layer_replication": "it repeats layers of the model",
    "lora_bias": "its matrices have a bias",
    "trainable_token_indices": "it trained embeddings of tokens",
    "target_parameters": "it adapts parameters that are no modules",
    "alora_invocation_tokens": "it is active from some token on only (aLoRA)",
    "use_qalora": "it pools its inputs (QALoRA)",
    "use_bdlora": "its matrices are block-diagonal (BD-LoRA)",
    "arrow_config": "it mixes several adapters (Arrow)",
    "monteclora_config": "it draws its matrices anew (MonteCLoRA)",
}
# Ways to begin that leave the model's own weights as they are; the others change them.
_STARTS = (None, True, False, "gaussian", "orthogonal", "eva", "mica")
_START_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


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
    """Return rank, alpha and modules of a PEFT folder.

    How the adapters began, their dropout, and which layers they were put on change nothing of what they compute.

    Raises:
        UserError: naming the setting: the adapter computes something that is not implemented, or is damaged.
    """
    settings, where = read_json(folder / SETTINGS), str(folder / SETTINGS)
    if settings.get("peft_type") != "LORA":
        raise UserError(f"peft_type is {settings.get('peft_type')!r}.", where=where, mend="give a LoRA adapter")
    used = [f"{key} ({why})" for key, why in _REFUSED.items() if settings.get(key)]
    if settings.get("bias", "none") != "none":
        used.append(f"bias (it trained the modules' biases: {settings['bias']})")
    if used:
        raise UserError(f"This adapter uses what is not implemented here: {', '.join(used)}.", where=where)
    _require_plain_start(settings.get("init_lora_weights"), where)
    rank, alpha = _rank_and_alpha(settings, where)
    with _open(folder) as file:
        modules = {_published_module(name): _our_module(name, folder) for name in file.keys()}
        _require_targeted(settings, file.keys(), where)
        ranks = {_plain(n): (file.get_slice(n).get_shape() or [0])[0] for n in file.keys() if ".lora_A." in n}
    if not modules:
        raise UserError("This adapter holds no tensors.", where=str(folder / TENSORS))
    pattern, found = _pattern(settings, "rank_pattern", where), set(ranks.values())
    alphas = _pattern(settings, "alpha_pattern", where)
    for name, size in ranks.items() if pattern else ():
        if size != (expected := _matching(pattern, _published_module(name), rank)):
            what = f"{name} has rank {size}, but r and rank_pattern say {expected}."
            raise UserError(what, where=f"{where}: rank_pattern")
    if not pattern and rank not in found:
        raise UserError(f"r is {rank}, but its matrices have rank {min(found, default=0)}.", where=f"{where}: r")
    targets = tuple(sorted({re.escape(module) for module in modules.values()}))
    if not pattern and not alphas:
        return LoraConfig(rank, alpha * rank**0.5 if settings.get("use_rslora") else alpha, targets)
    widest = max(found)
    return LoraConfig(widest, (_scale(settings, rank, alpha) or 1.0) * widest, targets)


def _scale(settings: Mapping[str, Any], rank: int, alpha: float) -> float:
    """Return what `b @ a` is multiplied with in a module of this rank and alpha."""
    return alpha / (rank**0.5 if settings.get("use_rslora") else rank)


def _pattern(settings: Mapping[str, Any], key: str, where: str) -> dict[str, float]:
    """Return the numbers of `rank_pattern` or `alpha_pattern` by the modules' names.

    Raises:
        UserError: a name is a regular expression, which is not run for it comes with the file, or a number is none.
    """
    pattern = settings.get(key) or {}
    if not isinstance(pattern, dict):
        raise UserError(f"{key} is {pattern!r} but must hold a number by module.", where=f"{where}: {key}")
    for name, value in pattern.items():
        if not re.fullmatch(r"\^?[\w.]+", name):
            what = f"{name!r} is a regular expression; only names of modules can be read."
            raise UserError(what, where=f"{where}: {key}", mend="name each module whole, as PEFT does for itself")
        whole_number = type(value) is int or key == "alpha_pattern" and type(value) is float and math.isfinite(value)
        if not whole_number or value < 1 and key == "rank_pattern":
            raise UserError(f"{value!r} of {name!r} is no {key[:-8]}.", where=f"{where}: {key}")
    return pattern


def _matching(pattern: Mapping[str, float], module: str, otherwise: float) -> float:
    """Return the number of the first name that a module has or ends with, as PEFT looks it up."""
    spelled = (module, in_torch(module))
    for name, value in pattern.items():
        bare = name.removeprefix("^")
        if any(spelling == bare or name == bare and spelling.endswith(f".{bare}") for spelling in spelled):
            return value
    return otherwise


class _Module(NamedTuple):
    """An adapted module's rank, and what its `b @ a` is multiplied with."""

    rank: int
    scale: float


def _modules(folder: Path, names: Iterable[str]) -> dict[str, _Module]:
    """Return the adapted modules by their published names."""
    settings, where = read_json(folder / SETTINGS), str(folder / SETTINGS)
    rank, alpha = _rank_and_alpha(settings, where)
    ranks, alphas = (_pattern(settings, f"{name}_pattern", where) for name in ("rank", "alpha"))
    found = {}
    for module in map(_published_module, names):
        own = int(_matching(ranks, module, rank))
        found[module] = _Module(own, _scale(settings, own, _matching(alphas, module, alpha)))
    return found


def _require_plain_start(start: Any, where: str) -> None:
    """Raise UserError where the adapters began in a way that changed the model's own weights, or may have."""
    known = isinstance(start, bool | str | None) and start in _STARTS
    if known or isinstance(start, str) and start.lower() in _STARTS:
        return
    where = f"{where}: init_lora_weights"
    if isinstance(start, str) and start.lower().startswith(_START_CHANGES_BASE):
        what = f"These adapters began by {start!r}, which changed the model's own weights: they fit no published model."
        mend = "save them with PEFT's path_initial_model_for_weight_conversion, or merge them into their model"
        raise UserError(what, where=where, mend=mend)
    what, mend = f"{start!r} is not known here: it may have changed the model's own weights.", f"one of: {_STARTS}"
    raise UserError(what, where=where, mend=mend)


def _rank_and_alpha(settings: Mapping[str, Any], where: str) -> tuple[int, float]:
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise UserError(f"r and lora_alpha must be numbers: they are {rank!r} and {alpha!r}.", where=where)
    return rank, float(alpha)


def _require_targeted(settings: Mapping[str, Any], names: list[str], where: str) -> None:
    """Raise UserError where the file adapts a module that the settings leave out: PEFT would pass over it in silence.

    A list of names is compared as PEFT compares it. A regular expression is not run, for it comes with the file.
    """
    targets, layers = settings.get("target_modules"), settings.get("layers_to_transform")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        return
    targets = {spelling for target in targets for spelling in (target, published(target))}
    layers = [layers] if type(layers) is int else layers
    for name in names:
        module = _published_module(name)
        spelled = (module, in_torch(module), name.removeprefix("base_model.model.").partition(".lora_")[0])
        if not any(f".{spelling}".endswith(f".{target}") for spelling in spelled for target in targets):
            what = f"{name} adapts a module that target_modules does not name."
            raise UserError(what, where=f"{where}: target_modules", mend="give both files of the same adapter")
        layer = re.search(r"\.(\d+)\.", module)
        if isinstance(layers, list) and layers and not targets & set(spelled) and layer and int(layer[1]) not in layers:
            what = f"{name} adapts a layer that layers_to_transform does not name."
            raise UserError(what, where=f"{where}: layers_to_transform", mend="give both files of the same adapter")


def load_adapter(folder: Path, config: ModelConfig) -> nnx.State:
    """Load the adapters of a PEFT folder for a model of `config`, whose `lora` is `read_lora(folder)`; float32.

    A layer that the folder does not adapt gets an adapter that changes nothing, as new ones do: layers are stacked. So
    modules of a lower rank are widened by zeros, which stay zero, and another scale of theirs goes into lora_B.

    Raises:
        UserError: all listed together, tensors without their other half or of another shape.
    """
    abstract, scale = declared(config), config.lora.alpha / config.lora.rank
    filled, problems = dict(nnx.to_flat_state(fresh(abstract, seed=0))), []
    with _open(folder) as file:
        stored = {_plain(name): name for name in file.keys()}
        unused, modules = set(stored), _modules(folder, file.keys())
        for path, param in list(filled.items()):
            shape, layers = param.get_value().shape, np.array(param.get_value())
            stack = layers if len(shape) == 3 else layers[None]
            for layer, name in enumerate(_tensor_names(path, shape)):
                unused.discard(name)
                if name not in stored:
                    if _other_half(name) in stored:
                        problems.append(f"{name} is missing")
                    continue
                found, module = file.get_tensor(stored[name]), modules[_published_module(name)]
                matrix, is_a = stack[layer], path[-1] == "a"
                part = matrix[:, : module.rank] if is_a else matrix[: module.rank]
                if found.shape != part.shape[::-1]:
                    problems.append(f"{name} is {list(found.shape)}, the model's is {list(part.shape[::-1])}")
                    continue
                matrix[...] = 0
                part[...] = found.astype(np.float32).T
                if not is_a and module.scale != scale:
                    part *= module.scale / scale
            filled[path] = param.replace(jnp.asarray(layers))
    problems += [f"{name} is no module of this model" for name in unused]
    if problems:
        raise UserError("\n    ".join(["The adapter is not this model's:", *listed(problems)]), where=str(folder))
    return nnx.from_flat_state(filled)


def _other_half(name: str) -> str:
    return name.replace(".lora_A.", ".lora_B.") if ".lora_A." in name else name.replace(".lora_B.", ".lora_A.")


def adapter_folder(folder: Path) -> Path | None:
    """Return where a model's folder keeps its adapters: in `adapter/`, or beside its weights; None without any."""
    if (folder / ADAPTER_FOLDER).is_dir():
        return folder / ADAPTER_FOLDER
    return folder if (folder / SETTINGS).is_file() else None


def copy_adapter(source: Path, folder: Path) -> None:
    """Copies the two files of a PEFT folder, and nothing else that lies there."""
    folder.mkdir(exist_ok=True)
    for name in (SETTINGS, TENSORS):
        shutil.copyfile(source / name, folder / name)


README = """---
library_name: peft
---
# A policy of m2io_jax with adapters

The weights in `model*.safetensors` are the base that the run started from. What the run trained are the adapters in
`adapter/`; the same two files lie here once more.

- `m2io` reads both.
- transformers 5 opens both where PEFT is installed, and **the base alone, without a word, where it is not**.
- vLLM and most other servers open **the base alone**, or refuse the folder.

To serve or share the policy:

    m2io convert export FOLDER out            # one model, adapters added to its weights
    m2io convert export FOLDER out --adapter  # the adapters alone, for PEFT or vLLM's LoRA modules
"""


def show_adapter(folder: Path) -> None:
    """Put a model's adapters where transformers looks for them, and say in a README.md what the folder holds."""
    for name in (SETTINGS, TENSORS):
        try:
            os.link(folder / ADAPTER_FOLDER / name, folder / name)
        except OSError:  # a file system without hard links
            shutil.copyfile(folder / ADAPTER_FOLDER / name, folder / name)
    (folder / "README.md").write_text(README)


@contextmanager
def merging(folder: Path, config: ModelConfig) -> Iterator[Callable[[str, np.ndarray], np.ndarray]]:
    """What a published tensor becomes when the adapters of a PEFT folder are added to it, in float32.

    Raises:
        UserError: as `read_lora` and `load_adapter`.
    """
    lora = read_lora(folder)
    load_adapter(folder, config.with_lora(lora))  # complete, and of this model
    with _open(folder) as file:
        stored, modules = {_plain(name): name for name in file.keys()}, _modules(folder, file.keys())

        def merged(name: str, tensor: np.ndarray) -> np.ndarray:
            module = name.removesuffix(".weight")
            if f"{module}.lora_A.weight" not in stored:
                return tensor
            a, b = (file.get_tensor(stored[f"{module}.lora_{kind}.weight"]).astype(np.float32) for kind in "AB")
            return tensor.astype(np.float32) + modules[module].scale * (b @ a)

        yield merged


def _open(folder: Path):
    if not (folder / TENSORS).is_file() and (folder / "adapter_model.bin").is_file():
        what = "The adapter cannot be read: it is in PyTorch's pickle format (adapter_model.bin), not in safetensors."
        mend = "load it with PEFT where it is trusted and save it again: PeftModel.save_pretrained(OTHER)"
        raise UserError(what, where=str(folder), mend=mend)
    require_complete(folder / TENSORS, "adapter")
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


def _published_module(name: str) -> str:
    return re.sub(r"\.lora_[AB]\.weight$", "", _plain(name))


def _our_module(name: str, folder: Path) -> str:
    module = _published_module(name)
    ours = {theirs: ours for ours, theirs in MODULES.items()}
    template = re.sub(r"(?<=\.)\d+(?=\.)", "{}", module, count=1)
    if module in ours or template in ours:
        return ours.get(module) or ours[template]
    raise UserError(f"{name} adapts no module of this model.", where=str(folder / TENSORS))
