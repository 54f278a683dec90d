"""Rotary positions: two-dimensional for patches, three-dimensional (time, height, width) for language tokens."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Rotation = tuple[Float[Array, "rows time dim"], Float[Array, "rows time dim"]]  # cosines and sines


def patch_rotation(positions: Int[Array, "... patches 2"], head_dim: int, theta: float = 1e4) -> Rotation:
    """Half of the frequencies turn with a patch's row, half with its column (Qwen2-VL, arXiv 2409.12191, 2.1)."""
    per_axis = head_dim // 4
    frequency = theta ** -(np.arange(per_axis, dtype=np.float32) / per_axis)
    angle = positions[..., None].astype(jnp.float32) * frequency
    return _rotation(angle.reshape(*angle.shape[:-2], 2 * per_axis))


def token_rotation(
    positions: Int[Array, "axes=3 ... time"], head_dim: int, sections: tuple[int, int, int], theta: float
) -> Rotation:
    """Multimodal rotary positions: each frequency turns with time, height or width, by `sections` (M-RoPE, ibid.)."""
    half = head_dim // 2
    frequency = theta ** -(np.arange(half, dtype=np.float32) / half)
    axis = np.repeat(np.arange(3), sections)
    angle = jnp.moveaxis(positions, 0, -1).astype(jnp.float32)[..., axis] * frequency
    return _rotation(angle)


def _rotation(angle: Float[Array, "... half"]) -> Rotation:
    twice = jnp.concatenate([angle, angle], axis=-1)
    return jnp.cos(twice), jnp.sin(twice)


def rotate(x: Float[Array, "rows *heads time dim"], rotation: Rotation) -> Float[Array, "rows *heads time dim"]:
    """Turns the pairs (x_i, x_{i + dim/2}) of every head by the position's angles, in float32."""
    heads = (1,) * (x.ndim - 3)
    cosine, sine = (part.reshape(part.shape[0], *heads, *part.shape[1:]) for part in rotation)
    wide = x.astype(jnp.float32)
    first, second = jnp.split(wide, 2, axis=-1)
    return (wide * cosine + jnp.concatenate([-second, first], axis=-1) * sine).astype(x.dtype)
