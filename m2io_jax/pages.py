"""What every HTML page of the project is made with.

What documents and models say is foreign text: it reaches a page escaped by Jinja only. Pictures are foreign bytes: they
are decoded within bounds and encoded anew, so that nothing else they carry (metadata, scripts in polyglot files) leaves
the corpus.
"""

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw

from m2io_jax.corpus.pictures import PictureError, PictureLimits, decode
from m2io_jax.episodes.episode import Candidate
from m2io_jax.tasks.task import label

# A shown picture's bounds: what a page needs, not what the corpus holds.
MAX_SIDE = 640
MAX_PNG_BYTES = 200_000
# On a sheet: pixels a side of a picture, and of the line of labels above.
LEAST_TILE, MOST_TILE, LINE = 64, 128, 14


def environment(package: str) -> Environment:
    """Jinja with every value escaped and unknown names refused; it knows the templates of `package` and the shared."""
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("m2io_jax")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["picture"] = picture_view
    return found


def thumbnail(data: bytes, max_side: int) -> Image.Image:
    """A picture's pixels, scaled down to at most `max_side` pixels a side.

    Raises:
        PictureError: it cannot be decoded within bounds.
    """
    picture = Image.fromarray(decode(data, PictureLimits()))
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return picture


@lru_cache(maxsize=512)
def shown_picture(data: bytes, max_side: int = MAX_SIDE) -> tuple[bytes, str, int, int]:
    """A picture made anew from its pixels: encoded bytes, "png" or "jpeg", width and height (pixels).

    Raises:
        PictureError: it cannot be decoded within bounds.
    """
    picture = thumbnail(data, max_side)
    for kind in ("png", "jpeg"):
        stored = io.BytesIO()
        picture.save(stored, format=kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
        # Photographs are many times larger as PNG; drawings are not, and stay exact.
        if stored.tell() <= MAX_PNG_BYTES:
            break
    return stored.getvalue(), kind, picture.width, picture.height


def picture_view(candidates: tuple[Candidate, ...], index: int, max_side: int = MAX_SIDE) -> dict[str, Any]:
    """What templates need of a candidate: label, caption, alt, document, uri, width, height; `uri` is empty and
    `fault` says why where the picture cannot be decoded."""
    candidate = candidates[index]
    view = {"label": label(index), "caption": candidate.caption, "document": candidate.document, "fault": ""}
    view["alt"] = candidate.caption or f"Picture {label(index)}"
    try:
        data, kind, width, height = shown_picture(candidate.data, max_side)
    except PictureError as error:
        return view | {"uri": "", "fault": error.reason, "width": 0, "height": 0}
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return view | {"uri": uri, "width": width, "height": height}


def picture_sheet(candidates: Sequence[Candidate]) -> Image.Image:
    """Pictures beside one another, each below its label; a grey one stands for one that cannot be decoded."""
    tiles = [_tile(candidate) for candidate in candidates]
    side = max([LEAST_TILE, *(length for tile in tiles for length in tile.size)])
    sheet = Image.new("RGB", (side * max(1, len(tiles)), LINE + side), "white")
    for index, tile in enumerate(tiles):
        ImageDraw.Draw(sheet).text((index * side + 2, 1), label(index), fill="black")
        sheet.paste(tile, (index * side, LINE))
    return sheet


def _tile(candidate: Candidate) -> Image.Image:
    try:
        return thumbnail(candidate.data, MOST_TILE)
    except PictureError:
        return Image.new("RGB", (LEAST_TILE, LEAST_TILE), "lightgrey")
