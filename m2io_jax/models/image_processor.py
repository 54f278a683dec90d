"""The image processor's settings in a Hugging Face folder: what training takes from them, and what an export says.

    processor_config.json       transformers 5: the section `image_processor`, which it prefers where both files are
    preprocessor_config.json    transformers 4, vLLM with it, and transformers 5 where there is no such section

Settings of videos (`video_processor`, video_preprocessor_config.json) stay as they came: no image goes through them.
"""

import math
from collections.abc import Mapping
from typing import Any

from m2io_jax.errors import UserError
from m2io_jax.models.json_files import json_bytes, parse_json
from m2io_jax.models.sizes import CLIP, ImageConfig, ModelConfig, VisionConfig

NESTED, FLAT = "processor_config.json", "preprocessor_config.json"
SECTION = "image_processor"
CLASSES = ("Qwen2VLImageProcessor", "Qwen2_5_VLImageProcessor")  # and each with `Fast` or `Pil` behind it
BICUBIC = 3
MAX_PIXELS = 28 * 28 * 1280  # what the published processors allow an image


def read_image_config(files: Mapping[str, bytes], vision: VisionConfig, where: str) -> ImageConfig:
    """Return the settings that a folder's files give, by the rules of transformers 5.

    Args:
        files: the folder's files by name.
        vision: the vision tower, whose patches the processor must cut.
        where: the folder, for errors.

    Raises:
        UserError: a setting is damaged, or asks for something that training does not compute.
    """
    settings, where = _settings(files, where)
    _require_alike(settings, vision, where)
    size = settings.get("size") or {}
    if not isinstance(size, dict):
        raise UserError(f"size is {size!r} but must hold shortest_edge and longest_edge.", where=f"{where}: size")
    if size and not {"shortest_edge", "min_pixels"} & {*size, *settings}:
        raise UserError(f"size is {size!r} but must hold shortest_edge and longest_edge.", where=f"{where}: size")
    given = (settings.get("min_pixels"), size.get("shortest_edge"), size.get("min_pixels"))
    least = next((pixels for pixels in given if pixels is not None), None)
    default = CLIP
    statistics = {"mean": default.mean, "std": default.std}
    for name in statistics:
        if (given := settings.get(f"image_{name}")) is not None:
            statistics[name] = _channels(given, f"image_{name}", where)
    if settings.get("do_normalize") is False:
        statistics = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return ImageConfig(default.min_pixels if least is None else _pixels(least, "min_pixels", where), **statistics)


def bounded_processor(files: Mapping[str, bytes], config: ModelConfig, max_pixels: int, where: str) -> dict[str, bytes]:
    """Return the processor files that let a server show the model the images of a run, whichever version reads them.

    Both places get the bound, and all that training read; other settings stay as they came.

    Args:
        files: the folder's files by name; those of them that hold no image settings are left out of what is returned.
        max_pixels: the run's bound, `batch.max_pixels`.
    """
    settings, _ = _settings(files, where)
    least = min(max_pixels, config.image.min_pixels)
    bounds = {"min_pixels": least, "max_pixels": max_pixels}
    changed = {}
    for name in (NESTED, FLAT):
        whole = parse_json(files[name], f"{where}/{name}") if name in files else {}
        section = whole.get(SECTION) if name == NESTED else whole
        if name == NESTED and not isinstance(section, dict):
            continue
        if not section:
            section = settings | {"processor_class": _processor_class(files, config, where)}
        section = section | {key: settings[key] for key in SHARED if key in settings} | bounds
        if "size" in section:
            section["size"] = {"shortest_edge": least, "longest_edge": max_pixels}
        changed[name] = json_bytes(whole | {SECTION: section} if name == NESTED else section)
    return changed


def default_processor(config: ModelConfig) -> dict[str, Any]:
    """Return a preprocessor_config.json for a model that came without one."""
    vision, image = config.vision, config.image
    return {
        "image_processor_type": CLASSES[0],
        "processor_class": PROCESSOR_CLASSES[vision.mlp],
        "min_pixels": image.min_pixels,
        "max_pixels": max(MAX_PIXELS, image.min_pixels),
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        "image_mean": [round(number, 8) for number in image.mean],
        "image_std": [round(number, 8) for number in image.std],
    }


PROCESSOR_CLASSES = {"swiglu": "Qwen2_5_VLProcessor", "quick_gelu": "Qwen2VLProcessor"}
# What both places must agree on, for each version reads its own.
SHARED = (
    "image_mean",
    "image_std",
    "do_normalize",
    "do_rescale",
    "rescale_factor",
    "do_resize",
    "resample",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
)


def _settings(files: Mapping[str, bytes], where: str) -> tuple[dict[str, Any], str]:
    """Return the settings that transformers 5 would take, and where they stand."""
    if NESTED in files:
        section = parse_json(files[NESTED], f"{where}/{NESTED}").get(SECTION)
        if section is not None and not isinstance(section, dict):
            raise UserError(f"{SECTION} is {section!r} but must hold settings.", where=f"{where}/{NESTED}")
        if section is not None:
            return section, f"{where}/{NESTED}: {SECTION}"
    return (parse_json(files[FLAT], f"{where}/{FLAT}") if FLAT in files else {}), f"{where}/{FLAT}"


def _require_alike(settings: Mapping[str, Any], vision: VisionConfig, where: str) -> None:
    """Raise UserError where an image would be cut or scaled in another way than in training."""
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if kind is not None and str(kind).removesuffix("Fast").removesuffix("Pil") not in CLASSES:
        raise UserError(f"The image processor {kind!r} is not implemented.", where=where, mend=f"one of {CLASSES}")
    needed = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
    }
    for key, expected in needed.items():
        if (found := settings.get(key)) is not None and (isinstance(found, bool) or found != expected):
            what = f"{key} is {found!r}, but the vision tower in config.json has {expected}."
            raise UserError(what, where=f"{where}: {key}", mend="give the processor and the config.json of one model")
    for key in ("do_resize", "do_rescale"):
        if settings.get(key) not in (None, True):
            raise UserError(f"{key} is {settings[key]!r}; only true is implemented.", where=f"{where}: {key}")
    if settings.get("resample") not in (None, BICUBIC) or settings.get("resample") is True:
        what = f"resample is {settings['resample']!r}; only {BICUBIC} is implemented, bicubic."
        raise UserError(what, where=f"{where}: resample")
    factor = settings.get("rescale_factor")
    if factor is not None and not (_is_number(factor) and math.isclose(factor, 1 / 255, rel_tol=1e-6)):
        what = f"rescale_factor is {factor!r}; only 1/255 is implemented."
        raise UserError(what, where=f"{where}: rescale_factor")


def _channels(given: Any, key: str, where: str) -> tuple[float, float, float]:
    """Return a number for each of three channels; one number is that of all."""
    values = given if isinstance(given, list) else [given] * 3
    if len(values) != 3 or not all(map(_is_number, values)) or (key == "image_std" and not all(v > 0 for v in values)):
        raise UserError(f"{key} is {given!r} but must be three numbers, a channel each.", where=f"{where}: {key}")
    return tuple(map(float, values))


def _pixels(given: Any, key: str, where: str) -> int:
    if type(given) is not int or given < 1:
        raise UserError(f"{key} is {given!r} but must be a whole number above 0.", where=f"{where}: {key}")
    return given


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _processor_class(files: Mapping[str, bytes], config: ModelConfig, where: str) -> str:
    whole = parse_json(files[NESTED], f"{where}/{NESTED}") if NESTED in files else {}
    return whole.get("processor_class") or PROCESSOR_CLASSES[config.vision.mlp]
