"""Geometry of patches and tokens, worked by hand or by the slowest loop."""

import numpy as np
import pytest
from small_model import SMALL, picture, tokens_of_parts

from m2io_jax.models.inputs import patch_geometry, token_positions, tokens_of
from m2io_jax.models.sizes import SIZES

TINY = SIZES["tiny"].vision  # 14 pixels a patch, windows of 8 x 8 patches


def slow_geometry(height, width, side):
    """Merge unit by merge unit, row by row; windows numbered in reading order."""
    order, windows, across = [], [], (width + side - 1) // side
    for unit_row in range(0, height, 2):
        for unit_column in range(0, width, 2):
            for row in (unit_row, unit_row + 1):
                for column in (unit_column, unit_column + 1):
                    order.append((row, column))
                    windows.append(row // side * across + column // side)
    return order, windows


@pytest.mark.parametrize("size", [(2, 2), (4, 4), (8, 8), (16, 8), (10, 6), (12, 18), (2, 26), (26, 2)])
def test_patch_order_and_windows(size):
    order, windows = patch_geometry(*size, TINY)
    expected_order, expected_windows = slow_geometry(*size, side=8)
    np.testing.assert_array_equal(order, expected_order)
    np.testing.assert_array_equal(windows, expected_windows)


def test_windows_at_the_right_and_bottom_are_smaller():
    order, windows = patch_geometry(10, 12, TINY)
    sizes = np.bincount(windows)
    np.testing.assert_array_equal(sizes, [64, 32, 16, 8])  # 8x8, 8x4, 2x8, 2x4
    for window in range(4):
        rows, columns = order[windows == window].T
        assert np.ptp(rows) < 8 and np.ptp(columns) < 8


def test_positions_of_text_picture_text():
    # 2 x 3 merged tokens: five text-like tokens around them
    tokens, grids = tokens_of_parts(20, 21, picture(0, 4, 6), 22)
    positions, following = token_positions(tokens, grids, SMALL)
    expected = [
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7],
        [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7],
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7],
    ]
    np.testing.assert_array_equal(positions, expected)
    assert following == 8


def test_positions_of_two_pictures():
    tokens, grids = tokens_of_parts(picture(0, 6, 2), picture(1, 2, 4), 22)
    positions, following = token_positions(tokens, grids, SMALL)
    # mark, 3 x 1 tokens from 1, mark at 4, mark at 5, 1 x 2 tokens from 6, mark at 8, text at 9
    expected = [
        [0, 1, 1, 1, 4, 5, 6, 6, 8, 9],
        [0, 1, 2, 3, 4, 5, 6, 6, 8, 9],
        [0, 1, 1, 1, 4, 5, 6, 7, 8, 9],
    ]
    np.testing.assert_array_equal(positions, expected)
    assert following == 10


def test_positions_of_text_alone_and_of_pictures_without_a_mark_between():
    positions, following = token_positions(np.array([20, 21, 22]), [], SMALL)
    np.testing.assert_array_equal(positions, [[0, 1, 2]] * 3)
    assert following == 3
    pads = np.full(5, SMALL.special.image_pad)
    positions, following = token_positions(pads, [picture(0, 2, 4), picture(1, 2, 6)], SMALL)
    np.testing.assert_array_equal(positions, [[0, 0, 2, 2, 2], [0, 0, 2, 2, 2], [0, 1, 2, 3, 4]])
    assert following == 5


def test_tokens_of_a_picture():
    assert tokens_of(picture(0, 6, 4), SMALL.vision) == 6
