"""Choose the frame that stands for an animated image, and encode it as one still image."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageStat

# Frames must be decoded one after another, so both bounds limit the time that a hostile file takes; they count frames
# and pixels, not seconds, so that the same frame is chosen on every machine.
MAX_FRAMES = 1000
MAX_FRAME_PIXELS = 100_000_000  # of all frames looked at together
JPEG_QUALITY = 90


def is_animated(picture: Image.Image) -> bool:
    """Whether an opened GIF, PNG or WebP has several frames; a phone's JPEG of several images is no animation."""
    if picture.format not in ("GIF", "PNG", "WEBP"):
        return False
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # a damaged second frame: what is left is a still image
        return False


def most_telling_frame(
    picture: Image.Image, to_rgb: Callable[[Image.Image], Image.Image], fits: Callable[[tuple[int, int]], bool]
) -> Image.Image:
    """Return the frame of greatest contrast as RGB, the first of equals.

    Contrast is the standard deviation of the pixels, summed over the channels. Animations often begin or end with an
    empty frame, which has none. Frames after `MAX_FRAMES`, after `MAX_FRAME_PIXELS` and after a damaged one are not
    looked at.

    Args:
        picture: opened and loaded, at its first frame.
        to_rgb: converts a frame, transparency laid on white.
        fits: whether a frame of this size may be decoded; later frames of a GIF can be larger than its header says.

    Raises:
        Exception: what Pillow raises where the first frame is damaged.
    """
    best = to_rgb(picture)
    greatest, pixels = _contrast(best), best.width * best.height
    for number in range(1, MAX_FRAMES):
        try:
            picture.seek(number)
            pixels += picture.width * picture.height
            if pixels > MAX_FRAME_PIXELS or not fits(picture.size):
                break
            frame = to_rgb(picture)
        except Exception:  # past the last frame (EOFError), or a dozen types on damaged bytes
            break
        contrast = _contrast(frame)
        if contrast > greatest + 1e-6:
            best, greatest = frame, contrast
    return best


def encode_still(pixels: np.ndarray, max_bytes: int) -> tuple[bytes, str]:
    """Encode uint8 [height, width, 3] as a PNG, or as a JPEG where a PNG would be too large; return it and its suffix.

    A still that is larger than `max_bytes` even as a JPEG is scaled down until it is not.
    """
    picture = Image.fromarray(pixels)
    data = _encoded(picture, "PNG")
    if len(data) <= max_bytes:
        return data, "png"
    while len(data := _encoded(picture, "JPEG")) > max_bytes and max(picture.size) > 1:
        picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.LANCZOS)
    return data, "jpg"


def _encoded(picture: Image.Image, format: str) -> bytes:
    written = io.BytesIO()
    picture.save(written, format, quality=JPEG_QUALITY)
    return written.getvalue()


def _contrast(picture: Image.Image) -> float:
    return sum(ImageStat.Stat(picture).stddev)
