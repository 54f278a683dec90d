"""JSON objects in the files of a model's folder: read with a cause where they are none, written in one form."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2io_jax.errors import UserError

MAX_BYTES = 64 * 1024**2  # config.json has kilobytes, the index of the largest models a few megabytes
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_HINT = "fetch the files themselves: `git lfs pull` in the clone, or `hf download`"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file cannot be read, is a Git LFS pointer, is too large, or holds something else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"This file is larger than {MAX_BYTES:,} bytes.", where=str(path))
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"This file cannot be read: {error.strerror}.", where=str(path)) from None


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object. Raises UserError: it is none."""
    if content.startswith(LFS_POINTER):
        raise UserError("This is a Git LFS pointer, not the file itself.", where=where, mend=LFS_HINT)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"This is not JSON: {error}.", where=where) from None
    if not isinstance(found, dict):
        raise UserError("A JSON object was expected.", where=where)
    return found


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a JSON file."""
    return (json.dumps(content, indent=2) + "\n").encode()
