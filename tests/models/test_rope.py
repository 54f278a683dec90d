"""Rotations against complex multiplication, angle by angle."""

from functools import partial

import jax
import numpy as np

from m2io_jax.models.rope import patch_rotation, rotate, token_rotation


@partial(jax.jit, static_argnames=("sections", "theta"))
def rotate_tokens(x, positions, sections, theta):
    return rotate(x, token_rotation(positions, x.shape[-1], sections, theta))


@jax.jit
def rotate_patches(x, positions):
    return rotate(x, patch_rotation(positions, x.shape[-1]))


def turned(x, angles):
    """Number i and number i + dim/2 are one complex number, turned by angle i."""
    half = x.shape[-1] // 2
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.asarray(angles))
    return np.concatenate([z.real, z.imag], -1)


def test_sections_turn_with_time_height_and_width():
    theta, sections, dim = 1000.0, (1, 2, 3), 12
    positions = np.array([[[0, 3, 7]], [[0, 4, 90]], [[0, 5, 1]]])  # [axes, rows, time]
    x = np.random.default_rng(0).normal(size=(1, 2, 3, dim)).astype(np.float32)  # [rows, heads, time, dim]
    got = rotate_tokens(x, positions, sections, theta)
    for place in range(3):
        time, height, width = positions[:, 0, place]
        axis = [time, height, height, width, width, width]
        angles = [axis[i] / theta ** (2 * i / dim) for i in range(6)]
        np.testing.assert_allclose(got[0, :, place], turned(x[0, :, place], angles), atol=1e-5)
    np.testing.assert_array_equal(got[0, :, 0], x[0, :, 0])


def test_patches_turn_with_row_and_column():
    positions = np.array([[[0, 0], [2, 5], [11, 1]]])  # [rows, patches, 2]
    x = np.random.default_rng(1).normal(size=(1, 2, 3, 16)).astype(np.float32)
    got = rotate_patches(x, positions)
    for place in range(3):
        row, column = positions[0, place]
        frequencies = [10_000.0 ** (-2 * i / 8) for i in range(4)]
        angles = [row * f for f in frequencies] + [column * f for f in frequencies]
        np.testing.assert_allclose(got[0, :, place], turned(x[0, :, place], angles), atol=1e-5)


def test_scores_depend_on_the_distance_alone():
    x, y = np.random.default_rng(2).normal(size=(2, 1, 1, 1, 16)).astype(np.float32)

    def score(at, other):
        turned = (rotate_tokens(z, np.full((3, 1, 1), place), (2, 3, 3), 1e4) for z, place in ((x, at), (y, other)))
        return np.sum(np.prod([np.asarray(z) for z in turned], axis=0))

    np.testing.assert_allclose(score(9, 4), score(25, 20), rtol=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3
