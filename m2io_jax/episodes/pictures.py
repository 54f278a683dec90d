"""Pictures as episodes hold them: encoded still images that are not larger than they need to be."""

import io

from PIL import Image

from m2io_jax.corpus.pictures import decode, inspect


def stored_picture(data: bytes, max_pixels: int) -> bytes:
    """Return the picture's file as it is, or scaled down where it has more than `max_pixels`.

    Of an animation, return the one frame that `decode` chooses, as a still image.

    Raises:
        PictureError: it cannot be read.
    """
    info = inspect(data)
    if info.width * info.height <= max_pixels and info.format != "BMP" and not info.animated:
        return data
    picture = Image.fromarray(decode(data))
    scale = min(1.0, (max_pixels / (picture.width * picture.height)) ** 0.5)
    size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    kind = "JPEG" if info.format == "JPEG" else "PNG"
    stored = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(stored, format=kind, quality=90)
    return stored.getvalue()
