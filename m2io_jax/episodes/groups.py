"""Groups of documents that belong in one split: translations and versions of a page, copies, pages that share images.

A model that has seen a page in training knows where its images stand in the page's translation too, so held-out figures
would say nothing. Documents are therefore joined by a union-find over their groups, in three steps: by path, by text
and by image. Everything follows from the documents alone, so a second run finds the same groups.

Images may chain all pages of a tree together (each shares one with the next, or one page shows all). Images therefore
join no more than half of the pages. An image that still stands in several splits is gold in the first of them alone:
see `building.build_episodes`.
"""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt32, UInt64

from m2io_jax.corpus.decorations import MANY_PAGES
from m2io_jax.corpus.documents import Document, TextBlock, is_illustration
from m2io_jax.corpus.page_keys import page_key
from m2io_jax.retrieval.words import words

PATH, COPY, IMAGE = "translations or versions of a page", "copies of a text", "pages that share an image"
LISTED_GROUPS = 10

# Shared images make no group of more pages than the greater of these: a number, and a share of all pages.
MOST_JOINED = 10
LARGEST_SHARE = 0.5

# Near-identical texts have this share of their runs of five words in common (Jaccard), estimated by MinHash
# (Broder 1997). Short texts have to be equal, very short ones ("Coming soon.") are no evidence.
ALIKE = 0.8
RUN = 5
FEWEST_RUNS = 20
FEWEST_WORDS = 8
HASHES = 96
BAND = 6  # hashes that two texts have to share to be compared
MOST_RUNS = 4096  # of one text: its smallest hashes, which stand for all
MOST_COMPARED = 8  # texts of one band that a text is compared with

# Folders of Docusaurus, where translations and versions of docs/ lie far from it.
_DOCUSAURUS = (
    (re.compile(r"(^|/)i18n/[^/]+/docusaurus-plugin-content-docs/(?:current|version-[^/]+)/"), r"\1docs/"),
    (re.compile(r"(^|/)i18n/[^/]+/docusaurus-plugin-content-docs-([^/]+)/(?:current|version-[^/]+)/"), r"\1\2/"),
    (re.compile(r"(^|/)i18n/[^/]+/docusaurus-plugin-content-blog/"), r"\1blog/"),
    (re.compile(r"(^|/)i18n/[^/]+/docusaurus-plugin-content-pages/"), r"\1src/pages/"),
    (re.compile(r"(^|/)versioned_docs/version-[^/]+/"), r"\1docs/"),
    (re.compile(r"(^|/)([^/]+)_versioned_docs/version-[^/]+/"), r"\1\2/"),
)
_NAMES = (
    "arabic|chinese|dutch|english|french|german|hindi|italian|japanese|korean|polish|portuguese|russian|spanish"
    "|turkish|ukrainian|vietnamese|deutsch|espa[nñ]ol|fran[cç]ais|italiano|nederlands|polski|portugu[eê]s|zhcn|zhtw|ptbr"
    "|简体中文|繁體中文|繁体中文|中文|日本語|한국어|русский"
)
_LANGUAGE_NAME = re.compile(rf"(^|/)(?:{_NAMES})(?=/)|(?<=[^/])[._-](?:{_NAMES})(?=\.\w+$)")
_SUFFIXED_FOLDER = re.compile(r"(^|/)(?![a-z]{2}[-_])([^/]+?)[._-]([a-z]{2}(?:[-_]\w{2,4})?)(?=/)")
_VERSION_FOLDER = re.compile(
    r"(^|/)(?:releases?[-_]v?\d[\w.]*|v?\d+(?:\.\d+)*[-_.]?(?:alpha|beta|rc|preview)[-_.]?\d*"
    r"|main|master|nightly|unstable|current)(?=/)"
)
_NUMBERED_FOLDER = re.compile(r"(^|/)(\d+(?:\.(?:\d+|x))+)(?=/)")
_README = re.compile(r"(^|/)(?:docs?|\.github|readmes?)/(?=readme[._-][^/]*$)")


@dataclass(frozen=True)
class Groups:
    """The split unit of every document.

    Attributes:
        of: group of each document by its id. A joined group has the least of the names that it was joined from.
        documents: how many there are.
        joins: how many times two groups became one, by reason.
        largest: (group, documents) of the largest joined groups, largest first.
        not_joined: number of images whose pages were not joined, since the group would have been too large.
    """

    of: dict[str, str]
    documents: int = 0
    joins: Counter[str] = field(default_factory=Counter)
    largest: tuple[tuple[str, int], ...] = ()
    not_joined: int = 0

    def regrouped(self, documents: Sequence[Document]) -> list[Document]:
        """Return the documents with these groups."""
        return [replace(document, group=self.of[document.id]) for document in documents]

    def to_json(self) -> dict[str, Any]:
        """Return what `episodes.json` says of the groups."""
        return {
            "documents": self.documents,
            "groups": len(set(self.of.values())),
            "joins": dict(self.joins),
            "largest": [list(each) for each in self.largest],
            "images_not_joined": self.not_joined,
        }


def join_groups(documents: Sequence[Document]) -> Groups:
    """Join the groups of documents that show the same: see the module's text."""
    sets = _Sets()
    for document in documents:
        sets.find(document.group)
    _join_all(sets, PATH, _same_pages(documents))
    _join_all(sets, COPY, _copies(documents))
    not_joined = _join_by_images(sets, documents)
    of = {document.id: sets.find(document.group) for document in documents}
    sizes = Counter(of.values())
    own = {document.group for document in documents}
    joined = {sets.find(group) for group in own if sets.find(group) != group}
    largest = sorted(((group, sizes[group]) for group in joined), key=lambda pair: (-pair[1], pair[0]))
    return Groups(of, len(documents), sets.joins, tuple(largest[:LISTED_GROUPS]), not_joined)


def groups_in_words(groups: dict[str, Any], episodes: dict[str, int]) -> list[str]:
    """Return lines that say what was joined and which split is empty.

    Args:
        groups: as `Groups.to_json` returns it.
        episodes: number of episodes by split.
    """
    lines = []
    if groups["joins"]:
        reasons = ", ".join(f"{count:,} by {reason}" for reason, count in groups["joins"].items())
        name, size = groups["largest"][0]
        lines.append(
            f"{groups['documents']:,} documents are {groups['groups']:,} groups, each in one split; joined: {reasons};"
            f" the largest: {name} with {size:,} documents"
        )
    if empty := [split for split, count in episodes.items() if not count]:
        few = "there are {:,} groups; give more documents, or other shares (train=0.6)".format(groups["groups"])
        why = "all documents are one group; give more documents" if groups["groups"] == 1 else few
        lines.append(f"no episode in {', '.join(empty)}: {why}")
    return lines


def split_key(source: str) -> str:
    """Return the path of a page without language, version and suffix; "" where there is no path."""
    path = source.lower().replace("\\", "/")
    for folder, plain in _DOCUSAURUS:
        path = folder.sub(plain, path)
    path = _VERSION_FOLDER.sub(r"\1latest", path)
    path = _LANGUAGE_NAME.sub(lambda found: ".en" if found[1] is None else f"{found[1]}en", path)
    # docs-zh/, content.en/: page_key knows a language as a folder of its own.
    path = _SUFFIXED_FOLDER.sub(r"\1\2/\3", path)
    # Twice, for x.zh-hans-cn.md: page_key takes two parts of a name at most.
    return page_key(page_key(path)).rpartition(".")[0] if path else ""


class _Sets:
    """Disjoint sets of names, each named by its least member."""

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}
        self.joins: Counter[str] = Counter()

    def find(self, name: str) -> str:
        root = self.parents.setdefault(name, name)
        while root != self.parents[root]:
            root = self.parents[root]
        while name != root:
            self.parents[name], name = root, self.parents[name]
        return root

    def join(self, one: str, other: str, reason: str) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        if first != second:
            self.parents[second] = first
            self.joins[reason] += 1


def _join_all(sets: _Sets, reason: str, alike: Iterator[list[str]] | list[list[str]]) -> None:
    for groups in alike:
        for one, other in pairwise(groups):
            sets.join(one, other, reason)


def _same_pages(documents: Sequence[Document]) -> Iterator[list[str]]:
    """Yield the groups of documents whose paths differ in language or version alone."""
    pages: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for document in documents:
        for key in _page_keys(document):
            pages[key].setdefault(document.source, []).append(document.group)
    # Documents of one and the same file are its parts, not its translations.
    yield from (sum(files.values(), []) for files in pages.values() if len(files) > 1)


def _page_keys(document: Document) -> Iterator[str]:
    """Yield the keys that a page shares with its translations and versions."""
    path = document.source.lower().replace("\\", "/")
    if not (key := split_key(path)):
        return
    # A folder "1.2" may be a version or a chapter. Versions of a page have the same title.
    yield f"{key}\n{document.title.casefold()}"
    yield split_key(_NUMBERED_FOLDER.sub(r"\1chapter \2", path))
    # docs/README.zh-CN.md is the translation of the README in the folder above.
    above = _README.sub(r"\1", path)
    if above != path and split_key(above) != above.rpartition(".")[0]:
        yield split_key(above)


def _join_by_images(sets: _Sets, documents: Sequence[Document]) -> int:
    """Join the groups that show the same image; return the number of images whose groups were not joined.

    Pages that were joined before count once. Images on few pages come first, since they say most.
    """
    pages: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        for block in document.blocks:
            if is_illustration(block):
                pages[block.picture].add(sets.find(document.group))
    sizes = Counter({sets.find(document.group): 1 for document in documents})
    most = max(MOST_JOINED, int(LARGEST_SHARE * len(sizes)))
    not_joined = 0
    for _, groups in sorted(pages.items(), key=lambda pair: (len(pair[1]), pair[0])):
        roots = sorted({sets.find(group) for group in groups})
        size = sum(sizes[root] for root in roots)
        if len(roots) > 1 and (size > most or len(groups) >= MANY_PAGES):
            not_joined += 1
        else:
            _join_all(sets, IMAGE, [roots])
            sizes[roots[0]] = size
    return not_joined


def _copies(documents: Sequence[Document]) -> Iterator[list[str]]:
    """Yield pairs of groups with near-identical texts."""
    multipliers = np.random.default_rng(0).integers(1, 2**63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    equal: dict[tuple[str, ...], str] = {}
    bands: dict[bytes, list[int]] = defaultdict(list)
    kept: list[tuple[str, np.ndarray]] = []
    for document in documents:
        said = [word for block in document.blocks if isinstance(block, TextBlock) for word in words(block.text)]
        if len(said) < FEWEST_RUNS + RUN:
            if len(said) >= FEWEST_WORDS:
                yield [equal.setdefault(tuple(said), document.group), document.group]
            continue
        signature = _signature(said, multipliers)
        for number, band in enumerate(signature.reshape(-1, BAND)):
            others = bands[number.to_bytes(2) + band.tobytes()]
            for other in others:
                group, its = kept[other]
                if group != document.group and np.mean(its == signature) >= ALIKE:
                    yield [group, document.group]
            if len(others) < MOST_COMPARED:
                others.append(len(kept))
        kept.append((document.group, signature))


def _signature(said: Sequence[str], multipliers: UInt64[np.ndarray, " hashes"]) -> UInt32[np.ndarray, " hashes"]:
    """Return the MinHash of a text's runs of words: two texts share as many entries as their runs are alike."""
    runs = (" ".join(said[start : start + RUN]) for start in range(len(said) - RUN + 1))
    hashes = np.unique(np.fromiter((zlib.crc32(run.encode()) for run in runs), np.uint64))[:MOST_RUNS]
    # Multiplication wraps around, and its upper half is a hash of its own for each multiplier.
    return ((multipliers[:, None] * hashes) >> np.uint64(32)).min(axis=1).astype(np.uint32)
