"""An index of all files of a tree, made once, so that guessing at addresses costs no look at the disk."""

import os
import unicodedata
from collections import defaultdict
from pathlib import Path
from posixpath import normpath

from m2io_jax.errors import UserError

MAX_FILES = 1_000_000
# Folders that hold no pictures of documents, and often very many files.
SKIPPED = frozenset((".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv"))
MAX_LINKS = 8  # links to folders that one path may go through


class TreeIndex:
    """Files below `root` by their paths, which are relative to it and separated by "/".

    Links to folders are not walked, but a path through one is followed as long as it stays in the tree.

    Raises:
        UserError: the tree holds more than `MAX_FILES` files.
    """

    def __init__(self, root: Path):
        self.root = root
        self.folders: set[str] = {""}
        self._files: set[str] = set()
        self._links: dict[str, str | None] = {}
        self._folded: dict[str, list[str]] = defaultdict(list)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._inside: dict[str, bool] = {}
        self._walk()

    def find(self, path: str) -> str | None:
        """Return the file at exactly this path; None where there is none, or it lies out of the tree."""
        path = self._through_links(path)
        return path if path in self._files and self._is_inside(path) else None

    def find_folded(self, path: str) -> str | None:
        """Return the only file at this path when letter case and Unicode form are ignored; None where several fit.

        Files that differ from the path in their Unicode form alone come first.
        """
        found = self._folded.get(fold(path), ())
        if len(found) > 1:
            form = unicodedata.normalize("NFC", path)
            found = [each for each in found if unicodedata.normalize("NFC", each) == form]
        return found[0] if len(found) == 1 and self._is_inside(found[0]) else None

    def with_any_suffix(self, path: str) -> list[str]:
        """Return the files at this path without its suffix, in alphabetical order."""
        return [each for each in self._by_stem.get(fold(path), ()) if self._is_inside(each)]

    def ending_in(self, tail: str, most: int) -> list[str]:
        """Return the files whose path is `tail` or ends in "/" and `tail`, letter case and Unicode form ignored.

        Returns none where more than `most` files have the name.
        """
        folded = fold(tail)
        named = self._by_name.get(folded.rpartition("/")[2], ())
        if len(named) > most:
            return []
        ends = (each for each in named if fold(each) == folded or fold(each).endswith("/" + folded))
        return [each for each in ends if self._is_inside(each)]

    def folders_holding(self, suffixes: tuple[str, ...]) -> frozenset[str]:
        """Return the folders in which files lie whose names end in one of `suffixes` (lower case)."""
        return frozenset(path.rpartition("/")[0] for path in self._files if path.lower().endswith(suffixes))

    def leads_out(self, path: str) -> bool:
        """Whether a file or folder of the tree on this path is a link that leads out of the tree."""
        path = self._through_links(path)
        if path in self._files:
            return not self._is_inside(path)
        return any(self._links.get(above, "") is None for above in _prefixes(path))

    def _walk(self) -> None:
        folders = [""]
        while folders:
            start = folders.pop()
            try:
                with os.scandir(self.root / start) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                continue  # a folder that may not be read has no files for us
            for entry in found:
                path = f"{start}/{entry.name}" if start else entry.name
                if self._enter(entry, path):
                    folders.append(path)
            if len(self._files) > MAX_FILES:
                what = f"The folder holds more than {MAX_FILES:,} files."
                raise UserError(what, where=str(self.root), mend="Import its parts one by one.")

    def _enter(self, entry: os.DirEntry[str], path: str) -> bool:
        """Add an entry to the index; return whether it is a folder to walk."""
        try:
            is_folder, is_link = entry.is_dir(), entry.is_symlink()
            is_file = is_link or entry.is_file()
        except OSError:
            return False  # a loop of links
        if not is_folder:
            if is_file:
                self._add(path, is_link)
            return False
        if entry.name in SKIPPED:
            return False
        if is_link:
            self._links[path] = self._target(path)
            return False
        self.folders.add(path)
        return True

    def _add(self, path: str, is_link: bool) -> None:
        self._files.add(path)
        if not is_link:
            self._inside[path] = True
        folded = fold(path)
        self._folded[folded].append(path)
        self._by_name[folded.rpartition("/")[2]].append(path)
        stem, dot, suffix = folded.rpartition(".")
        if dot and "/" not in suffix:
            self._by_stem[stem].append(path)

    def _target(self, link: str) -> str | None:
        """Return where in the tree a link to a folder leads; None where it leads out."""
        try:
            target = (self.root / link).resolve()
        except (OSError, RuntimeError):
            return None
        return target.relative_to(self.root).as_posix() if target.is_relative_to(self.root) else None

    def _through_links(self, path: str) -> str:
        for _ in range(MAX_LINKS if self._links else 0):
            link = next((above for above in _prefixes(path) if self._links.get(above) is not None), None)
            if link is None:
                break
            path = normpath(f"{self._links[link]}{path[len(link) :]}")
        return path

    def _is_inside(self, path: str) -> bool:
        """Whether the file, which may be a link, is a regular one that lies in the tree."""
        if path not in self._inside:
            try:
                file = (self.root / path).resolve()
                self._inside[path] = file.is_relative_to(self.root) and file.is_file()
            except (OSError, ValueError, RuntimeError):
                self._inside[path] = False  # a loop of links
        return self._inside[path]


def fold(path: str) -> str:
    """Return the path without differences of letter case and of Unicode form, which file systems treat differently."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
