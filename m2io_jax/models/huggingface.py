"""The files of a Hugging Face folder beside its weights: config.json to our dimensions and back, and what goes with it.

    config.json                                   dimensions
    *.safetensors, model.safetensors.index.json   weights (models/weights.py)
    tokenizer, processor, generation settings     kept as they came, byte by byte

A policy's folder is such a folder, ours and those that are published alike.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2io_jax.errors import UserError
from m2io_jax.models.preprocessing import CLIP_MEAN, CLIP_STD
from m2io_jax.models.sizes import ModelConfig, SpecialTokens, TextConfig, VisionConfig

FAMILIES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "qwen2_vl": "Qwen2VLForConditionalGeneration"}
LEAST_PIXELS, MOST_PIXELS = 56 * 56, 28 * 28 * 1280  # what the published processors allow a picture

COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
)


def read_config(folder: Path) -> ModelConfig:
    """The dimensions in a Hugging Face folder's config.json, as published or as newer transformers write it.

    Raises:
        UserError: it is not there, not of these families, or asks for something that is not implemented.
    """
    raw, where = read_json(folder / "config.json"), str(folder / "config.json")
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"model_type is {family!r}.", where=where, mend=f"one of: {', '.join(FAMILIES)}")
    try:
        # Newer versions keep the language model's own settings in a section; what it leaves empty stands outside.
        text = raw | {key: value for key, value in (raw.get("text_config") or {}).items() if value is not None}
        vision = raw.get("vision_config") or {}
        _require_known(text, vision, family, where)
        return ModelConfig(_vision(family, vision), _text(text), _special(text))
    except KeyError as error:
        raise UserError(f"{error.args[0]} is missing.", where=where) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"This is not the configuration of a model: {error}.", where=where) from None


def _require_known(text: Mapping[str, Any], vision: Mapping[str, Any], family: str, where: str) -> None:
    """Refuses what would be computed in another way than here."""
    rope = _rope(text)
    act = vision.get("hidden_act", "quick_gelu" if family == "qwen2_vl" else "silu")
    unknown = {
        "use_sliding_window": text.get("use_sliding_window") or None,
        "rope_scaling.type": {rope.get(key) for key in ("type", "rope_type")} - {None, "mrope", "default"} or None,
        "hidden_act": text.get("hidden_act", "silu") if text.get("hidden_act", "silu") != "silu" else None,
        "vision_config.hidden_act": act if act != ("quick_gelu" if family == "qwen2_vl" else "silu") else None,
    }
    for key, value in unknown.items():
        if value is not None:
            raise UserError(f"{value} is not implemented.", where=f"{where}: {key}")


def _rope(text: Mapping[str, Any]) -> Mapping[str, Any]:
    return text.get("rope_parameters") or text.get("rope_scaling") or {}


def _size(found: Mapping[str, Any], key: str, otherwise: int | None = None) -> int:
    """A dimension; without one `otherwise`, where that is given. Raises KeyError or ValueError: it is none."""
    value = found[key] if otherwise is None else found.get(key, otherwise)
    if type(value) is not int or value < 1:
        raise ValueError(f"{key} is {value!r} but must be a whole number above 0")
    return value


def _text(text: Mapping[str, Any]) -> TextConfig:
    heads, rope = _size(text, "num_attention_heads"), _rope(text)
    return TextConfig(
        vocab_size=_size(text, "vocab_size"),
        hidden_size=_size(text, "hidden_size"),
        intermediate_size=_size(text, "intermediate_size"),
        num_hidden_layers=_size(text, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=_size(text, "num_key_value_heads"),
        mrope_section=tuple(rope["mrope_section"]),
        head_dim=_size(text, "hidden_size") // heads,
        rms_norm_eps=text["rms_norm_eps"],
        rope_theta=rope.get("rope_theta") or text["rope_theta"],
        tie_word_embeddings=text.get("tie_word_embeddings", False),
        max_position_embeddings=text["max_position_embeddings"],
        initializer_range=text.get("initializer_range", 0.02),
    )


def _vision(family: str, vision: Mapping[str, Any]) -> VisionConfig:
    common = dict(
        depth=_size(vision, "depth"),
        num_heads=_size(vision, "num_heads"),
        patch_size=_size(vision, "patch_size"),
        temporal_patch_size=_size(vision, "temporal_patch_size", 2),
        spatial_merge_size=_size(vision, "spatial_merge_size", 2),
        in_channels=vision.get("in_channels") or vision.get("in_chans") or 3,
    )
    if family == "qwen2_vl":  # whose `hidden_size` is what comes out
        return VisionConfig(
            hidden_size=_size(vision, "embed_dim"),
            intermediate_size=int(_size(vision, "embed_dim") * vision.get("mlp_ratio", 4)),
            out_hidden_size=_size(vision, "hidden_size"),
            fullatt_block_indexes=tuple(range(_size(vision, "depth"))),
            norm="layer",
            mlp="quick_gelu",
            **common,
        )
    return VisionConfig(
        hidden_size=_size(vision, "hidden_size"),
        intermediate_size=_size(vision, "intermediate_size"),
        out_hidden_size=_size(vision, "out_hidden_size"),
        fullatt_block_indexes=tuple(vision["fullatt_block_indexes"]),
        window_size=_size(vision, "window_size"),
        **common,
    )


def _special(found: Mapping[str, Any]) -> SpecialTokens:
    default = SpecialTokens()

    def first(otherwise: int, *keys: str) -> int:
        for key in keys:
            value = found.get(key)
            if value is not None and value != []:
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
        "initializer_range": text.initializer_range,
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


def companions(folder: Path) -> dict[str, bytes]:
    """The files of `COMPANIONS` that a folder has."""
    return {name: (folder / name).read_bytes() for name in COMPANIONS if (folder / name).is_file()}


def default_companions(config: ModelConfig) -> dict[str, bytes]:
    """Processor and generation settings for a model that was made here."""
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
        "preprocessor_config.json": json_bytes(processor),
        "generation_config.json": json_bytes(generation),
    }


def check_tokenizer(tokenizer, config: ModelConfig, folder: Path) -> None:
    """The tokenizer's marks have the ids that config.json says, so that pictures are found where they stand.

    Raises:
        UserError: they have not.
    """
    special = config.special
    marks = {
        "<|vision_start|>": special.vision_start,
        "<|vision_end|>": special.vision_end,
        "<|image_pad|>": special.image_pad,
        "<|video_pad|>": special.video_pad,
    }
    found = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    wrong = [f"{mark} is {found[mark]}, config.json says {marks[mark]}" for mark in marks if found[mark] != marks[mark]]
    if wrong:
        raise UserError("\n    ".join(["The tokenizer is not this model's:", *wrong]), where=str(folder))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"This file cannot be read: {error.strerror}.", where=str(path)) from None
    except ValueError as error:
        raise UserError(f"This is not JSON: {error}.", where=str(path)) from None
    if not isinstance(found, dict):
        raise UserError("A JSON object was expected.", where=str(path))
    return found
