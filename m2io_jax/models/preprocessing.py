"""Pixels to patches on the host, as Qwen2-VL's image processor does it (arXiv 2409.12191; bicubic).

Roundings are in its order too: results are equal bit for bit (tests/models/test_preprocessing.py).
"""

from collections.abc import Callable
from math import ceil, floor, sqrt

import numpy as np
from PIL import Image

from m2io_jax.models.inputs import PictureGrid
from m2io_jax.models.sizes import CLIP, ImageConfig, VisionConfig

MAX_ASPECT_RATIO = 200


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Nearest multiples of `factor` whose product lies between the bounds, with nearly the same proportions.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ValueError(f"a picture of {width} x {height} pixels is too narrow (at most {MAX_ASPECT_RATIO} to 1)")
    new_height, new_width = (round(side / factor) * factor for side in (height, width))
    if new_height * new_width > max_pixels:
        shrink = sqrt(height * width / max_pixels)
        new_height, new_width = (max(factor, floor(side / shrink / factor) * factor) for side in (height, width))
    elif new_height * new_width < min_pixels:
        grow = sqrt(min_pixels / (height * width))
        new_height, new_width = (ceil(side * grow / factor) * factor for side in (height, width))
    return new_height, new_width


def preprocess(
    pixels: np.ndarray,
    vision: VisionConfig,
    *,
    min_pixels: int,
    max_pixels: int,
    image: ImageConfig = CLIP,
) -> PictureGrid:
    """A picture's normalised patches, neighbours that will be merged together.

    Args:
        pixels: [height, width, 3] uint8.
        image: mean and standard deviation of each channel.
    """
    mean, std = np.array(image.mean, np.float32), np.array(image.std, np.float32)
    patch, merge = vision.patch_size, vision.spatial_merge_size
    height, width = smart_resize(*pixels.shape[:2], patch * merge, min_pixels, max_pixels)
    if (height, width) != pixels.shape[:2]:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    normalised = ((pixels * (1 / 255)).astype(np.float32) - mean) / std
    rows, columns = height // patch, width // patch
    blocks = normalised.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
    blocks = blocks.transpose(0, 3, 1, 4, 6, 2, 5)  # unit row, unit column, row in unit, column in unit, channel, y, x
    frames = np.repeat(blocks.reshape(rows * columns, 3, 1, patch, patch), vision.temporal_patch_size, axis=2)
    return PictureGrid(frames.reshape(rows * columns, -1), rows, columns)


def with_pixels(
    patches: np.ndarray,
    vision: VisionConfig,
    change: Callable[[np.ndarray], np.ndarray],
    image: ImageConfig = CLIP,
) -> np.ndarray:
    """Patches [patches, features] whose pixels went through `change`, from 0 to 1 and to 0 to 1.

    Frames that repeat a still picture repeat it still.
    """
    frames = patches.reshape(len(patches), 3, vision.temporal_patch_size, -1)
    mean, std = (np.array(statistic)[:, None] for statistic in (image.mean, image.std))
    changed = (change(frames[:, :, 0] * std + mean) - mean) / std
    return np.repeat(changed[:, :, None], vision.temporal_patch_size, axis=2).reshape(patches.shape).astype(np.float32)
