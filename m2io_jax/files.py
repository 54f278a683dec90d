"""Files and folders that appear whole: a reader finds the former one or the new one. A writer of a folder that is
killed between its two renamings leaves the former one aside, where the next writer finds it. And reading JSON Lines."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from m2io_jax.errors import UserError

Row = TypeVar("Row")


SAMPLES, SAMPLE = 64, 4096  # of a file, that tell it from others; bytes of each
DESCRIPTION = {"bytes", "sampled_sha256"}


def sampled_digest(folder: Path, pattern: str) -> str:
    """Of the names and sizes of files, and of samples of their bytes; all bytes of those up to 256 KiB.

    Training moves all weights, and records made anew lie elsewhere: samples tell. Of a large file, an edit between two
    samples that keeps its size goes unnoticed.
    """
    found = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        size = path.stat().st_size
        found.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        for sample in _samples(path, size):
            found.update(sample)
    return found.hexdigest()


def _samples(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for place in range(0, size, max(SAMPLE, size // SAMPLES)):
            file.seek(place)
            yield file.read(SAMPLE)


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the size and a digest of samples (as `sampled_digest`) of each file, for `require_described`."""
    return {name: _described(folder / name) for name in sorted(names)}


def require_described(folder: Path, described: Mapping[str, Mapping[str, Any]], by: str) -> None:
    """Raise ValueError, naming the file, if one in `folder` is not the file that `describe_files` described.

    Args:
        by: name of the file that holds the description.
    """
    if not isinstance(described, Mapping):
        raise ValueError(f"{by} is damaged: `files` must be names with sizes and digests")
    for name, expected in described.items():
        if not isinstance(expected, Mapping) or set(expected) != DESCRIPTION:
            raise ValueError(f"{by} is damaged: it does not describe {name}")
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        size = (folder / name).stat().st_size
        if size != expected["bytes"]:
            raise ValueError(f"{name} has {size} bytes, {by} says {expected['bytes']}: it is cut, or of another build")
        if _described(folder / name) != expected:
            raise ValueError(f"{name} is not the file that {by} describes: it is damaged, or of another build")


def _described(path: Path) -> dict[str, Any]:
    size, found = path.stat().st_size, hashlib.sha256()
    for sample in _samples(path, size):
        found.update(sample)
    return {"bytes": size, "sampled_sha256": found.hexdigest()}


def replace_text(path: Path, text: str) -> None:
    """Writes a text file at once. Raises OSError, and then leaves nothing beside it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def write_at_once(path: str | Path, text: str, *, what: str) -> None:
    """Writes a text file at once, and the folders above it.

    Raises:
        UserError: it cannot be written; `what` says what it holds.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        mend = "Name a file that you may write, on a disk with room."
        raise UserError(f"The {what} cannot be written: {error.strerror}.", where=str(path), mend=mend) from error


@contextmanager
def replaced_whole(folder: Path, *, alone: bool = True) -> Iterator[Path]:
    """A draft to fill, which then takes the folder's place; where that fails, what was there stays. Raises OSError.

    `alone`: no other process writes the folder meanwhile, so a draft that is there was left by a killed one, and is
    removed; otherwise the draft is this process's own.
    """
    folder = Path(os.path.abspath(folder))
    draft = folder.with_name(f".{folder.name}.unfinished" if alone else f".{folder.name}.{os.getpid()}.unfinished")
    _bring_back(folder)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        put_in_place(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def put_in_place(draft: Path, folder: Path) -> None:
    """Renames the folder `draft` to `folder`; what was there is moved aside first, and removed when the new one stands.

    Raises OSError; what was there is then there again.
    """
    _bring_back(folder)
    if not folder.exists():
        draft.rename(folder)
        return
    former = _former(folder)
    shutil.rmtree(former, ignore_errors=True)
    folder.rename(former)
    try:
        draft.rename(folder)
    except OSError:
        former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _bring_back(folder: Path) -> None:
    """What a writer moved aside that was killed before it put the new one in its place."""
    if not folder.exists() and _former(folder).exists():
        _former(folder).rename(folder)


def _former(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.former")


def read_json_lines(path: str | Path, make: Callable[[Any], Row], *, what: str, mend: str) -> Iterator[Row]:
    """What `make` makes of each line's JSON; it raises ValueError, KeyError or TypeError for one that it cannot use.

    Raises:
        UserError: a line is damaged, or not `what`, such as "a document"; it is named by its number.
        OSError: the file cannot be read.
    """
    # Bytes, split at "\n" only: a damaged file must still give the number of its damaged line.
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield make(json.loads(line.decode("utf-8")))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                reason = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
                said = f"Line {number} is not {what}: {reason}"
                raise UserError(said, where=f"{path}:{number}", mend=mend) from error
