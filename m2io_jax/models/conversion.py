"""`m2io convert`: published weights into a policy's folder and a policy out of a run; both are Hugging Face folders.

Tensors go from file to file one by one: no accelerator is needed, and no memory for the model.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from m2io_jax.errors import UserError
from m2io_jax.models.huggingface import check_tokenizer, companions, json_bytes, read_config, write_config
from m2io_jax.models.peft import copy_adapter, load_adapter, merging, read_lora
from m2io_jax.models.policy import ADAPTER_FOLDER, model_folder, policy_folder
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.models.tokenizer import load_tokenizer
from m2io_jax.models.weights import WeightType, copy_weights


def import_folder(source: Path, folder: Path, *, adapter: Path | None = None, dtype: WeightType | None = None) -> Path:
    """Checks published weights (every tensor once, every shape) and copies them into a policy's folder.

    Args:
        adapter: a PEFT folder to add beside them.
        dtype: of the copy; None keeps that of each tensor.

    Raises:
        UserError: the source is no folder of a model we have, its weights do not fit its config.json, or the folder
            holds something already.
    """
    with _converted(source, folder, dtype) as (config, draft):
        copy_weights(source, draft, config, dtype=dtype)
        adapter = adapter or _adapter_of(source)
        if adapter:
            load_adapter(adapter, config.with_lora(read_lora(adapter)))  # it is this model's
            copy_adapter(adapter, draft / ADAPTER_FOLDER)
    return folder


def export_folder(run: Path, folder: Path, *, adapter: bool = False, dtype: WeightType = "bfloat16") -> Path:
    """Writes a run's policy as a folder that transformers and vLLM load, adapters added to the weights.

    The processor's settings get the run's bound on pictures, so that a server shows the model what it was trained on.

    Args:
        adapter: write the adapters alone, as a PEFT folder.

    Raises:
        UserError: there is no policy, it has no adapters, or the folder holds something already.
    """
    source = policy_folder(run)
    found = _adapter_of(source)
    if adapter and not found:
        raise UserError("This policy has no adapters.", where=str(run), mend="export it without --adapter")
    if adapter:
        _require_empty(folder)
        with model_folder(folder) as draft:
            copy_adapter(found, draft)
        return folder
    with _converted(source, folder, dtype) as (config, draft):
        if found:
            with merging(found, config) as merged:
                copy_weights(source, draft, config, dtype=dtype, change=merged)
        else:
            copy_weights(source, draft, config, dtype=dtype)
        _bound_pictures(draft / "preprocessor_config.json", run / "config.yaml")
    return folder


@contextmanager
def _converted(source: Path, folder: Path, dtype: WeightType | None) -> Iterator[tuple[ModelConfig, Path]]:
    """Everything but the weights, in a draft that becomes `folder` when it is complete."""
    _require_empty(folder)
    config = read_config(source)
    check_tokenizer(load_tokenizer(source), config, source)
    with model_folder(folder) as draft:
        for name, content in companions(source).items():
            (draft / name).write_bytes(content)
        stored = json.loads((source / "config.json").read_text())
        kind = dtype or stored.get("dtype") or stored.get("torch_dtype") or "bfloat16"
        (draft / "config.json").write_bytes(json_bytes(write_config(config, kind)))
        yield config, draft


def _adapter_of(source: Path) -> Path | None:
    return source / ADAPTER_FOLDER if (source / ADAPTER_FOLDER).is_dir() else None


def _bound_pictures(processor: Path, run: Path) -> None:
    if not (processor.is_file() and run.is_file()):
        return
    settings, most = json.loads(processor.read_text()), yaml.safe_load(run.read_text())["batch"]["max_pixels"]
    least = min(most, settings.get("min_pixels") or 3136)
    settings |= {"min_pixels": least, "max_pixels": most}
    if "size" in settings:
        settings["size"] = {"shortest_edge": least, "longest_edge": most}
    processor.write_bytes(json_bytes(settings))


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("There is something here already.", where=str(folder), mend="give a folder that does not exist")
