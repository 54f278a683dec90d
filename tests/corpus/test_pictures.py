"""Pictures of every kind, good and bad, made here with Pillow or byte by byte."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from m2io_jax.corpus.pictures import PictureError, PictureInfo, PictureLimits, decode, inspect

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(picture: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def halves() -> Image.Image:
    """8 x 4, left half red, right half blue."""
    picture = Image.new("RGB", (8, 4), RED)
    picture.paste(BLUE, (4, 0, 8, 4))
    return picture


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "WEBP"])
def test_lossless_formats_come_back_exactly(format):
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(halves(), format, **options)
    assert inspect(data) == PictureInfo(format, 8, 4)
    pixels = decode(data)
    assert pixels.dtype == np.uint8 and pixels.shape == (4, 8, 3)
    assert (pixels[:, :4] == RED).all() and (pixels[:, 4:] == BLUE).all()


def test_format_is_told_by_content():
    assert inspect(encoded(halves(), "JPEG")).extension == "jpg"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_truncated_files_are_broken(format, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    with pytest.raises(PictureError) as caught:
        decode(data[: int(len(data) * share)])
    assert caught.value.kind == "broken" and caught.value.reason


def test_flipped_bytes_never_raise_anything_else():
    random = np.random.default_rng(1)
    noise = Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for format in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
        good = np.frombuffer(encoded(noise, format), np.uint8)
        for _ in range(60):
            bad = good.copy()
            bad[random.integers(0, len(bad), 6)] = random.integers(0, 256, 6)
            try:
                assert decode(bad.tobytes()).shape[2] == 3
            except PictureError as error:
                assert error.kind in ("broken", "unsupported") and error.reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [7_000, 11_000, 40_000, 2**31 - 1])
def test_a_huge_claim_is_refused_without_memory(side):
    data = png_header(side, side)
    tracemalloc.start()
    for read in (inspect, decode):
        with pytest.raises(PictureError, match="header claims") as caught:
            read(data)
        assert caught.value.kind == "broken"
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_bounds_are_inclusive():
    data = encoded(halves(), "PNG")
    assert decode(data, PictureLimits(max_pixels=32, max_side=8, max_bytes=len(data))).shape == (4, 8, 3)
    for limits in (PictureLimits(max_pixels=31), PictureLimits(max_side=7), PictureLimits(max_bytes=len(data) - 1)):
        with pytest.raises(PictureError) as caught:
            inspect(data, limits)
        assert caught.value.kind == "broken"


@pytest.mark.parametrize("data", [b"", b"hello", b"<html><img></html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_broken(data):
    with pytest.raises(PictureError) as caught:
        inspect(data)
    assert caught.value.kind == "broken"


@pytest.mark.parametrize(
    "data",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- by hand -->\n<SVG/>'.replace(b"SVG", b"svg"),
        encoded(halves(), "TIFF"),
        encoded(halves(), "ICO"),
        b"%PDF-1.7",
    ],
)
def test_other_formats_are_unsupported(data):
    with pytest.raises(PictureError) as caught:
        inspect(data)
    assert caught.value.kind == "unsupported"


# Where the stored top-left red pixel stands after each EXIF orientation (row, column), for a stored 3 wide x 2 high.
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("orientation", CORNERS)
def test_exif_orientation_is_applied(orientation):
    picture = Image.new("RGB", (3, 2), WHITE)
    picture.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(picture, "PNG", exif=exif))
    assert pixels.shape == ((2, 3, 3) if orientation <= 4 else (3, 2, 3))
    assert tuple(pixels[CORNERS[orientation]]) == RED


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(format):
    first, second = Image.new("RGB", (4, 4), GREEN), Image.new("RGB", (4, 4), RED)
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(first, format, save_all=True, append_images=[second], duration=100, **options)
    assert (decode(data) == GREEN).all()


def test_alpha_is_laid_on_white():
    picture = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (255, 0, 0, 255))
    picture.putpixel((2, 0), (0, 0, 0, 51))
    # 255 * (1 - 51 / 255) = 204
    assert decode(encoded(picture, "PNG")).tolist() == [[[255, 255, 255], [255, 0, 0], [204, 204, 204]]]


def test_grey_alpha_and_palette_transparency():
    grey = Image.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (100, 255))
    assert decode(encoded(grey, "PNG")).tolist() == [[[255] * 3, [100] * 3]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert decode(encoded(palette, "PNG", transparency=0)).tolist() == [[[255] * 3, [0, 0, 255]]]


def test_bilevel_and_16_bit_grey():
    assert decode(encoded(Image.new("1", (2, 2), 1), "PNG")).min() == 255
    values = np.array([[0, 257, 32_896, 65_535]], np.uint16)
    assert decode(encoded(Image.fromarray(values), "PNG"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk_jpeg():
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    pixels = decode(encoded(cyan, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - (0, 255, 255)).max() <= 4
