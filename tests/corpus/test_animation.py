"""Animations are judged, stored and shown by one frame: the one of greatest contrast."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from m2io_jax.corpus import animation
from m2io_jax.corpus.documents import PictureBlock
from m2io_jax.corpus.markdown import import_markdown
from m2io_jax.corpus.pictures import PictureError, PictureLimits, decode, inspect, still
from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.pictures import stored_picture

BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (90, 90, 90)
FORMATS = ("GIF", "PNG", "WEBP")


def blank(shade=BLACK, size=(60, 48)) -> Image.Image:
    return Image.new("RGB", size, shade)


def with_box(shade=WHITE, at=10, size=(60, 48)) -> Image.Image:
    picture = blank(size=size)
    picture.paste(shade, (at, 10, at + 20, 30))
    return picture


def animated(frames: list[Image.Image], format: str) -> bytes:
    written = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(written, format, save_all=True, append_images=frames[1:], duration=100, **options)
    return written.getvalue()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "frames, telling",
    [
        ([blank(), with_box(), blank()], 1),
        ([blank(WHITE), blank(GREY), with_box(GREY), with_box()], 3),
        ([with_box(at=5), with_box(at=25), blank()], 0),
        ([with_box(GREY), blank(WHITE)], 0),
    ],
)
def test_the_frame_of_greatest_contrast(format, frames, telling):
    data = animated(frames, format)
    assert inspect(data).animated
    assert (decode(data) == np.asarray(frames[telling])).all()


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_frame_is_stored_everywhere(tmp_path, format):
    data = animated([blank(), with_box(), with_box(GREY)], format)
    kept, suffix = still(data)
    assert suffix == "png" and not inspect(kept).animated
    for stored in (kept, stored_picture(data, 512 * 512), stored_picture(kept, 512 * 512)):
        assert not inspect(stored).animated and (decode(stored) == np.asarray(with_box())).all()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / f"a.{format.lower()}").write_bytes(data)
    (tmp_path / "tree" / "a.md").write_text(f"# Lights\n\n![Running light](a.{format.lower()})\n")
    import_markdown(tmp_path / "tree", tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    (block,) = [block for block in corpus.document("a").blocks if isinstance(block, PictureBlock)]
    assert corpus.picture(block.picture) == kept and corpus.picture_path(block.picture).suffix == ".png"


def test_a_still_image_is_kept_to_the_byte():
    for format in (*FORMATS, "JPEG", "BMP"):
        written = io.BytesIO()
        with_box().save(written, format)
        assert still(written.getvalue())[0] == written.getvalue()


def test_the_frames_of_a_transparent_animation_are_laid_on_white():
    empty = Image.new("RGBA", (60, 48), (0, 0, 0, 0))
    drawn = empty.copy()
    drawn.paste((0, 0, 0, 255), (10, 10, 30, 30))
    pixels = decode(animated([empty, drawn], "PNG"))
    assert (pixels[0, 0] == 255).all() and (pixels[15, 15] == 0).all()


def test_frames_past_the_bounds_are_not_looked_at(monkeypatch):
    data = animated([blank(), blank(GREY), with_box(GREY), with_box()], "GIF")
    monkeypatch.setattr(animation, "MAX_FRAMES", 3)
    assert (decode(data) == np.asarray(with_box(GREY))).all()
    monkeypatch.setattr(animation, "MAX_FRAME_PIXELS", 60 * 48 * 2)
    assert (decode(data) == 0).all()


def test_ten_thousand_frames_take_bounded_time():
    # One frame's block, repeated: Pillow itself would write them all for a minute.
    one = animated([blank(size=(2, 2)), with_box(size=(2, 2))], "GIF")
    many = animated([Image.new("L", (2, 2), shade % 200) for shade in range(300)], "GIF")
    body = many[many.index(b"\x21\xf9") : -1]
    data = many[:-1] + body * 40 + b"\x3b"
    started = time.process_time()
    assert decode(data).shape == (2, 2, 3) and inspect(one).width == 2
    assert time.process_time() - started < 10


def test_a_later_frame_that_is_damaged_or_too_large_is_passed_over():
    data = animated([with_box(GREY), with_box()], "GIF")
    cut = data[: data.rindex(b"\x21\xf9") + 12]
    assert (decode(cut) == np.asarray(with_box(GREY))).all()
    # The second frame claims to be larger than the screen.
    place = data.rindex(b"\x2c")
    grown = data[: place + 5] + b"\xff\xff\xff\xff" + data[place + 9 :]
    pixels = decode(grown, PictureLimits(max_pixels=60 * 48))
    assert pixels.shape == (48, 60, 3)
    with pytest.raises(PictureError):
        decode(data[:20])


def test_a_large_still_is_kept_within_the_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data, suffix = animation.encode_still(noise, 100_000)
    assert suffix == "jpg" and len(data) <= 100_000
    data, suffix = animation.encode_still(noise, 5_000)
    assert len(data) <= 5_000 and decode(data).shape[2] == 3
