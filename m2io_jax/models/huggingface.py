"""config.json of a Hugging Face folder to our dimensions and back, for both families and either form of the file.

transformers 4 wrote the language model's settings flat, newer versions in `text_config`. Every setting that either
reads is read here, refused unless it has the one value that is computed (`_require_implemented`), or harmless
(models/config_keys.py). What is none of these is told (`unknown_settings`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from m2io_jax.errors import UserError
from m2io_jax.models.config_keys import KNOWN, MROPE_SECTION, TEXT_DEFAULTS, VISION_DEFAULTS
from m2io_jax.models.json_files import read_json
from m2io_jax.models.sizes import ModelConfig, SpecialTokens, TextConfig, VisionConfig
from m2io_jax.models.weight_files import ADAPTER_SETTINGS, FLOAT_HINT, adapter_alone

FAMILIES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "qwen2_vl": "Qwen2VLForConditionalGeneration"}
ACTS = {"qwen2_5_vl": "silu", "qwen2_vl": "quick_gelu"}  # of the vision tower; the language model's is silu
_OTHER_SENSES = "vis|vl|image|img|audio|speech|thinker"  # in keys of models that see or hear
FLOATS = ("float32", "bfloat16", "float16")
MAX_SIZE, MAX_LAYERS = 2**24, 1024  # far above any published model; what a damaged file says is not allocated


def read_config(folder: Path) -> ModelConfig:
    """Return the dimensions in a folder's config.json, as published or as newer transformers write it.

    Stop tokens and the image processor's settings stand in other files (`companions.read_folder`).

    Raises:
        UserError: it is not there, not of these families, or asks for something that is not implemented.
    """
    raw, where = _raw(folder), str(folder / "config.json")
    try:
        family = _require_family(raw, where)
        text, vision = _sections(raw, family)
        _require_implemented(raw, text, vision, where)
        return ModelConfig(_vision(family, vision), _text(raw, text), _special(_joined(raw), text))
    except KeyError as error:
        raise UserError(f"{error.args[0]} is missing.", where=where) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"This is not the configuration of a model: {error}.", where=where) from None
    except UserError as error:
        raise UserError(error.what, where=error.where or where, mend=error.mend) from None


def unknown_settings(folder: Path) -> list[str]:
    """Name the settings of a config.json that nobody here knows, dotted. They are not read."""
    raw = _raw(folder)
    sections = {"": raw} | {f"{name}.": raw.get(name) or {} for name in ("text_config", "vision_config")}
    return sorted(f"{name}{key}" for name, section in sections.items() for key in section if key not in KNOWN)


def config_stops(folder: Path) -> tuple[int, ...]:
    """Return the stop tokens that a config.json names, which `read_config` has found to be tokens."""
    named = _joined(_raw(folder)).get("eos_token_id")
    return tuple(named) if isinstance(named, list) else () if named is None else (named,)


def _raw(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file() and (folder / ADAPTER_SETTINGS).is_file():
        raise adapter_alone(folder)
    return read_json(folder / "config.json")


def _sections(raw: Mapping[str, Any], family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the language model and of the vision tower, defaults filled in as transformers does.

    Where `text_config` has the language model's, nothing outside of it counts. Raises KeyError: a section is absent.
    """
    text, vision = raw.get("text_config") or {}, raw.get("vision_config")
    if vision is None:
        raise KeyError("vision_config")
    if not text and "hidden_size" not in raw:
        raise KeyError("hidden_size")
    if "hidden_size" not in text and "hidden_size" in raw:
        text = _joined(raw)
    return TEXT_DEFAULTS | text, VISION_DEFAULTS[family] | vision


def _joined(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `text_config`, and what stands outside of it where it leaves a setting empty."""
    inner = {key: value for key, value in (raw.get("text_config") or {}).items() if value is not None}
    return {**raw, **inner}


def _require_family(raw: Mapping[str, Any], where: str) -> str:
    """Return the model's family. Raises UserError: it is another, or lacks the head that predicts tokens."""
    family, families = raw.get("model_type"), ", ".join(FAMILIES)
    if family not in FAMILIES:
        what = f"model_type is {family!r}."
        senses = any(re.search(_OTHER_SENSES, key) for key in (str(family), *raw))
        if family is not None and (not senses or str(family).endswith("_text")):
            what = f"model_type is {family!r}, a model of text alone: there is no vision_config."
        raise UserError(what, where=where, mend=f"one of: {families}")
    architectures = raw.get("architectures") or [FAMILIES[family]]
    if not isinstance(architectures, list) or not set(map(str, architectures)) <= set(FAMILIES.values()):
        what = f"architectures is {architectures!r}; only {FAMILIES[family]} is implemented."
        raise UserError(what, where=f"{where}: architectures", mend="give a model with its output head")
    return family


def _require_implemented(
    raw: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any], where: str
) -> None:
    """Raise UserError where something would be computed in another way than here."""
    for key in ("quantization_config", "compression_config", "quantization"):
        if found := raw.get(key) or text.get(key) or vision.get(key):
            unnamed = "MLX" if key == "quantization" else "an unnamed method"
            method = found.get("quant_method", unnamed) if isinstance(found, dict) else found
            what = f"The weights are quantised, by {method}; only float weights can be read."
            raise UserError(what, where=f"{where}: {key}", mend=FLOAT_HINT)
    for name in ("rope_parameters", "rope_scaling"):
        _require_rope(text, name, {"mrope", "default"}, where)
        _require_rope(vision, name, {"axial", "default"}, f"{where}: vision_config")
    act, layers = ACTS[raw["model_type"]], text.get("layer_types")
    head_dim = text["hidden_size"] // (text["num_attention_heads"] or 1)
    vision_width = vision["embed_dim" if raw["model_type"] == "qwen2_vl" else "hidden_size"]
    depth, heads = vision["depth"], vision["num_heads"]
    vision_head_dim = vision_width // (heads or 1)
    # Each setting, what it is, and the one value that is computed.
    needed = [
        ("use_sliding_window", text.get("use_sliding_window") or False, False),
        ("layer_types", sorted(set(layers or ["full_attention"])), ["full_attention"]),
        ("attention_dropout", text.get("attention_dropout") or 0, 0),
        ("hidden_act", text.get("hidden_act", "silu"), "silu"),
        ("head_dim", text.get("head_dim") or head_dim, head_dim),
        ("vision_config.hidden_act", vision.get("hidden_act", act), act),
        ("vision_config.head_dim", vision.get("head_dim") or vision_head_dim, vision_head_dim),
        # Other names, which transformers 5 reads and transformers 4 does not.
        ("vision_config.num_hidden_layers", vision.get("num_hidden_layers", depth), depth),
        ("vision_config.num_attention_heads", vision.get("num_attention_heads", heads), heads),
        ("vision_config.in_channels", vision.get("in_channels") or 3, 3),
        ("vision_config.in_chans", vision.get("in_chans") or 3, 3),
    ]
    for key in ("dtype", "torch_dtype"):
        if (stored := raw.get(key)) not in (None, "auto", *FLOATS):
            raise UserError(f"{stored} is not implemented: only {', '.join(FLOATS)}.", where=f"{where}: {key}")
    for key, found, expected in needed:
        if found != expected:
            raise UserError(f"{found} is not implemented: only {expected}.", where=f"{where}: {key}")


def _require_rope(section: Mapping[str, Any], name: str, allowed: set[str], where: str) -> None:
    rope = section.get(name) or {}
    for key in ("type", "rope_type"):
        if (kind := rope.get(key)) is not None and kind not in allowed:
            what = f"{kind} is not implemented: only {' and '.join(sorted(allowed))}."
            raise UserError(what, where=f"{where}: {name}.{key}")
    if nested := [key for key, value in rope.items() if isinstance(value, dict)]:
        what = f"Rotary positions that differ by layer ({nested[0]}) are not implemented."
        raise UserError(what, where=f"{where}: {name}")
    partial = rope.get("partial_rotary_factor", section.get("partial_rotary_factor"))
    if partial not in (None, 1):
        raise UserError(f"{partial} is not implemented: only 1.", where=f"{where}: partial_rotary_factor")


def _rope(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings, by either name; transformers takes `rope_scaling` where both stand."""
    return section.get("rope_scaling") or section.get("rope_parameters") or {}


def _size(found: Mapping[str, Any], key: str, most: int = MAX_SIZE) -> int:
    """Return a dimension. Raises ValueError: it is none."""
    value = found[key]
    if type(value) is not int or value < 1:
        raise ValueError(f"{key} is {value!r} but must be a whole number above 0")
    if value > most:
        raise ValueError(f"{key} is {value} but may be {most} at most")
    return value


def _number(value: Any, key: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{key} is {value!r} but must be a number above 0")
    return value


def _text(raw: Mapping[str, Any], text: Mapping[str, Any]) -> TextConfig:
    heads, rope, hidden = _size(text, "num_attention_heads"), _rope(text), _size(text, "hidden_size")
    section = rope.get("mrope_section", MROPE_SECTION)
    if not isinstance(section, list | tuple) or len(section) != 3 or any(type(n) is not int or n < 0 for n in section):
        raise ValueError(f"mrope_section is {section!r} but must be three whole numbers")
    # Either place ties them: transformers 5 reads the outer one, or else the section's.
    tied = [raw.get("tie_word_embeddings"), (raw.get("text_config") or {}).get("tie_word_embeddings")]
    if any(value not in (None, True, False) or value in (0, 1) and type(value) is not bool for value in tied):
        raise ValueError(f"tie_word_embeddings is {tied} but must be true or false")
    shared = text["num_key_value_heads"] is None
    return TextConfig(
        vocab_size=_size(text, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_size(text, "intermediate_size"),
        num_hidden_layers=_size(text, "num_hidden_layers", most=MAX_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=heads if shared else _size(text, "num_key_value_heads"),
        mrope_section=tuple(section),
        head_dim=hidden // heads,
        rms_norm_eps=_number(text["rms_norm_eps"], "rms_norm_eps"),
        rope_theta=_number(rope.get("rope_theta") or text["rope_theta"], "rope_theta"),
        tie_word_embeddings=any(tied),
        max_position_embeddings=_size(text, "max_position_embeddings", most=2**40),
        initializer_range=_number(text["initializer_range"], "initializer_range"),
    )


def _vision(family: str, vision: Mapping[str, Any]) -> VisionConfig:
    rope, depth = _rope(vision), _size(vision, "depth", most=MAX_LAYERS)
    theta = rope.get("rope_theta") or vision.get("rope_theta") or VisionConfig.rope_theta
    common = dict(
        depth=depth,
        num_heads=_size(vision, "num_heads"),
        patch_size=_size(vision, "patch_size"),
        temporal_patch_size=_size(vision, "temporal_patch_size"),
        spatial_merge_size=_size(vision, "spatial_merge_size"),
        rope_theta=_number(theta, "vision_config.rope_theta"),
    )
    if family == "qwen2_vl":  # whose `hidden_size` is what comes out
        width, ratio = _size(vision, "embed_dim"), _number(vision["mlp_ratio"], "mlp_ratio")
        return VisionConfig(
            hidden_size=width,
            intermediate_size=_size({"embed_dim * mlp_ratio": int(width * ratio)}, "embed_dim * mlp_ratio"),
            out_hidden_size=_size(vision, "hidden_size"),
            fullatt_block_indexes=tuple(range(depth)),
            norm="layer",
            mlp="quick_gelu",
            **common,
        )
    full = vision["fullatt_block_indexes"]
    if not isinstance(full, list) or any(type(number) is not int for number in full):
        raise ValueError(f"fullatt_block_indexes is {full!r} but must be a list of whole numbers")
    found = VisionConfig(
        hidden_size=_size(vision, "hidden_size"),
        intermediate_size=_size(vision, "intermediate_size"),
        out_hidden_size=_size(vision, "out_hidden_size"),
        fullatt_block_indexes=tuple(full),
        window_size=_size(vision, "window_size"),
        tokens_per_second=_number(vision["tokens_per_second"], "tokens_per_second"),
        **common,
    )
    if found.window_side < 1:
        least = found.patch_size * found.spatial_merge_size
        raise ValueError(f"window_size is {found.window_size} but must be a merged patch at least, {least} pixels")
    return found


def token_ids(value: Any, rows: int, where: str) -> tuple[int, ...]:
    """Return the ids that a setting names: one, a list, or none.

    Raises:
        UserError: one is no id of a vocabulary of `rows` tokens.
    """
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for number in ids:
        if type(number) is not int or not 0 <= number < rows:
            raise UserError(f"{number!r} is no token of a vocabulary of {rows}.", where=where)
    return tuple(ids)


def _special(found: Mapping[str, Any], text: Mapping[str, Any]) -> SpecialTokens:
    default, rows = SpecialTokens(), _size(text, "vocab_size")

    def ids(key: str) -> tuple[int, ...]:
        return token_ids(found.get(key), rows, f"config.json: {key}")

    def required(key: str, otherwise: int) -> int:
        return (ids(key) or token_ids(otherwise, rows, f"config.json: {key}, which is missing"))[0]

    eos, bos = ids("eos_token_id") or (min(default.eos, rows - 1),), ids("bos_token_id")
    special = SpecialTokens(
        pad=(ids("pad_token_id") or bos or (min(default.pad, rows - 1),))[0],
        eos=eos[0],
        image_pad=required("image_token_id", default.image_pad),
        video_pad=required("video_token_id", default.video_pad),
        vision_start=required("vision_start_token_id", default.vision_start),
        vision_end=required("vision_end_token_id", default.vision_end),
        bos=bos[0] if bos else None,
    )
    return replace(special, stops=tuple(dict.fromkeys(eos + bos)))


def write_config(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Return a config.json in the published form, which transformers, vLLM and `read_config` read."""
    text, special = config.text, config.special
    family = "qwen2_vl" if config.vision.mlp == "quick_gelu" else "qwen2_5_vl"
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
        "bos_token_id": special.bos,
        "pad_token_id": special.pad,
        "eos_token_id": special.eos,
        "image_token_id": special.image_pad,
        "video_token_id": special.video_pad,
        "vision_start_token_id": special.vision_start,
        "vision_end_token_id": special.vision_end,
        "vision_config": _vision_section(family, config.vision),
    }


def _vision_section(family: str, vision: VisionConfig) -> dict[str, Any]:
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
    if vision.rope_theta != VisionConfig.rope_theta:  # transformers 5 alone reads it
        common["rope_parameters"] = {"rope_type": "axial", "rope_theta": vision.rope_theta}
    if family == "qwen2_vl":
        sizes = dict(embed_dim=vision.hidden_size, mlp_ratio=mlp_ratio(vision), hidden_size=vision.out_hidden_size)
    else:
        sizes = dict(
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            out_hidden_size=vision.out_hidden_size,
            fullatt_block_indexes=list(vision.fullatt_block_indexes),
            window_size=vision.window_size,
            hidden_act="silu",
            tokens_per_second=vision.tokens_per_second,
        )
    return {"model_type": family, **common, **sizes}


def mlp_ratio(vision: VisionConfig) -> int | float:
    """Return the ratio of Qwen2-VL's config.json for which `int(embed_dim * mlp_ratio)` is the hidden layer's size."""
    width, size = vision.hidden_size, vision.intermediate_size
    if size % width == 0:
        return size // width
    ratio = size / width
    while int(width * ratio) < size:
        ratio = math.nextafter(ratio, math.inf)
    return ratio
