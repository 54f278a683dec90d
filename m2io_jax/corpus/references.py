"""From the address a document gives a picture to the file it means, never outside the imported tree."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from m2io_jax.corpus.report import Outcome

# Where site generators keep what they serve beside the pages: Hugo and Docusaurus, Next and Vite, Jekyll, Sphinx,
# MkDocs, and the Carpentries' lessons, whose folders all become one.
STATIC_FOLDERS = ("static", "public", "assets", "_static", "docs", "source", "content", "episodes")

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")
REMOTE = ("http", "https", "ftp", "ftps")


class Unresolved(Exception):
    """An address that leads to no file of the tree.

    Attributes:
        kind: the outcome to count.
        reason: why, in a few words.
    """

    def __init__(self, kind: Outcome, reason: str):
        self.kind, self.reason = kind, reason
        super().__init__(f"{kind}: {reason}")


def resolve(address: str, document: Path, root: Path) -> Path:
    """The file that `address` means in `document`, a file under `root`.

    A relative address starts at the document's folder. One that starts with "/" is looked for under the tree's root,
    then under each folder above the document. Both are looked for under the root's well-known static folders last:
    a published page may stand at another depth than its source, so that "pix/x.png" too is right on the site.

    Args:
        address: as written: percent-encoded or not, with or without query and fragment.
        document, root: resolved paths (no symbolic links in them).

    Raises:
        Unresolved: remote, embedded, absent, or outside of `root` (symbolic links followed).
    """
    address = address.strip()
    _check_scheme(address)
    outside = False
    for candidate in _candidates(address, document, root):
        try:
            file = candidate.resolve()
            if not file.is_relative_to(root):
                outside = True
            elif file.is_file():
                return file
        except (OSError, ValueError, RuntimeError):
            # A name too long, with a NUL, or a loop of links: no file, like any other absent one.
            continue
    raise Unresolved("missing", "leads out of the imported tree" if outside else "no such file")


def _check_scheme(address: str) -> None:
    if not address:
        raise Unresolved("missing", "no address given")
    if address.startswith("//"):
        raise Unresolved("remote", "remote pictures are not fetched")
    if scheme := SCHEME.match(address):
        name = scheme[1].lower()
        if name in REMOTE:
            raise Unresolved("remote", "remote pictures are not fetched")
        if name == "data":
            raise Unresolved("unsupported", "pictures embedded in the text are not read")
        raise Unresolved("missing", f"{name}: addresses are not read")


def _candidates(address: str, document: Path, root: Path) -> Iterator[Path]:
    for path in _spellings(address):
        if path.startswith("/"):
            path = path.lstrip("/")
            above = document.parent.relative_to(root).parts
            # From the root down to the document's own folder.
            yield from (root.joinpath(*above[:depth], path) for depth in range(len(above) + 1))
        else:
            yield document.parent / path
        if ".." not in PurePosixPath(path).parts:
            yield from (root / folder / path for folder in STATIC_FOLDERS)


def _spellings(address: str) -> Iterator[str]:
    """The likely path first; then the address to the letter, since a file's name may hold "?", "#" or "%"."""
    path = re.split(r"[?#]", address, maxsplit=1)[0]
    spellings = [unquote(path), path, unquote(address), address]
    spellings += [spelling.replace("\\", "/") for spelling in spellings[:2]]
    yield from (spelling for spelling in dict.fromkeys(spellings) if PurePosixPath(spelling).name)
