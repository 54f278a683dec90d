"""`m2io convert`: published weights into a policy's folder and a policy out of a run; both are Hugging Face folders.

Tensors go from file to file one by one: no accelerator is needed, and no memory for the model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from m2io_jax.errors import UserError
from m2io_jax.models.companions import ModelFolder, consistent_files, read_folder
from m2io_jax.models.huggingface import FLOATS, write_config
from m2io_jax.models.json_files import json_bytes, read_json
from m2io_jax.models.peft import (
    ADAPTER_FOLDER,
    adapter_folder,
    copy_adapter,
    load_adapter,
    merging,
    read_lora,
    show_adapter,
)
from m2io_jax.models.policy import existing_folder, model_folder
from m2io_jax.models.weights import WeightType, copy_weights


def import_folder(source: Path, folder: Path, *, adapter: Path | None = None, dtype: WeightType | None = None) -> Path:
    """Check published weights (every tensor once, every shape) and copy them into a policy's folder.

    Args:
        adapter: a PEFT folder to add beside them.
        dtype: of the copy; None keeps that of each tensor.

    Raises:
        UserError: the source is no folder of a model we have, its weights do not fit its config.json, it has adapters
            and others are given, or the folder holds something already.
    """
    source = existing_folder(source)
    own = adapter_folder(source)
    if adapter and own:
        mend = "merge them first: m2io convert export"
        raise UserError("This model has adapters already, which would be lost.", where=str(own), mend=mend)
    read = read_folder(source)
    files = consistent_files(read.files, read.config, str(source))
    with _converted(source, read, folder, files, dtype) as draft:
        copy_weights(source, draft, read.config, dtype=dtype)
        if adapter := adapter or own:
            load_adapter(adapter, read.config.with_lora(read_lora(adapter)))  # it is this model's
            copy_adapter(adapter, draft / ADAPTER_FOLDER)
            show_adapter(draft)
    return folder


def export_folder(run: Path, folder: Path, *, adapter: bool = False, dtype: WeightType = "bfloat16") -> Path:
    """Write a run's policy as a folder that transformers and vLLM load, adapters added to the weights.

    The image processor's settings get the run's bound, in every file that a version of transformers reads, and
    generation_config.json the stop tokens: a server shows the model what it was trained on, and stops where it does.

    Args:
        run: a run's folder, or the folder of a model, as `RUN/model` is.
        adapter: write the adapters alone, as a PEFT folder.

    Raises:
        UserError: there is no policy, it has no adapters, or the folder holds something already.
    """
    source = existing_folder(run)
    found = adapter_folder(source)
    if adapter and not found:
        raise UserError("This policy has no adapters.", where=str(run), mend="export it without --adapter")
    if adapter:
        _require_empty(folder)
        with model_folder(folder) as draft:
            copy_adapter(found, draft)
        return folder
    read = read_folder(source)
    files = consistent_files(read.files, read.config, str(source), _max_pixels(run))
    with _converted(source, read, folder, files, dtype) as draft:
        if found:
            with merging(found, read.config) as merged:
                copy_weights(source, draft, read.config, dtype=dtype, change=merged)
        else:
            copy_weights(source, draft, read.config, dtype=dtype)
    return folder


@contextmanager
def _converted(
    source: Path, read: ModelFolder, folder: Path, files: dict[str, bytes], dtype: WeightType | None
) -> Iterator[Path]:
    """Write everything but the weights, in a draft that becomes `folder` when it is complete."""
    _require_empty(folder)
    with model_folder(folder) as draft:
        for name, content in files.items():
            (draft / name).write_bytes(content)
        stored = read_json(source / "config.json")
        kinds = [dtype, stored.get("dtype"), stored.get("torch_dtype"), "bfloat16"]
        kind = next(kind for kind in kinds if kind in FLOATS)
        (draft / "config.json").write_bytes(json_bytes(write_config(read.config, kind)))
        yield draft


def _max_pixels(run: Path) -> int | None:
    """Return the bound on images of the run that `run`, or `run/..` where it is a run's `model`, holds; None: no run.

    Raises:
        UserError: the run's config.yaml is damaged.
    """
    above = [path.parent for path in (run, run.resolve()) if path.name == "model"]
    found = (folder / "config.yaml" for folder in (run, *above))
    path = next((path for path in found if path.is_file()), None)
    return None if path is None else _bound_in(path)


def _bound_in(path: Path) -> int | None:
    try:
        settings: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        mend = "restore the file: the bound on images stands there"
        raise UserError(f"The run's configuration cannot be read: {error}.", where=str(path), mend=mend) from None
    batch = settings.get("batch") if isinstance(settings, dict) else None
    most = batch.get("max_pixels") if isinstance(batch, dict) else None
    if most is None:
        return None
    if type(most) is not int or most < 1:
        raise UserError(f"batch.max_pixels is {most!r} but must be a whole number above 0.", where=str(path))
    return most


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("There is something here already.", where=str(folder), mend="give a folder that does not exist")
