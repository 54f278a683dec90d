"""The program of an import's worker: reads files until its input ends. WORKER CPU_SECONDS

{"root": "/tree", "path": "a.md", "encoding": "auto"}   ->   {"digest": "...", "read": {"title": ...}}
{"root": "/tree", "path": "a.png", "limits": {...}}     ->   {"digest": "...", "read": {"width": ...}}
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

from m2io_jax.corpus.pictures import PictureLimits
from m2io_jax.corpus.reading import MAX_TEXT_BYTES, Unreadable, load, read_page, read_picture
from m2io_jax.verification.requests import answer_requests


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds, and the SHA-256 of the bytes that were read; "" where none were."""
    root = Path(request["root"])
    limits = PictureLimits(**request["limits"]) if "limits" in request else None
    try:
        data = load(root, request["path"], limits.max_bytes if limits else MAX_TEXT_BYTES)
    except Unreadable as error:
        fault = {"kind": "broken", "reason": str(error)} if limits else {"skipped": str(error)}
        return {"digest": "", "read": fault}
    read = read_picture(data, limits) if limits else read_page(data, request["encoding"])
    return {"digest": hashlib.sha256(data).hexdigest(), "read": read}


def main(cpu_seconds: float) -> None:
    """Answer requests, one line of JSON each. The system ends the process where one takes more than `cpu_seconds`."""
    answer_requests(reply, cpu_seconds, prepare=lambda: None)


if __name__ == "__main__":
    main(float(sys.argv[1]))
