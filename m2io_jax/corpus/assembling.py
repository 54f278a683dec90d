"""Make documents of pages that were read: find their images, store them, and tell decorations and empty captions."""

import base64
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from m2io_jax.corpus.captions import SHARED_BY, caption_key, says_nothing
from m2io_jax.corpus.decorations import Place, decoration_reason, typical_pages
from m2io_jax.corpus.documents import Block, Document, PictureBlock, TextBlock
from m2io_jax.corpus.file_reader import FileReader
from m2io_jax.corpus.html_blocks import Piece, Reference
from m2io_jax.corpus.page_keys import page_key
from m2io_jax.corpus.pictures import PictureError
from m2io_jax.corpus.reading import Unreadable, load
from m2io_jax.corpus.references import Resolver, Unresolved
from m2io_jax.corpus.report import Decoration, EmptyCaption, ImportReport, Outcome, Problem
from m2io_jax.corpus.store import CorpusWriter

LONGEST_LISTED = 300


@dataclass(frozen=True)
class Page:
    """A page that was read: what its document is called, where it lies, and its parts in reading order.

    Attributes:
        path: of its file, relative to the tree; as the file system has it, where `source` is always valid text.
    """

    id: str
    title: str
    source: str
    group: str
    path: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class _Shown:
    """One reference whose image is in the corpus."""

    page: Page
    reference: Reference
    path: str
    picture: str


@dataclass
class Assembler:
    """Makes the documents of one import.

    Attributes:
        reader, resolver, writer, report: of the import.
        track: shows progress over a sequence under a name.
    """

    reader: FileReader
    resolver: Resolver
    writer: CorpusWriter
    report: ImportReport
    track: Callable[[Iterable[Any], str, int], Iterable[Any]]
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, pages: Sequence[Page]) -> None:
        """Write the documents of all pages, in their order, and list in the report what went wrong."""
        files = self._resolve(pages)
        stored = self._store(list(dict.fromkeys(file for file in files.values() if isinstance(file, str))))
        shown = self._shown(pages, files, stored)
        decorations = self._decorations(shown, pages)
        empty = self._empty_captions(shown)
        for number, page in enumerate(pages):
            blocks = tuple(self._blocks(number, page, shown, decorations, empty))
            self.writer.add_document(Document(page.id, page.title, page.source, page.group, blocks))
            self.report.documents += 1
        self.report.kept = len(shown)

    def _resolve(self, pages: Sequence[Page]) -> dict[tuple[int, int], str | Unresolved]:
        """Return the file of each reference, by the numbers of its page and its piece."""
        files: dict[tuple[int, int], str | Unresolved] = {}
        for number, page in enumerate(pages):
            for place, piece in enumerate(page.pieces):
                if isinstance(piece, Reference) and piece.unsupported:
                    files[number, place] = Unresolved("unsupported", piece.unsupported)
                elif isinstance(piece, Reference):
                    try:
                        found = self.resolver.resolve(piece.address, page.path)
                    except Unresolved as error:
                        files[number, place] = error.with_traceback(None)  # which would hold whole frames
                    else:
                        files[number, place] = found.path
                        self.report.addresses[found.rule] += 1
        return files

    def _store(self, paths: Sequence[str]) -> dict[str, str | PictureError]:
        """Decode and store images; return each one's hash, or what is wrong with it."""
        stored: dict[str, str | PictureError] = {}
        results = self.reader.pictures(paths)
        for path, found in zip(self.track(paths, "Reading images", len(paths)), results, strict=True):
            if "reason" in found:
                stored[path] = PictureError(found["kind"], found["reason"])
                continue
            try:
                still = found.get("still")
                data = base64.b64decode(still) if still else self._load(path)
            except Unreadable as error:
                stored[path] = PictureError("broken", str(error))
                continue
            hash = self.writer.add_picture(data, extension=found["extension"])
            self.sizes[hash] = found["width"], found["height"]
            stored[path] = hash
        return stored

    def _load(self, path: str) -> bytes:
        return load(self.reader.root, path, self.reader.limits.max_bytes)

    def _shown(
        self,
        pages: Sequence[Page],
        files: dict[tuple[int, int], str | Unresolved],
        stored: dict[str, str | PictureError],
    ) -> dict[tuple[int, int], _Shown]:
        """Return the references whose image is kept; the others are listed in the report."""
        shown: dict[tuple[int, int], _Shown] = {}
        for (number, place), file in files.items():
            page, reference = pages[number], pages[number].pieces[place]
            found = file if isinstance(file, Unresolved) else stored[file]
            if isinstance(found, str):
                shown[number, place] = _Shown(page, reference, file, found)
            else:
                self._list(found.kind, reference, page.source, found.reason)
        return shown

    def _list(self, kind: Outcome, reference: Reference, source: str, reason: str) -> None:
        self.report.problems.append(Problem(kind, source, reference.line, _listed(reference.address), reason))

    def _decorations(self, shown: dict[tuple[int, int], _Shown], pages: Sequence[Page]) -> dict[str, str]:
        """Return why an image is a decoration, by its hash, and list these in the report."""
        places: dict[str, list[_Shown]] = defaultdict(list)
        for each in shown.values():
            places[each.picture].append(each)
        different = len({_page_key(page) for page in pages})
        seen = {
            picture: [Place(_page_key(each.page), each.path, each.reference.caption) for each in there]
            for picture, there in places.items()
        }
        typical = typical_pages([len({place.page for place in there}) for there in seen.values()])
        reasons = {}
        for picture, there in places.items():
            if reason := decoration_reason(*self.sizes[picture], seen[picture], different, typical):
                reasons[picture] = reason
                first = there[0]
                address = _listed(first.reference.address)
                self.report.decorations.append(
                    Decoration(picture, reason, len(there), first.page.source, first.reference.line, address)
                )
        return reasons

    def _empty_captions(self, shown: dict[tuple[int, int], _Shown]) -> frozenset[str]:
        """Return the captions that many different images share; translations of an image are the same image."""
        images: dict[str, set[str]] = defaultdict(set)
        files: dict[str, set[str]] = defaultdict(set)
        for each in shown.values():
            if key := caption_key(each.reference.caption):
                images[key].add(each.picture)
                files[key].add(page_key(each.path))
        return frozenset(key for key in images if min(len(images[key]), len(files[key])) >= SHARED_BY)

    def _blocks(
        self,
        number: int,
        page: Page,
        shown: dict[tuple[int, int], _Shown],
        decorations: dict[str, str],
        empty: frozenset[str],
    ) -> Iterator[Block]:
        for place, piece in enumerate(page.pieces):
            if isinstance(piece, TextBlock):
                yield piece
            elif each := shown.get((number, place)):
                caption = piece.caption
                if caption and (caption_key(caption) in empty or says_nothing(caption, piece.address)):
                    self.report.empty_captions.append(EmptyCaption(page.source, piece.line, caption))
                    caption = ""
                yield PictureBlock(each.picture, piece.line, caption, decoration=decorations.get(each.picture, ""))


def _page_key(page: Page) -> str:
    """Return what counts as one page: a lesson's steps, and a page with its translations and versions."""
    return page_key(page.group)


def _listed(address: str) -> str:
    """Return an address for a list: an embedded image's is the image itself, and its beginning names it well enough."""
    return address if len(address) <= LONGEST_LISTED else address[:LONGEST_LISTED] + "…"
