"""`m2io convert`: a Hugging Face folder to a policy's folder and back, with what stands beside the weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.models import huggingface
from m2io_jax.models.policy import Policy, load_policy
from m2io_jax.models.preprocessing import CLIP_MEAN, CLIP_STD
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.models.tokenizer import TextCodec, load_tokenizer
from m2io_jax.models.weights import WeightType
from m2io_jax.parallel.mesh import make_mesh

LEAST_PIXELS, MOST_PIXELS = 56 * 56, 28 * 28 * 1280  # what the published processors allow a picture


def import_folder(source: Path, folder: Path, dtype: WeightType = "bfloat16") -> Policy:
    """Reads published weights and writes a policy's folder.

    Raises:
        UserError: the source is no folder of a model we have, or its weights do not fit its config.json.
    """
    config = huggingface.read_config(source)
    tokenizer = load_tokenizer(source)
    _speaks(tokenizer, config, source)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    params = huggingface.load_weights(source, config, mesh, dtype)
    policy = Policy(config, params, TextCodec(tokenizer), huggingface.companions(source))
    policy.save(folder, dtype)
    return policy


def export_folder(run: Path, folder: Path, dtype: WeightType = "bfloat16") -> Path:
    """Writes a run's policy as a folder that transformers and vLLM load.

    Raises:
        UserError: there is no policy, or the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError("This folder is not empty.", where=str(folder), mend="give one that does not exist")
    policy = load_policy(str(run), size=None).without_adapters()
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        policy.codec.tokenizer.save_pretrained(partial)
        for name, content in (_settings(policy.config) | policy.companions).items():
            (partial / name).write_bytes(content)
        _write(partial / "config.json", huggingface.write_config(policy.config, dtype))
        huggingface.save_weights(partial, policy.params, policy.config, dtype=dtype)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        mend = "make room or allow writing there"
        raise UserError(f"The model cannot be written: {error.strerror}.", where=str(folder), mend=mend) from error
    return folder


def _speaks(tokenizer, config: ModelConfig, source: Path) -> None:
    """The tokenizer's marks have the ids that config.json says, so that pictures are found where they stand."""
    special = config.special
    marks = {
        "<|vision_start|>": special.vision_start,
        "<|vision_end|>": special.vision_end,
        "<|image_pad|>": special.image_pad,
        "<|video_pad|>": special.video_pad,
    }
    wrong = [
        f"{mark} is {tokenizer.convert_tokens_to_ids(mark)}, config.json says {expected}"
        for mark, expected in marks.items()
        if tokenizer.convert_tokens_to_ids(mark) != expected
    ]
    if wrong:
        raise UserError("\n    ".join(["The tokenizer is not this model's:", *wrong]), where=str(source))


def _settings(config: ModelConfig) -> dict[str, bytes]:
    """Processor and generation settings for a model that came without."""
    vision, special = config.vision, config.special
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor" if vision.mlp == "quick_gelu" else "Qwen2_5_VLProcessor",
        "min_pixels": LEAST_PIXELS,
        "max_pixels": MOST_PIXELS,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        "image_mean": [round(float(number), 8) for number in CLIP_MEAN],
        "image_std": [round(float(number), 8) for number in CLIP_STD],
    }
    generation = {"bos_token_id": special.pad, "pad_token_id": special.pad, "eos_token_id": [special.eos, special.pad]}
    return {
        "preprocessor_config.json": _json(processor),
        "generation_config.json": _json(generation),
    }


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(_json(content))
