"""What the model reads: prompts padded to static shapes. Everything ragged is settled here, on the host, in NumPy.

Fill rules
    tokens          right of a prompt's end: the pad token
    positions       right of a prompt's end: 0
    media_index     every token that is not a picture's: -1
    patches         after a picture's last patch, and in picture rows that no picture uses: zeros
    patch_positions there: 0
    windows         there: -1
A prompt without pictures has the same shapes as one with many.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from m2io_jax.models.sizes import ModelConfig, VisionConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PromptBatch:
    """A batch of prompts with their pictures.

    Attributes:
        tokens: prompt tokens.
        mask: which of them are real.
        positions: time, height and width position of each token.
        next_position: position of the first completion token (the same on all three axes).
        media_index: for a picture's token, which of its prompt's picture embeddings it takes.
        patches: normalised pixels, merge units together; pictures * patches_per_picture * features.
        patch_positions: row and column of each patch.
        windows: attention window of each patch.
        seeds: one integer a prompt; with the run's seed it fixes what is sampled for that prompt.
    """

    tokens: Int[Array, "rows prompt"]
    mask: Bool[Array, "rows prompt"]
    positions: Int[Array, "rows 3 prompt"]
    next_position: Int[Array, "rows"]
    media_index: Int[Array, "rows prompt"]
    patches: Float[Array, "rows pictures patches features"]
    patch_positions: Int[Array, "rows pictures patches 2"]
    windows: Int[Array, "rows pictures patches"]
    seeds: Int[Array, "rows"]

    @property
    def rows(self) -> int:
        return self.tokens.shape[0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Completions:
    """G completions a prompt, each padded on the right. `mask` covers the stop token and nothing after it."""

    tokens: Int[Array, "rows group time"]
    mask: Bool[Array, "rows group time"]


@dataclass(frozen=True)
class PictureGrid:
    """A preprocessed picture: `patches` is [height * width, features]; height and width count patches."""

    patches: np.ndarray
    height: int
    width: int


def tokens_of(grid: PictureGrid, vision: VisionConfig) -> int:
    """Language tokens a picture takes."""
    return grid.height * grid.width // vision.merge_unit


def patch_geometry(height: int, width: int, vision: VisionConfig) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each patch [patches, 2] and its window [patches], in the image processor's patch order.

    Windows are `window_side` patches on a side, cut from the top left corner; those at the right and at the bottom are
    smaller.
    """
    merge = vision.spatial_merge_size
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    units = (height // merge, merge, width // merge, merge)
    order = np.stack([rows, columns], -1).reshape(*units, 2).transpose(0, 2, 1, 3, 4).reshape(-1, 2)
    side = vision.window_side or merge  # 0 only where every block sees the whole image
    across = -(-width // side)
    return order, (order[:, 0] // side) * across + order[:, 1] // side


def token_positions(tokens: np.ndarray, grids: list[PictureGrid], config: ModelConfig) -> tuple[np.ndarray, int]:
    """Time, height and width positions [3, tokens] of a prompt, and the position that follows it.

    Text advances all three together; a picture's tokens share one time and spread over height and width; what follows
    starts after the largest of the three (Qwen2-VL, arXiv 2409.12191, section 2.1).
    """
    merge = config.vision.spatial_merge_size
    positions = np.zeros((3, len(tokens)), np.int32)
    following, index, pictures = 0, 0, iter(grids)
    while index < len(tokens):
        if tokens[index] == config.special.image_pad:
            grid = next(pictures)
            height, width = grid.height // merge, grid.width // merge
            count = height * width
            spread = np.stack([np.zeros((height, width)), *np.indices((height, width))]).reshape(3, -1)
            positions[:, index : index + count] = following + spread
            following += max(height, width)
        else:
            count = 1
            positions[:, index] = following
            following += 1
        index += count
    return positions, following
