"""Read one file of an import: a page as its parts in reading order, or an image as what is kept of it.

Results are plain JSON values, whether they are made here, in a worker process or taken from the cache, so that an
import gives the same corpus however it was made.
"""

import base64
import hashlib
import os
import warnings
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import Any, get_args

from m2io_jax.corpus.html_blocks import Piece
from m2io_jax.corpus.markdown_blocks import ParsedMarkdown, parse_markdown
from m2io_jax.corpus.pictures import PictureError, PictureInfo, PictureLimits, decode, inspect, still
from m2io_jax.corpus.store import EXTENSION
from m2io_jax.corpus.text_encoding import decode_text

# The parser's time can grow with the square of a hostile text's length.
MAX_TEXT_BYTES = 4 * 2**20
PIECES = {kind.__name__: kind for kind in get_args(Piece)}
PIECE_TYPES = {"TextBlock": [str, int, str, int], "Reference": [str, int, str, str]}
PICTURE_TYPES = {"extension": str, "hash": str, "width": int, "height": int, "still": str, "kind": str, "reason": str}


class Unreadable(ValueError):
    """A file that is not read; the message says why."""


def load(root: Path, path: str, max_bytes: int) -> bytes:
    """Return the bytes of the file at `path` of the tree `root`, which lies below no link to a folder.

    Raises:
        Unreadable: it lies out of the tree, is no regular file, is larger than `max_bytes`, or cannot be opened.
    """
    try:
        file = os.path.join(root, path)
        found = os.lstat(file)
        if S_ISLNK(found.st_mode):
            if not Path(file).resolve().is_relative_to(root):
                raise Unreadable("a link that leads out of the imported tree")
            found = os.stat(file)
        if not S_ISREG(found.st_mode):
            raise Unreadable("no file: reading it might never end")
        if found.st_size > max_bytes:
            raise Unreadable(f"{found.st_size:,} bytes, more than the {max_bytes:,} allowed")
        with open(file, "rb") as opened:
            return opened.read(max_bytes)
    except (OSError, RuntimeError) as error:
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_page(data: bytes, encoding: str) -> dict[str, Any]:
    """Decode and parse a page: `title`, `pieces` and `encoding`, or `skipped` with the reason."""
    try:
        decoded = decode_text(data, encoding)
        parsed = parse_markdown(decoded.text)
    except Exception as error:  # parsers raise a dozen types on odd text
        return {"skipped": str(error) or type(error).__name__}
    pieces = [[type(piece).__name__, *vars(piece).values()] for piece in parsed.pieces]
    return {"title": parsed.title, "pieces": pieces, "encoding": decoded.encoding}


def page_from_json(read: dict[str, Any]) -> ParsedMarkdown:
    """Return the page that `read_page` has read. Raises KeyError or TypeError for values of another shape."""
    return ParsedMarkdown(read["title"], tuple(PIECES[kind](*values) for kind, *values in read["pieces"]))


def is_page(read: Any) -> bool:
    """Return whether a value from the cache has the shape of what `read_page` returns."""
    match read:
        case {"skipped": str()}:
            return True
        case {"title": str(), "encoding": str(), "pieces": list() as pieces}:
            return all(isinstance(piece, list) and _is_piece(*piece) for piece in pieces)
    return False


def _is_piece(kind: Any = None, *values: Any) -> bool:
    return isinstance(kind, str) and [type(value) for value in values] == PIECE_TYPES.get(kind)


def is_picture(read: Any) -> bool:
    """Return whether a value from the cache has the shape of what `read_picture` returns."""
    if not isinstance(read, dict) or any(type(value) is not PICTURE_TYPES.get(name) for name, value in read.items()):
        return False
    if "reason" in read:
        return read.get("kind") in ("broken", "unsupported")
    return {"extension", "hash", "width", "height"} <= read.keys() and bool(EXTENSION.fullmatch(read["extension"]))


def read_picture(data: bytes, limits: PictureLimits) -> dict[str, Any]:
    """Decode an image: `extension`, `width`, `height` and `hash` of what is kept, or `kind` and `reason` of a fault.

    An animation also has `still`: the one image that is kept of it, base64.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns on the terminal about oddities that do no harm; what does harm raises.
            warnings.simplefilter("ignore")
            info = inspect(data, limits)
            if info.animated:
                return _still(data, limits)
            decode(data, limits)
    except PictureError as error:
        return {"kind": error.kind, "reason": error.reason}
    return _kept(info, data)


def _still(data: bytes, limits: PictureLimits) -> dict[str, Any]:
    kept, _ = still(data, limits)
    return _kept(inspect(kept, limits), kept) | {"still": base64.b64encode(kept).decode("ascii")}


def _kept(info: PictureInfo, data: bytes) -> dict[str, Any]:
    size = {"width": info.width, "height": info.height}
    return {"extension": info.extension, "hash": hashlib.sha256(data).hexdigest()} | size
