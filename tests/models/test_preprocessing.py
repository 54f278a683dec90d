"""Pixels to patches, against one loop a number; sizes worked by hand."""

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from m2io_jax.models.preprocessing import preprocess, smart_resize, with_pixels
from m2io_jax.models.sizes import SIZES

TINY = SIZES["tiny"].vision
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


@pytest.mark.parametrize(
    "height, width, smallest, largest, expected",
    [
        (56, 84, 3136, 10**6, (56, 84)),  # fits as it is
        (60, 100, 3136, 10**6, (56, 112)),  # 2.14 and 3.57 units
        (42, 70, 784, 10**6, (56, 56)),  # halves go to the even number: 1.5 to 2, 2.5 to 2
        (20, 30, 3136, 10**6, (56, 84)),  # too small: times sqrt(3136/600) = 2.286, units rounded up (1.63, 2.45)
        (1000, 500, 3136, 3136, (56, 28)),  # too large: divided by 12.63, units rounded down (2.83, 1.41)
        (20, 4000, 784, 3136, (28, 784)),  # never less than one unit, though the bound is passed
        (10, 112, 3136, 10**6, (28, 196)),  # a side that rounds to none is enlarged with the other: times 1.673
        (1, 200, 3136, 10**6, (28, 812)),
    ],
)
def test_smart_resize(height, width, smallest, largest, expected):
    assert smart_resize(height, width, 28, smallest, largest) == expected
    assert smart_resize(width, height, 28, smallest, largest) == expected[::-1]


@pytest.mark.parametrize("size", [(1, 201), (2010, 10)])
def test_too_narrow_is_refused(size):
    with pytest.raises(ValueError, match=f"{size[1]} x {size[0]} pixels is too narrow"):
        smart_resize(*size, 28, 3136, 10**6)


def test_patches_of_a_picture_that_fits():
    pixels = np.random.default_rng(0).integers(0, 256, (56, 84, 3), np.uint8)
    grid = preprocess(pixels, TINY, min_pixels=784, max_pixels=10**6)
    assert (grid.height, grid.width) == (4, 6)
    assert grid.patches.shape == (24, 3 * 2 * 14 * 14) and grid.patches.dtype == np.float32
    expected = []
    for unit_row in range(0, 4, 2):
        for unit_column in range(0, 6, 2):
            for row in (unit_row, unit_row + 1):
                for column in (unit_column, unit_column + 1):
                    block = pixels[14 * row : 14 * row + 14, 14 * column : 14 * column + 14].astype(np.float64)
                    # channel, then the two equal frames, then rows of pixels
                    channels = [(block[..., c] / 255 - MEAN[c]) / STD[c] for c in range(3)]
                    expected.append(np.concatenate([np.concatenate([c.ravel(), c.ravel()]) for c in channels]))
    np.testing.assert_allclose(grid.patches, expected, atol=2e-6)


def test_a_picture_of_one_colour_keeps_it_when_it_is_scaled():
    pixels = np.full((300, 100, 3), (255, 0, 51), np.uint8)
    grid = preprocess(pixels, TINY, min_pixels=784, max_pixels=3136)
    assert (grid.height, grid.width) == (6, 2)
    colours = grid.patches.reshape(-1, 3, 2 * 14 * 14)
    for channel, value in enumerate((1.0, 0.0, 0.2)):
        np.testing.assert_allclose(colours[:, channel], (value - MEAN[channel]) / STD[channel], atol=2e-6)


# Width and height: both bounds of the range, the narrowest that are allowed and refused, and what chance brings.
DRAWN = np.random.default_rng(3).integers((1, 1), (3001, 2001), (92, 2)).tolist()
SIZES_OF_PICTURES = [(1, 500), (500, 1), (3000, 2000), (1, 1), (200, 1), (201, 1), (28, 28), (27, 41), *DRAWN]


@pytest.mark.parametrize("smallest, largest, count", [(56 * 56, 28 * 28 * 1280, 100), (784, 50_176, 25)])
def test_equal_to_the_published_processor(smallest, largest, count):
    published = Qwen2VLImageProcessorPil(min_pixels=smallest, max_pixels=largest)
    random, refused = np.random.default_rng(4), 0
    for width, height in SIZES_OF_PICTURES[:count]:
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        try:
            expected = published(images=[Image.fromarray(pixels)], return_tensors="np")
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match="too narrow"):
                preprocess(pixels, TINY, min_pixels=smallest, max_pixels=largest)
            continue
        grid = preprocess(pixels, TINY, min_pixels=smallest, max_pixels=largest)
        assert [1, grid.height, grid.width] == expected["image_grid_thw"][0].tolist(), (width, height)
        np.testing.assert_array_equal(grid.patches, expected["pixel_values"])
    assert refused >= 3


def test_pixels_of_patches_are_changed_as_those_of_the_picture():
    picture = np.random.default_rng(1).integers(0, 256, (56, 84, 3), np.uint8)
    bounds = dict(min_pixels=3136, max_pixels=10**6)
    negative = preprocess(255 - picture, TINY, **bounds).patches
    found = with_pixels(preprocess(picture, TINY, **bounds).patches, TINY, lambda pixels: 1 - pixels)
    np.testing.assert_allclose(found, negative, atol=1e-6)
    assert found.dtype == np.float32
