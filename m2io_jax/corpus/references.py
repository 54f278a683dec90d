"""Find the file that a picture's address means: as it is written, then as sites serve it, never outside the tree."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from posixpath import normpath, splitext
from typing import Literal
from urllib.parse import unquote

from m2io_jax.corpus.own_repository import OwnRepository
from m2io_jax.corpus.report import Outcome
from m2io_jax.corpus.tree_index import TreeIndex

Rule = Literal[
    "as written",
    "letter case or Unicode form",
    "address of the served page",
    "folder of served files",
    "own repository",
    "suffix left open",
    "elsewhere in the tree",
    "nearest of several",
]

# Where site generators and editors keep what they serve beside the pages: Hugo and Docusaurus, Next and Vite, Jekyll,
# Sphinx, MkDocs, the Carpentries' lessons, whose folders all become one, VuePress, VitePress, GitBook, Azure, Obsidian.
COMMON_FOLDERS = ("static", "public", "assets", "_static", "docs", "source", "content", "episodes")
STATIC_FOLDERS = (
    *COMMON_FOLDERS,
    *(".vuepress/public", ".vitepress/public", "docs/.vuepress/public", "docs/.vitepress/public", "docs/public"),
    *("docs/static", "docs/assets", "website/static", "site/static", "web/static", "src/.vuepress/public"),
    *("src/public", "src/static", "src/assets", "src", "source/_static", "_assets", "_images", ".gitbook/assets"),
    *("images", "img", "media", "attachments", ".attachments", "resources"),
)
# Of several files that differ in their suffix alone, the first of these is meant.
PICTURE_SUFFIXES = ("png", "jpg", "jpeg", "gif", "webp", "bmp", "svg")
INDEX_PAGES = ("index", "_index", "readme")

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")
REMOTE = ("http", "https", "ftp", "ftps")
# What components of VuePress and Docusaurus call to add a site's base path.
CALL = re.compile(r"""\$?(?:withBase|useBaseUrl|require)\(\s*["'`]([^"'`]+)["'`]\s*\)(?:\.default)?""")
# @site/static/a.png of Docusaurus, @/a.png and ~@/a.png of Vite and Webpack, ~/a.png of Nuxt.
ALIAS = re.compile(r"(?:~?@([\w-]*)|~)/")
SIZE = re.compile(r"\s+=(?:\d+%?x?|x)\d*%?$")
WILDCARD = ".*"
LONGEST_ADDRESS = 4096
NAMESAKES = 1000  # files of one name; a name so common tells nothing, and looking through them takes time


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
    """Return the file that `address` means in one file under `root`, as written or below the root's common folders.

    For rows of data sets, which come in millions and without a site: no index is made and nothing more is guessed.

    Args:
        address: as `Resolver.resolve` takes it.
        document, root: resolved paths (no symbolic links in them).

    Raises:
        Unresolved: remote, embedded, absent, or outside of `root` (symbolic links followed).
    """
    address = address.strip()
    if failure := _scheme_failure(address):
        raise failure
    folder = document.parent.relative_to(root).as_posix()
    leads_out = False
    for path in _plain_places(address, "" if folder == "." else folder):
        try:
            file = (root / path).resolve()
            if not file.is_relative_to(root):
                leads_out = True
            elif file.is_file():
                return file
        except (OSError, ValueError, RuntimeError):
            # A name too long, with a NUL, or a loop of links: no file, like any other absent one.
            continue
    raise Unresolved("missing", "leads out of the imported tree" if leads_out else "no such file")


@dataclass(frozen=True)
class Resolved:
    """The file that an address means, as a path relative to the tree, and the rule that found it."""

    path: str
    rule: Rule


class Resolver:
    """Resolves addresses of pictures in the documents of one tree.

    The first of these that names a file wins, so an exact match always comes before a guess:

    1. as written: relative to the document's folder; with "/" at its start below the root, then below each folder
       above the document;
    2. the same without regard to letter case and Unicode form, where only one file fits;
    3. relative to the page as it is served: page.md is served as page/;
    4. below the folders of served files (`STATIC_FOLDERS`) of the document's folder and of each folder above it;
    5. as a file of the own repository on a forge ("../blob/main/a.png");
    6. the places of 1, 3 and 4 with any suffix, for "a.*" and "a";
    7. below a site's base path: the places of 1 and 4 without the address's first folder;
    8. a file elsewhere whose path ends in the address, unless it lies beside or below other documents; of several the
       nearest. In a vault (a folder .obsidian) a bare name may lie there too.

    Args:
        index: the files of the tree.
        document_suffixes: what names of documents end in, lower case.
    """

    def __init__(self, index: TreeIndex, document_suffixes: tuple[str, ...]):
        self.index = index
        self.own = OwnRepository(index.root)
        self.is_vault = any(PurePosixPath(folder).name == ".obsidian" for folder in index.folders)
        self.pages_in = index.folders_holding(document_suffixes)
        self._find = lru_cache(maxsize=65_536)(self._resolve)
        self._static = lru_cache(maxsize=65_536)(self._static_folders)

    def resolve(self, address: str, document: str) -> Resolved:
        """Return the file that `address` means in the document at path `document`, relative to the tree.

        The address is taken as written: percent-encoded or not, with or without query and fragment.

        Raises:
            Unresolved: remote, embedded, absent, or outside of the tree (symbolic links followed).
        """
        folder, _, name = document.rpartition("/")
        stem = splitext(name)[0]
        found = self._find(address.strip(), folder, "" if stem.lower() in INDEX_PAGES else stem)
        if isinstance(found, Unresolved):
            raise Unresolved(found.kind, found.reason)
        return found

    def _resolve(self, address: str, folder: str, page: str) -> Resolved | Unresolved:
        if call := CALL.fullmatch(address):
            address = call[1]
        if failure := _scheme_failure(address):
            is_short = len(address) <= LONGEST_ADDRESS
            if (
                is_short
                and failure.kind == "remote"
                and (found := self._first(self.own.paths_of(address), "own repository"))
            ):
                return found
            return failure
        address = address.removeprefix("pathname://")
        spellings = list(_spellings(address))
        literal = [path for spelling in spellings for path in _places(spelling, folder)]
        for path in literal:
            if inside := _normal(path):
                if found := self.index.find(inside):
                    return Resolved(found, "as written")
        if found := self._guess(spellings, literal, folder, page):
            return found
        leads_out = any(_normal(path) is None or self.index.leads_out(_normal(path)) for path in literal)
        return Unresolved("missing", "leads out of the imported tree" if leads_out else "no such file")

    def _guess(self, spellings: list[str], literal: list[str], folder: str, page: str) -> Resolved | Unresolved | None:
        if found := self._first_folded(literal, "letter case or Unicode form"):
            return found
        relative = [path for path in spellings if not path.startswith("/")]
        served = [f"{folder}/{page}/{path}" for path in relative] if page else []
        static = [place for path in spellings for place in self._static_places(path, folder)]
        own = [place for path in spellings for place in self.own.paths_of_relative(path)]
        return (
            self._first(served, "address of the served page")
            or self._first(static, "folder of served files")
            or self._first(own, "own repository")
            or self._any_suffix([*literal, *served, *static])
            or self._first(self._below_base(spellings, folder), "folder of served files")
            or self._elsewhere(spellings, folder)
        )

    def _first(self, paths: list[str], rule: Rule) -> Resolved | None:
        """Return the first file among `paths`; exact matches come before those of another case or Unicode form."""
        for path in paths:
            if (inside := _normal(path)) and (found := self.index.find(inside)):
                return Resolved(found, rule)
        return self._first_folded(paths, rule)

    def _first_folded(self, paths: list[str], rule: Rule) -> Resolved | None:
        for path in paths:
            if (inside := _normal(path)) and (found := self.index.find_folded(inside)):
                return Resolved(found, rule)
        return None

    def _static_folders(self, folder: str) -> tuple[str, ...]:
        """Return the folders of served files that a document's folder has, the nearest first."""
        parts = folder.split("/") if folder else []
        above = ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
        paths = (f"{base}/{name}" if base else name for base in above for name in STATIC_FOLDERS)
        return tuple(path for path in paths if path in self.index.folders)

    def _static_places(self, path: str, folder: str) -> Iterator[str]:
        if ".." not in PurePosixPath(path).parts:
            yield from (f"{base}/{path.lstrip('/')}" for base in self._static(folder))

    def _below_base(self, spellings: list[str], folder: str) -> list[str]:
        """Return the places of addresses of the whole site ("/base/a.png") without the site's base path."""
        shorter = (path.lstrip("/").partition("/")[2] for path in spellings if path.startswith("/"))
        places = []
        for path in filter(None, shorter):
            places += [*_places("/" + path, folder), *self._static_places(path, folder)]
        return places

    def _any_suffix(self, paths: list[str]) -> Resolved | None:
        for path in paths:
            inside = _normal(path)
            if not inside or (PurePosixPath(inside).suffix and not inside.endswith(WILDCARD)):
                continue
            found = {each.rpartition(".")[2].lower(): each for each in self._namesakes(inside)}
            if suffix := next((suffix for suffix in PICTURE_SUFFIXES if suffix in found), None):
                return Resolved(found[suffix], "suffix left open")
        return None

    def _namesakes(self, path: str) -> list[str]:
        return self.index.with_any_suffix(path.removesuffix(WILDCARD))

    def _elsewhere(self, spellings: list[str], folder: str) -> Resolved | Unresolved | None:
        for path in spellings:
            tail = _normal(re.sub(r"^(?:\.{0,2}/)+", "", path))
            is_bare = tail is not None and "/" not in tail
            # "../a.png" names a folder, and a bare name below "/" the site's top: neither is a name alone.
            if not tail or (is_bare and path.removeprefix("./") != tail):
                continue
            found = self.index.ending_in(tail, most=NAMESAKES)
            if not (is_bare and self.is_vault):
                found = [each for each in found if self._is_free(each, tail, folder)]
            if len(found) == 1:
                return Resolved(found[0], "elsewhere in the tree")
            if found:
                nearest = sorted(found, key=lambda each: _distance(each, folder))
                if _distance(nearest[0], folder) == _distance(nearest[1], folder):
                    return Unresolved("missing", f"{len(found)} files have this name, and none is nearest")
                return Resolved(nearest[0], "nearest of several")
        return None

    def _is_free(self, path: str, tail: str, folder: str) -> bool:
        """Whether the folder that the tail starts in belongs to no other pages than the document's.

        It belongs to the pages in it or in the nearest folder above it.
        """
        base = "/".join(path.split("/")[: -tail.count("/") - 1])
        while base and base not in self.pages_in:
            base = base.rpartition("/")[0]
        return not base or folder == base or folder.startswith(base + "/")


def _scheme_failure(address: str) -> Unresolved | None:
    """Return why an address is no path of a file, by its scheme."""
    if not address:
        return Unresolved("missing", "no address given")
    if address.startswith("//"):
        return Unresolved("remote", "remote pictures are not fetched")
    scheme = SCHEME.match(address)
    if not scheme or address.startswith("pathname://"):
        # No path of a system is that long.
        return Unresolved("missing", "no such file") if len(address) > LONGEST_ADDRESS else None
    name = scheme[1].lower()
    if name in REMOTE:
        return Unresolved("remote", "remote pictures are not fetched")
    if name == "data":
        return Unresolved("unsupported", "pictures embedded in the text are not read")
    return Unresolved("missing", f"{name}: addresses are not read")


def _places(path: str, folder: str) -> Iterator[str]:
    """Yield where an address leads as it is written; with "/", below each folder above the document, the root first."""
    if not path.startswith("/"):
        yield f"{folder}/{path}"
        return
    above = folder.split("/") if folder else []
    yield from ("/".join([*above[:depth], path.lstrip("/")]) for depth in range(len(above) + 1))


def _plain_places(address: str, folder: str) -> Iterator[str]:
    for path in _spellings(address):
        yield from (place.lstrip("/") for place in _places(path, folder))
        if ".." not in PurePosixPath(path).parts:
            yield from (f"{name}/{path.lstrip('/')}" for name in COMMON_FOLDERS)


def _normal(path: str) -> str | None:
    """Return the path without "." and ".."; None where it leads out of the tree."""
    inside = normpath(path.lstrip("/"))
    return None if inside == ".." or inside.startswith("../") else inside


def _distance(path: str, folder: str) -> tuple[int, int]:
    """Return how many folders lie between a file and a document's folder, and how deep the file lies."""
    there, here = path.split("/")[:-1], folder.split("/") if folder else []
    common = 0
    while common < min(len(there), len(here)) and there[common] == here[common]:
        common += 1
    return len(there) + len(here) - 2 * common, len(there)


def _spellings(address: str) -> Iterator[str]:
    """Yield the likely path first; then the address to the letter, since a file's name may hold "?", "#" or "%"."""
    path = re.split(r"[?#]", address, maxsplit=1)[0]
    spellings = [unquote(path), path, unquote(address), address]
    spellings += [spelling.replace("\\", "/") for spelling in spellings[:2]]
    spellings += [SIZE.sub("", spellings[0]), unquote(unquote(path)), spellings[0].replace("+", " ")]
    spellings.append(unquote(path, encoding="cp1252", errors="replace"))
    if alias := ALIAS.match(spellings[0]):
        rest = spellings[0][alias.end() :]
        spellings += ["/" + rest, *([f"/{alias[1]}/{rest}"] if alias[1] else [])]
    elif spellings[0].startswith("~") and not spellings[0].startswith("~/"):
        spellings.append("/" + spellings[0][1:])
    yield from (spelling for spelling in dict.fromkeys(spellings) if spelling.rpartition("/")[2])
