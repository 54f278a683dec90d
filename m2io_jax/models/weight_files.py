"""The safetensors files of a folder, found before any is read; what lies there in their place is named as the cause.

A file that passes is complete: its header's offsets end where the file ends.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from m2io_jax.errors import UserError
from m2io_jax.models.json_files import LFS_HINT, LFS_POINTER, read_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
ADAPTER_SETTINGS, ADAPTER_TENSORS = "adapter_config.json", "adapter_model.safetensors"
WHOLE_HINT = "give a folder with every file of the model"
_HEADER_BYTES = 100_000_000  # the most that the format allows
_LISTED = 5
_SAVE_AGAIN = (
    "load it with transformers where it is trusted and save it again: "
    "AutoModelForImageTextToText.from_pretrained(FOLDER).save_pretrained(OTHER)"
)
# What a Trainer keeps beside the weights to resume.
_STATE = r"(optimizer|scheduler|scaler|rng_state|training_args|random_states).*"
# Files of other formats by their names, and what to say of them.
_FORMATS = (
    (r"pytorch_model.*\.bin|.*\.(pt|pth|ckpt)", "PyTorch's pickle format", _SAVE_AGAIN),
    (r".*\.gguf", "GGUF, a format of llama.cpp", "give the folder that it was made of"),
    (r"tf_model.*\.h5|flax_model.*\.msgpack", "the format of TensorFlow or Flax", "give the safetensors of the model"),
    (r".*\.distcp|global_step.*|zero_to_fp32\.py", "shards of a training run", "merge them into safetensors first"),
)
# Endings of tensors that stand for a weight in fewer bits, by what writes them; and the types of such weights.
_QUANTISED = (
    ("bitsandbytes", (".absmax", ".quant_map", ".SCB", ".nested_absmax")),
    ("GPTQ or AWQ", (".qweight", ".qzeros", ".g_idx")),
    ("MLX", (".scales", ".biases")),
    ("FP8 or compressed-tensors", (".weight_scale", ".weight_scale_inv", ".weight_packed", ".input_scale")),
)
_FEW_BITS = ("I8", "U8", "I32", "U32", "F8_E4M3", "F8_E5M2", "F4")
FLOAT_HINT = "give the model that was quantised, in bfloat16 or float32"


def require_weights(folder: Path) -> list[Path]:
    """Return the safetensors files of a model's folder, each of which is there and complete.

    Raises:
        UserError: naming the cause: no weights, another format, an adapter alone, a Git LFS pointer, a file that is
            missing or cut short.
    """
    index, single = folder / INDEX, folder / SINGLE
    if not index.is_file() and not single.is_file():
        raise _absent(folder)
    if not index.is_file():
        files = [single]
    else:
        files = sorted({_beside(folder, file, index) for file in _weight_map(index).values()})
        if single.is_file() and single not in files:
            what = f"There are two sets of weights: {SINGLE} and the files of {INDEX}."
            raise UserError(what, where=str(folder), mend="remove the one that is not meant")
    if missing := [file.name for file in files if not file.is_file()]:
        if len(files) == 1:
            what = f"The weights cannot be read: {missing[0]} is missing."
        else:
            what = f"The weights cannot be read: {len(missing)} of {len(files)} files are missing: {_shown(missing)}."
        raise UserError(what, where=str(index), mend=WHOLE_HINT)
    for file in files:
        require_complete(file, "weights")
    return files


def require_complete(path: Path, what: str) -> None:
    """Raise UserError unless a safetensors file is complete.

    Args:
        what: what the file holds, for the error.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(len(LFS_POINTER))
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 2 <= length <= min(size - 8, _HEADER_BYTES) else None
        tensors = () if header is None else header.items()
        ends = [tensor["data_offsets"][1] for name, tensor in tensors if name != "__metadata__"]
        end = 8 + length + max(ends, default=0)
    except OSError as error:
        raise _unreadable(path, what, error.strerror or str(error)) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        header, end = None, 0
    if begin.startswith(LFS_POINTER):
        reason = "this is a Git LFS pointer, not the file itself"
        raise _unreadable(path, what, reason, LFS_HINT)
    if header is None:
        raise _unreadable(path, what, "this is not a safetensors file, or only the first part of one")
    if size < end:
        raise _unreadable(path, what, f"the file is cut short: it has {size:,} of {end:,} bytes")


def require_plain(names: Sequence[str], dtype: Callable[[str], str], folder: Path) -> None:
    """Raise UserError where one cause, named here, makes most tensors unknown or missing.

    Args:
        names: of all tensors, as the published checkpoints have them.
        dtype: the type that a tensor is stored as, by its name.
    """
    for kind, endings in _QUANTISED:
        if found := [name for name in names if name.endswith(endings)]:
            what = f"The weights are quantised, by {kind} ({found[0]}); only float weights can be read."
            raise UserError(what, where=str(folder), mend=FLOAT_HINT)
    if found := [name for name in names if name.endswith(".weight") and dtype(name) in _FEW_BITS]:
        what = f"The weights are quantised: {found[0]} is {dtype(found[0])}; only float weights can be read."
        raise UserError(what, where=str(folder), mend=FLOAT_HINT)
    if found := [name for name in names if ".lora_A." in name or ".base_layer." in name]:
        what = f"The weights have adapters that were not merged ({found[0]})."
        mend = "merge them first, by PEFT's merge_and_unload(), or save them as an adapter of their own"
        raise UserError(what, where=str(folder), mend=mend)
    if found := [name for name in names if name.partition("visual.")[0] and ".visual." in name]:
        prefix = found[0].partition("visual.")[0]
        what = f"The tensors' names begin with {prefix!r}, which the wrapper of a training tool adds ({found[0]})."
        raise UserError(what, where=str(folder), mend="save the model that is inside of the wrapper")
    if not any(name.startswith("visual.") for name in names):
        what = "The weights have no tensor of a vision tower."
        raise UserError(what, where=str(folder), mend="give a whole Qwen2.5-VL or Qwen2-VL, not its language model")


def _unreadable(path: Path, what: str, reason: str, hint: str = WHOLE_HINT) -> UserError:
    return UserError(f"The {what} cannot be read: {reason}.", where=str(path), mend=hint)


def _absent(folder: Path) -> UserError:
    """Return the error for a folder without safetensors of a model, by what it holds instead."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    names = [name for name in names if not re.fullmatch(_STATE, name)]
    for pattern, kind, hint in _FORMATS:
        if found := [name for name in names if re.fullmatch(pattern, name)]:
            what = f"The weights cannot be read: they are in {kind} ({_shown(found)}), not in safetensors."
            return UserError(what, where=str(folder), mend=hint)
    if ADAPTER_SETTINGS in names:
        return adapter_alone(folder)
    if shards := [name for name in names if name.endswith(".safetensors")]:
        what = f"The weights cannot be read: there is no {INDEX} for {_shown(shards)}."
        return UserError(what, where=str(folder), mend=WHOLE_HINT)
    what = f"The weights cannot be read: there is neither {SINGLE} nor {INDEX}."
    return UserError(what, where=str(folder), mend=WHOLE_HINT)


def adapter_alone(folder: Path) -> UserError:
    """Return the error for a PEFT folder given in a model's place."""
    hint = f"add it to its model: m2io convert import MODEL FOLDER --adapter {folder}"
    return UserError("This folder holds an adapter alone, and no model.", where=str(folder), mend=hint)


def _weight_map(index: Path) -> dict[str, str]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise UserError("An index must have a `weight_map` from tensors to files.", where=str(index))
    return files


def _beside(folder: Path, name: str, index: Path) -> Path:
    if Path(name).name != name or name in (".", ".."):
        raise UserError(f"{name!r} is not the name of a file beside the index.", where=str(index))
    return folder / name


def _shown(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_LISTED]) + f" and {len(names) - _LISTED} more" * (len(names) > _LISTED)
