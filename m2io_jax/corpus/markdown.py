"""Importing a tree of Markdown files with the pictures they show."""

import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from rich.console import Console
from rich.progress import track

from m2io_jax.corpus.documents import Block, Document, PictureBlock, TextBlock
from m2io_jax.corpus.html_blocks import Reference
from m2io_jax.corpus.markdown_blocks import ParsedMarkdown, parse_markdown
from m2io_jax.corpus.pictures import PictureError, PictureLimits, decode, inspect
from m2io_jax.corpus.references import Unresolved, resolve
from m2io_jax.corpus.report import REPORT_FILE, ImportReport, Outcome, Problem, SkippedFile
from m2io_jax.corpus.store import CorpusWriter
from m2io_jax.errors import UserError

SUFFIXES = (".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd")
# The parser's time can grow with the square of a hostile text's length.
MAX_TEXT_BYTES = 4 * 2**20
DEFAULT_LIMITS = PictureLimits()
# One page of a lesson that goes over several files of a folder.
STEP = re.compile(r"(?:step|part|page|chapter|section)[-_ ]?\d+", re.IGNORECASE)


def import_markdown(root: str | Path, out: str | Path, *, limits: PictureLimits = DEFAULT_LIMITS) -> ImportReport:
    """Writes the corpus of all Markdown files under `root` to folder `out`, with its report.

    A picture that is missing, broken, unsupported or remote, and a text that cannot be read, is listed in the report
    and never stops the import.

    Args:
        root: the tree; hidden folders and links to other folders are not entered.
        out: a new folder, or a corpus to replace.
        limits: bounds on each picture.

    Raises:
        UserError: no such folder, no Markdown in it, or an output that cannot be written.
    """
    top = Path(root)
    if not top.is_dir():
        raise UserError("There is nothing to import: no such folder.", where=str(root), mend="Check the path.")
    tree = top.resolve()
    files = _markdown_files(tree)
    if not files:
        mend = f"Name a folder that holds files ending in {', '.join(SUFFIXES)}."
        raise UserError("There is nothing to import: no Markdown file in this folder.", where=str(root), mend=mend)
    groups = _lesson_folders(tree, files)
    report = ImportReport(source=_plain(tree.name))
    console = Console(stderr=True)
    with CorpusWriter(out, name=_plain(tree.name)) as writer:
        work = _Import(tree, limits, writer, report, groups)
        for file in track(files, "Importing", console=console, disable=not console.is_terminal, transient=True):
            work.add(file)
        writer.add_file(REPORT_FILE, report.text())
    return report


def _markdown_files(tree: Path) -> list[Path]:
    """All Markdown files under `tree`, step_2 before step_10."""
    found: list[Path] = []
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "node_modules"]
        found += [Path(folder, name) for name in names if name.lower().endswith(SUFFIXES)]
    return sorted(found, key=lambda file: _natural(file.relative_to(tree)))


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", str(path).lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts] + [(False, 0, str(path))]


def _lesson_folders(tree: Path, files: list[Path]) -> dict[Path, str]:
    """Folders whose files are the steps of one lesson, and the group that names each lesson."""
    steps = Counter(file.parent for file in files if STEP.fullmatch(file.stem))
    lessons = {folder: folder.relative_to(tree).as_posix() for folder, count in steps.items() if count > 1}
    return {folder: _plain(name if name != "." else tree.name) for folder, name in lessons.items()}


@dataclass
class _Import:
    """One import at work: where things go, and what is already known about each picture file."""

    tree: Path
    limits: PictureLimits
    writer: CorpusWriter
    report: ImportReport
    lessons: dict[Path, str]
    known: dict[Path, str | PictureError] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    def add(self, file: Path) -> None:
        """Adds one Markdown file as a document, or lists it as skipped."""
        source = _plain(file.relative_to(self.tree).as_posix())
        try:
            parsed = parse_markdown(self._read(file))
        except Exception as error:  # parsers raise a dozen types on odd text
            reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error) or type(error).__name__
            self.report.skipped_files.append(SkippedFile(source, reason))
            return
        id = self._new_id(source)
        group = self.lessons.get(file.parent, id) if STEP.fullmatch(file.stem) else id
        title = parsed.title or _plain(file.stem)
        self.writer.add_document(Document(id, title, source, group, tuple(self._blocks(parsed, file, source))))
        self.report.documents += 1

    def _read(self, file: Path) -> str:
        if not file.resolve().is_relative_to(self.tree):
            raise ValueError("a link that leads out of the imported tree")
        found = file.stat()
        if not S_ISREG(found.st_mode):
            raise ValueError("no file: reading it might never end")
        if found.st_size > MAX_TEXT_BYTES:
            raise ValueError(f"{found.st_size:,} bytes, more than the {MAX_TEXT_BYTES:,} allowed")
        return file.read_bytes().decode("utf-8-sig")

    def _new_id(self, source: str) -> str:
        """The path without its suffix, unless another file has that already (a.md beside a.markdown)."""
        id = source.rsplit(".", 1)[0] or source
        if id in self.ids:
            id = source
        while id in self.ids:
            id += "+"
        self.ids.add(id)
        return id

    def _blocks(self, parsed: ParsedMarkdown, file: Path, source: str) -> Iterator[Block]:
        for piece in parsed.pieces:
            if isinstance(piece, TextBlock):
                yield piece
            elif picture := self._picture(piece, file, source):
                self.report.kept += 1
                yield PictureBlock(picture, piece.line, piece.caption)

    def _picture(self, reference: Reference, file: Path, source: str) -> str | None:
        """The hash of the picture that is referred to; None where there is none to keep, which is then listed."""
        if reference.unsupported:
            self._list("unsupported", reference, source, reference.unsupported)
            return None
        try:
            return self._stored(resolve(reference.address, file, self.tree))
        except (Unresolved, PictureError) as error:
            self._list(error.kind, reference, source, error.reason)
        return None

    def _list(self, kind: Outcome, reference: Reference, source: str, reason: str) -> None:
        # An embedded picture's address is the picture itself: its beginning names it well enough.
        address = reference.address if len(reference.address) <= 300 else reference.address[:300] + "…"
        self.report.problems.append(Problem(kind, source, reference.line, address, reason))

    def _stored(self, file: Path) -> str:
        """The hash of a picture file, decoded and stored when it is met for the first time."""
        if file not in self.known:
            try:
                self.known[file] = self._decoded_and_stored(file)
            except PictureError as error:
                self.known[file] = error
        found = self.known[file]
        if isinstance(found, PictureError):
            raise found
        return found

    def _decoded_and_stored(self, file: Path) -> str:
        try:
            size = file.stat().st_size
            if size > self.limits.max_bytes:
                raise PictureError("broken", f"{size:,} bytes, more than the {self.limits.max_bytes:,} allowed")
            data = file.read_bytes()
        except OSError as error:
            raise PictureError("broken", f"cannot be read: {error.strerror or error}") from error
        with warnings.catch_warnings():
            # Pillow warns on the terminal about oddities that do no harm; what does harm raises.
            warnings.simplefilter("ignore")
            info = inspect(data, self.limits)
            decode(data, self.limits)
        return self.writer.add_picture(data, extension=info.extension)


def _plain(name: str) -> str:
    """A file's name as text; bytes that are not UTF-8 cannot be written as JSON."""
    return name.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8", "replace")
