"""The files of a set that are read, and those that are passed over: hidden ones, other kinds, links that lead out."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from m2io_jax.episodes.published.draft import ReadReport
from m2io_jax.episodes.published.images import follow_written_link, is_inside
from m2io_jax.episodes.published.tables import SUFFIXES, holds_rows
from m2io_jax.errors import UserError

# Files that may well hold rows, in kinds that are not read.
OTHER_KINDS = (".csv", ".tsv", ".arrow", ".feather", ".tfrecord", ".ndjson", ".gz", ".zst", ".zip", ".tar", ".xz",
               ".bz2", ".7z", ".pkl", ".xlsx", ".h5", ".lmdb")  # fmt: skip
LINK = "a link that leads out of the folder"
TWICE = "a link to a file that is read itself"
NO_ROWS = "JSON that is neither an array of rows nor a row a line"


@dataclass(frozen=True)
class Source:
    """A set on disk.

    Attributes:
        root: the folder of the data, without links in its path.
        images: the folder that images are looked for in: the root, or the whole snapshot of a cache that it lies in.
        files: those that are read, below the root, in order.
        blobs: where a Hugging Face cache keeps what the links below the root lead to; None where the set is in none.
        data: the blobs of files that are no links, but should be; by file.
    """

    root: Path
    images: Path
    files: tuple[Path, ...]
    blobs: Path | None
    data: Mapping[Path, Path]


def find_source(source: Path, report: ReadReport) -> Source:
    """Find the files to read in a folder, or take the one that is named; the others are counted in the report.

    A file that is named is read wherever it leads. Of a folder, links are followed inside of it, and into the blobs of
    the Hugging Face cache that the folder lies in.

    Raises:
        UserError: there is nothing to read.
    """
    if not source.exists():
        raise UserError("There is nothing to read: no such file or folder.", where=str(source))
    is_folder = source.is_dir()
    root = (source if is_folder else source.parent).resolve()
    snapshot = _snapshot(root)
    blobs = None if snapshot is None else snapshot.parent.parent / "blobs"
    if is_folder:
        files = tuple(sorted(_read_files(root, blobs, report)))
    else:
        files = (root / source.name,) if source.suffix.lower() in SUFFIXES else ()
        if files and source.suffix.lower() == ".json" and not holds_rows(source):
            raise UserError(f"This is {NO_ROWS}.", where=str(source), mend="make an array of its rows")
    if not files:
        ends = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        passed = "".join(f" Not read: {reason}: {name}." for name, reason in report.unread_files[:10])
        links = " A file that a link leads to can be named itself." if report.unread[LINK] else ""
        mend = f"name a file, or a folder of files, ending in {ends}.{links}"
        raise UserError(f"There is nothing to read.{passed}", where=str(source), mend=mend)
    _refuse_revisions(root, files)
    data = {file: follow_written_link(file, blobs) for file in files if file.is_file()}
    return Source(root, snapshot or root, files, blobs, data)


def _read_files(root: Path, blobs: Path | None, report: ReadReport) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        suffix = path.suffix.lower()
        if any(part.startswith(".") for part in name.parts):
            continue
        is_inner = not path.is_symlink() or is_inside(Path(os.path.realpath(path)), root, blobs)
        if not is_inner and (suffix in SUFFIXES or path.is_dir()):
            report.add_file(name.as_posix(), LINK)
        elif suffix in SUFFIXES and path.is_file() and is_inside(Path(os.path.realpath(path)), root, blobs):
            if path.is_symlink() and _is_read(Path(os.path.realpath(path)), root):
                report.add_file(name.as_posix(), TWICE)
            elif suffix == ".json" and not holds_rows(follow_written_link(path, blobs)):
                report.add_file(name.as_posix(), NO_ROWS)
            else:
                yield path
        elif suffix in OTHER_KINDS and path.is_file():
            report.add_file(name.as_posix(), f"a file of a kind that is not read: {suffix}")


def _is_read(path: Path, root: Path) -> bool:
    """Return whether a file below the root is read by its own name."""
    if path.suffix.lower() not in SUFFIXES or not path.is_relative_to(root):
        return False
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _snapshot(root: Path) -> Path | None:
    """Return the snapshot of a Hugging Face cache that the root is, or lies in."""
    for folder in (root, *root.parents):
        blobs = folder.parent.parent / "blobs"
        if folder.parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            return folder
    return None


def _refuse_revisions(root: Path, files: tuple[Path, ...]) -> None:
    """Raise UserError for a repository of a cache with several snapshots: the same rows would be read of each."""
    snapshots = root / "snapshots"
    revisions = sorted({path.relative_to(snapshots).parts[0] for path in files if path.is_relative_to(snapshots)})
    if len(revisions) > 1:
        mend = f"name one of them, such as {snapshots / revisions[0]}"
        raise UserError(f"This cache holds {len(revisions)} snapshots of the set.", where=str(root), mend=mend)
