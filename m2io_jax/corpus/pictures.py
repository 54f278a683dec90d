"""Decoding a picture that somebody else made: by its content, within bounds, and always to the same kind of array."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from m2io_jax.corpus.animation import encode_still, is_animated, most_telling_frame

Fault = Literal["broken", "unsupported"]

# Only these decoders ever see foreign bytes: Pillow's others are rarer, less tested, and some run outside programs.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
SUFFIXES = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "WEBP": "webp", "BMP": "bmp"}

# How formats that documents do hold, but that are not decoded here, begin: for a reason that names them.
FOREIGN = (
    (b"%PDF", "PDF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"8BPS", "Photoshop"),
    (b"%!PS", "PostScript"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)


@dataclass(frozen=True)
class PictureLimits:
    """Bounds that a picture must keep before it is decoded.

    Attributes:
        max_bytes: size of the encoded file, in bytes.
        max_pixels: width times height of the first frame, in pixels.
        max_side: the longer side, in pixels.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 32_768


@dataclass(frozen=True)
class PictureInfo:
    """What the header says: one of `FORMATS`, and the stored width and height in pixels (before orientation).

    `animated`: it holds more than one frame, of which `decode` chooses one.
    """

    format: str
    width: int
    height: int
    animated: bool = False

    @property
    def extension(self) -> str:
        """The file suffix that belongs to the format, without a dot."""
        return SUFFIXES[self.format]


class PictureError(Exception):
    """A picture that cannot be used.

    Attributes:
        kind: "unsupported" where the format is one that is not decoded here, else "broken".
        reason: what is wrong, in a few words.
    """

    def __init__(self, kind: Fault, reason: str):
        self.kind, self.reason = kind, reason
        super().__init__(f"{kind}: {reason}")


def inspect(data: bytes, limits: PictureLimits = PictureLimits()) -> PictureInfo:
    """Reads a picture's header and holds it to `limits`; no pixel is decoded.

    Raises:
        PictureError: not a picture, not a format that is decoded here, or over the bounds.
    """
    with _opened(data, limits) as picture:
        # Phones put several JPEGs into one file; Pillow calls that MPO, and all else takes the first of them.
        format = "JPEG" if picture.format == "MPO" else picture.format
        return PictureInfo(format, *picture.size, is_animated(picture))


def still(data: bytes, limits: PictureLimits = PictureLimits()) -> tuple[bytes, str]:
    """Return the file to keep of a picture, and its suffix: the file itself, or one still image of an animation.

    Raises:
        PictureError: as `decode`.
    """
    info = inspect(data, limits)
    pixels = decode(data, limits)
    return encode_still(pixels, limits.max_bytes) if info.animated else (data, info.extension)


def decode(data: bytes, limits: PictureLimits = PictureLimits()) -> np.ndarray:
    """Decodes a picture to uint8 [height, width, 3], sRGB-like values as stored.

    Of an animation the frame of greatest contrast (`animation.most_telling_frame`); turned upright as its EXIF
    orientation says, transparency laid on white.

    Raises:
        PictureError: as `inspect`, and where the pixels are cut short or damaged.
    """
    with _opened(data, limits) as picture:
        try:
            picture.load()
            if is_animated(picture):
                return np.array(most_telling_frame(picture, _upright_rgb, lambda size: not _over(size, limits)))
            return np.array(_upright_rgb(picture))
        except MemoryError as error:
            raise PictureError("broken", "too large for this machine's memory") from error
        except Exception as error:  # Pillow's decoders raise a dozen types on damaged bytes
            raise PictureError("broken", _reason(error)) from error


@contextmanager
def _opened(data: bytes, limits: PictureLimits) -> Iterator[Image.Image]:
    """The picture with its header read and its bounds checked."""
    if not data:
        raise PictureError("broken", "the file is empty")
    if len(data) > limits.max_bytes:
        raise PictureError("broken", f"{len(data):,} bytes, more than the {limits.max_bytes:,} allowed")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        # Pillow refuses by itself far above our bounds, before it tells the size.
        raise PictureError("broken", f"its header claims too many pixels: {_reason(error)}") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:
        raise PictureError("broken", _reason(error)) from error
    with picture:
        _check_size(picture.size, limits)
        yield picture


def _check_size(size: tuple[int, int], limits: PictureLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PictureError("broken", f"its header claims {width} x {height} pixels")
    if _over(size, limits):
        allowed = f"{limits.max_pixels:,} pixels, {limits.max_side:,} a side"
        raise PictureError("broken", f"its header claims {width:,} x {height:,} pixels, more than allowed ({allowed})")


def _over(size: tuple[int, int], limits: PictureLimits) -> bool:
    width, height = size
    return width * height > limits.max_pixels or max(width, height) > limits.max_side


def _unidentified(data: bytes) -> PictureError:
    """Tells a format that is not decoded here from bytes that are no whole picture."""
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"<") and b"<svg" in head.lower():
        return PictureError("unsupported", "SVG is not decoded")
    if head.startswith((b"<?xml", b"<!DOCTYPE svg", b"<!--")) and b"<svg" in data.lower():
        return PictureError("unsupported", "SVG is not decoded")
    for magic, name in FOREIGN:
        if data.startswith(magic):
            return PictureError("unsupported", f"{name} is not decoded")
    if data[4:12] in (b"ftypavif", b"ftypheic", b"ftypheix", b"ftypmif1"):
        return PictureError("unsupported", "AVIF or HEIC is not decoded")
    if data.startswith(b"\x89PNG"):
        return PictureError("broken", _png_reason(data))
    return PictureError("broken", f"not a whole {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture")


def _png_reason(data: bytes) -> str:
    """What is wrong with a PNG's header, which Pillow's `open` keeps to itself."""
    try:
        PngImagePlugin.PngImageFile(io.BytesIO(data)).close()
    except Exception as error:
        return _reason(error)
    return "not a whole PNG picture"


def _upright_rgb(picture: Image.Image) -> Image.Image:
    return _to_rgb(_upright(picture))


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; a damaged EXIF block leaves a good picture as it is stored."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode to RGB: alpha on white, 16 bits scaled to 8."""
    if picture.mode.startswith(("I", "F")):
        # Pillow's own conversion clips at 255 instead of scaling, which turns 16-bit pictures white.
        return Image.fromarray(_scaled_to_bytes(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture.convert("RGB")


def _scaled_to_bytes(values: np.ndarray) -> np.ndarray:
    """Grey values of 16 (or more) bits to 8: full scale is 65535, which is what PNG's 16-bit grey holds."""
    return (np.clip(values.astype(np.float64), 0, 65535) / 257).round().astype(np.uint8)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
