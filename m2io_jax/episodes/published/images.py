"""Sources of images in rows: bytes, base64, data addresses, and files below the folder of the data.

A source is what a row holds: a string (a path, an address or base64), bytes, a list of numbers that are bytes, or a
column such as `{bytes, path}`. `read_source` makes bytes or an address of it, and `ImageFinder` reads the address.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from m2io_jax.corpus.pictures import PictureLimits
from m2io_jax.corpus.references import Unresolved, resolve
from m2io_jax.episodes.published.draft import BadRow

MOST_BYTES = PictureLimits().max_bytes
MOST_CHARACTERS = MOST_BYTES * 3 // 2  # of base64, with its line breaks
NESTED = 4  # columns inside each other that a source may lie in
HELD = ("bytes", "base64", "b64", "b64_json", "data")  # of a column: the image itself, in text as base64
NAMED = ("path", "url", "image", "image_url", "input_image", "source", "file_name", "filename", "file")
MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")
SUFFIX = re.compile(r"\.(?:png|jpe?g|gif|webp|bmp|tiff?|svg|avif|heic|jfif)(?:[?#]\S*)?\Z", re.IGNORECASE)
# What a column of images is called, whatever it holds: image_id, imgPath, left_image, photo, pixel_values.
IMAGE_NAMES = re.compile(
    r"(?:\w+_)?(?:im(?:age|g)s?|pictures?|photos?|screenshots?|figures?|pixel_?values|pixels)"
    r"(?:_?(?:paths?|files?|file_?names?|names?|urls?|ids?|bytes|base64|b64|data|list|src))?",
    re.IGNORECASE,
)
DATA = re.compile(r"(?P<about>data:[^,]{0,200}|(?:image/[\w.+-]{1,40};\s?)?base64),|base64://", re.IGNORECASE)
BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*\Z")


def is_filled(value: Any) -> bool:
    """Return whether a column of a row holds anything: not None, NaN, empty, or a list of such."""
    if value is None or isinstance(value, float) and isnan(value):
        return False
    if isinstance(value, str | bytes | list | tuple | Mapping):
        return bool(value.strip() if isinstance(value, str) else value) and not _is_hollow(value)
    return True


def image_sources(value: Any) -> list[Any]:
    """Return the images of a column: a list of them, one alone, or a list as JSON in a string."""
    if not is_filled(value):
        return []
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
        if not is_filled(value):
            return []
    return list(value) if isinstance(value, list | tuple) and not _are_numbers(value) else [value]


def read_source(source: Any, depth: int = 0) -> str | bytes:
    """Return the bytes that a source holds, or its address.

    Raises:
        BadRow: it holds neither.
    """
    if isinstance(source, bytes | bytearray | memoryview) and len(source):
        return bytes(source)
    if isinstance(source, list | tuple) and _are_numbers(source) and _are_bytes(source):
        return bytes(source)
    if isinstance(source, str) and source.strip():
        return source.strip()
    if isinstance(source, Mapping) and depth < NESTED:
        for key in HELD:
            if is_filled(source.get(key)):
                found = read_source(source[key], depth + 1)
                is_bare = isinstance(found, str) and not DATA.match(found)
                return f"data:;base64,{found}" if is_bare else found
        for key in NAMED:
            if is_filled(source.get(key)):
                return read_source(source[key], depth + 1)
    raise BadRow("a picture without an address", f"{type(source).__name__} {str(source)[:200]}" if depth < 2 else "")


def is_named_as(names: re.Pattern[str], name: Any, value: Any) -> bool:
    """Return whether a column has one of some names, and a value that can be what it is named after.

    A boolean is none, as in `has_image`, and neither is a size or a count.
    """
    if not isinstance(name, str) or not names.fullmatch(name) or name.lower().startswith(("num_", "n_", "has_", "is_")):
        return False
    return is_filled(value) and not isinstance(value, bool)


def looks_like_image(value: Any, depth: int = 0) -> bool:
    """Return whether a value is an image or the name of one."""
    if isinstance(value, bytes):
        return value.startswith(MAGIC) or value[8:12] == b"WEBP"
    if isinstance(value, str):
        text = value.strip()
        is_name = len(text) <= 1000 and bool(SUFFIX.search(text)) and "\n" not in text
        return is_name or bool(DATA.match(text) and "image/" in text[:11].lower()) or is_base64(text)
    if isinstance(value, list | tuple):
        if _are_numbers(value):
            return _are_bytes(value[:24]) and looks_like_image(bytes(value[:24]))
        return any(looks_like_image(each, depth) for each in value[:4])
    if isinstance(value, Mapping) and depth < NESTED:
        held = any(looks_like_image(value.get(key), depth + 1) for key in (*HELD, *NAMED))
        return held or any(isinstance(each, bytes) and looks_like_image(each) for each in value.values())
    return False


def is_base64(text: str) -> bool:
    """Return whether a string is an image in base64, by the first bytes of it."""
    head = "".join(text[:200].split())
    if len(head) < 24 or not BASE64.match(text[:1000].rstrip("=")):
        return False
    try:
        start = base64.b64decode(head[:24].translate(_URL_SAFE))
    except (binascii.Error, ValueError):
        return False
    # The two bytes of BMP are found in other text too: it must also be long.
    long_enough = not start.startswith(b"BM") or (len(text) > 100 and start[6:10] == bytes(4))
    return (start.startswith(MAGIC) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")) and long_enough


def decode_data(address: str) -> bytes:
    """Decode base64, bare or in a data address. Both alphabets, white space and missing padding are read.

    Raises:
        BadRow: it is not base64, or too long.
    """
    found = DATA.match(address)
    about, body = (found["about"] or "base64", address[found.end() :]) if found else ("base64", address)
    if len(body) > MOST_CHARACTERS:
        raise BadRow("a picture that is broken", f"base64 of more than {MOST_CHARACTERS:,} characters")
    if "base64" not in about.lower():
        return unquote_to_bytes(body)
    text = "".join((unquote(body) if "%" in body else body).split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRow("a picture in broken base64", f"{error}: {address[:60]}...") from error


class ImageFinder:
    """Reads the images that rows name.

    Args:
        root: the folder of the data, which no path leads out of.
        blobs: where a Hugging Face cache keeps the files that links in `root` lead to; None where it is no cache.
        folder: another folder that images are looked for in.
    """

    def __init__(self, root: Path, blobs: Path | None, folder: Path | None):
        self.root, self.blobs, self.folder = root, blobs, folder

    def read(self, address: str | bytes, file: Path) -> bytes:
        """Return the bytes of an image that a row of `file` names.

        Raises:
            BadRow: there is no such file inside the folders, or it is too large.
        """
        if isinstance(address, bytes):
            return address
        if DATA.match(address) or is_base64(address):
            return decode_data(address)
        if len(address) > 4096:
            said = f"{len(address):,} characters that are neither a path nor base64"
            raise BadRow("a picture without an address", said)
        try:
            found = follow_written_link(self._find(address, file), self.blobs)
            if found.stat().st_size > MOST_BYTES:
                raise BadRow("a picture that is broken", f"{address}: more than {MOST_BYTES:,} bytes")
            return found.read_bytes()
        except Unresolved as error:
            raise BadRow(f"a picture that is {error.kind}", f"{address}: {error.reason}") from error
        except OSError as error:
            raise BadRow("a picture that is broken", f"{address}: {error.strerror}") from error

    def _find(self, address: str, file: Path) -> Path:
        address = address.removeprefix("file://")
        for root in filter(None, (self.root, self.folder)):
            if Path(address).is_relative_to(root):
                address = Path(address).relative_to(root).as_posix()
        # A link of a cache has its row's file elsewhere: images are looked for beside the link.
        for found in self._beside(address, file):
            return found
        return resolve(address, file, self.root)

    def _beside(self, address: str, file: Path) -> Iterator[Path]:
        """Look for the file at an address: from the row's file up to the root, then in the other folder."""
        path = PurePosixPath(address.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in address:
            return
        above = [folder for folder in file.parents if folder == self.root or self.root in folder.parents]
        for folder in filter(None, (*above, self.folder)):
            try:
                found = Path(os.path.realpath(folder / path))
                if is_inside(found, folder if folder == self.folder else self.root, self.blobs) and found.is_file():
                    yield found
            except (OSError, ValueError):  # a name too long, or one that no file has
                continue


def is_inside(resolved: Path, root: Path, blobs: Path | None) -> bool:
    """Return whether a path without links lies in a folder or in the blobs of its cache."""
    return resolved.is_relative_to(root) or blobs is not None and resolved.parent == blobs


def follow_written_link(path: Path, blobs: Path | None) -> Path:
    """Return the blob whose path is the content of a small file of a cache, else the file itself.

    Some copies of a cache hold files with the paths of links in place of the links.

    Raises:
        OSError: the file cannot be read.
    """
    if blobs is None or path.stat().st_size > 300 or path.parent == blobs:
        return path
    try:
        target = Path(os.path.normpath(path.parent / path.read_text(encoding="utf-8").strip()))
        return target if target.parent == blobs and target.is_file() and not target.is_symlink() else path
    except ValueError:
        return path


def _is_hollow(value: Any) -> bool:
    return isinstance(value, list | tuple) and not any(is_filled(each) for each in value)


def _are_numbers(values: Sequence[Any]) -> bool:
    """Return whether a list can only be the bytes of one image: no file of so few bytes is one."""
    return len(values) >= 24 and all(type(each) is int for each in values[:24])


def _are_bytes(values: Sequence[Any]) -> bool:
    return all(type(each) is int and 0 <= each < 256 for each in values)


_URL_SAFE = str.maketrans("-_", "+/")
