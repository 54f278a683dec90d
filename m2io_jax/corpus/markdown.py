"""Importing a tree of Markdown files with the pictures they show."""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from m2io_jax.corpus.assembling import Assembler, Page
from m2io_jax.corpus.file_reader import FileReader
from m2io_jax.corpus.import_cache import ImportCache, default_folder
from m2io_jax.corpus.pictures import PictureLimits
from m2io_jax.corpus.reading import page_from_json
from m2io_jax.corpus.references import Resolver
from m2io_jax.corpus.report import REPORT_FILE, ImportReport, SkippedFile
from m2io_jax.corpus.store import CorpusWriter
from m2io_jax.corpus.text_encoding import AUTO, check_encoding
from m2io_jax.corpus.titles import page_title
from m2io_jax.corpus.tree_index import TreeIndex
from m2io_jax.errors import UserError

SUFFIXES = (".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd")
DEFAULT_LIMITS = PictureLimits()
# One page of a lesson that goes over several files of a folder.
STEP = re.compile(r"(?:step|part|page|chapter|section)[-_ ]?\d+", re.IGNORECASE)
LISTED_REASONS = 3


@dataclass(frozen=True)
class MarkdownSettings:
    """How a tree of Markdown files is read.

    Attributes:
        encoding: of files without a byte order mark: "auto", or one that Python knows, such as gb18030.
        workers: processes that read files; 0: as many as there are cores. The corpus is the same for any number.
        cache: folder that remembers what files held, by their content; "auto": in the user's cache folder; "none".
    """

    encoding: str = AUTO
    workers: int = 0
    cache: str = AUTO

    def __post_init__(self) -> None:
        """Raise UserError for the first value that is out of its bounds."""
        check_encoding(self.encoding)
        if not 0 <= self.workers <= 1024:
            mend = "Allowed: 0 (as many as there are cores) to 1024."
            raise UserError(f"workers is {self.workers!r}.", where="markdown: workers", mend=mend)

    def cache_folder(self) -> Path | None:
        """Return the folder of the cache; None where nothing is remembered."""
        return {AUTO: default_folder(), "none": None}.get(self.cache, Path(self.cache))


DEFAULT_SETTINGS = MarkdownSettings()


def import_markdown(
    root: str | Path,
    out: str | Path,
    *,
    settings: MarkdownSettings = DEFAULT_SETTINGS,
    limits: PictureLimits = DEFAULT_LIMITS,
) -> ImportReport:
    """Write the corpus of all Markdown files under `root` to folder `out`, with its report.

    A picture that is missing, broken, unsupported or remote, and a text that cannot be read, is listed in the report
    and never stops the import.

    Args:
        root: the tree; hidden folders and links to other folders are not searched for Markdown files.
        out: a new folder, or a corpus to replace.
        settings: how files are read.
        limits: bounds on each picture.

    Raises:
        UserError: no such folder, no Markdown in it, none of it readable, or an output that cannot be written.
    """
    top = Path(root)
    if not top.is_dir():
        raise UserError("There is nothing to import: no such folder.", where=str(root), mend="Check the path.")
    tree = top.resolve()
    files = _markdown_files(tree)
    if not files:
        mend = f"Name a folder that holds files ending in {', '.join(SUFFIXES)}."
        raise UserError("There is nothing to import: no Markdown file in this folder.", where=str(root), mend=mend)
    report = ImportReport(source=_plain(tree.name))
    cache = ImportCache(settings.cache_folder())
    resolver = Resolver(TreeIndex(tree), SUFFIXES)
    with (
        CorpusWriter(out, name=_plain(tree.name)) as writer,
        FileReader(tree, encoding=settings.encoding, limits=limits, workers=settings.workers, cache=cache) as reader,
    ):
        pages = _read_pages(tree, files, reader, report)
        if not pages:
            raise _nothing_read(report, root)
        Assembler(reader, resolver, writer, report, _track).add(pages)
        writer.add_file(REPORT_FILE, report.text())
    return report


def _read_pages(tree: Path, files: Sequence[Path], reader: FileReader, report: ImportReport) -> list[Page]:
    """Return the pages in the order of their files; those that cannot be read are listed in the report."""
    lessons = _lesson_folders(tree, files)
    ids: set[str] = set()
    pages = []
    paths = [file.relative_to(tree).as_posix() for file in files]
    for file, path, read in zip(_track(files, "Reading pages", len(files)), paths, reader.pages(paths), strict=True):
        source = _plain(path)
        if "skipped" in read:
            report.skipped_files.append(SkippedFile(source, read["skipped"]))
            continue
        parsed = page_from_json(read)
        report.encodings[read["encoding"]] += 1
        id = _new_id(source, ids)
        group = lessons.get(file.parent, id) if STEP.fullmatch(file.stem) else id
        title = parsed.title or page_title(parsed.pieces, source, _plain(tree.name))
        pages.append(Page(id, title, source, group, path, parsed.pieces))
    return pages


def _nothing_read(report: ImportReport, root: str | Path) -> UserError:
    """Return the error for a tree of which no file could be read; it names the commonest reasons."""
    reasons = Counter(skipped.reason for skipped in report.skipped_files)
    first = {skipped.reason: skipped.file for skipped in reversed(report.skipped_files)}
    told = "; ".join(f"{first[reason]}: {reason}" for reason, _ in reasons.most_common(LISTED_REASONS))
    count = len(report.skipped_files)
    what = "the one Markdown file" if count == 1 else f"none of the {count:,} Markdown files"
    verb = "cannot be read" if count == 1 else "can be read"
    return UserError(
        f"There is nothing to import: {what} {verb} ({told}).",
        where=str(root),
        mend="Convert the files to UTF-8, or name their encoding (encoding=gb18030).",
    )


def _track(items: Iterable[Any], name: str, total: int) -> Iterator[Any]:
    """Yield the items and show how far they have come, on a terminal."""
    console = Console(stderr=True)
    yield from track(items, name, total=total, console=console, transient=True) if console.is_terminal else items


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


def _lesson_folders(tree: Path, files: Sequence[Path]) -> dict[Path, str]:
    """Folders whose files are the steps of one lesson, and the group that names each lesson."""
    steps = Counter(file.parent for file in files if STEP.fullmatch(file.stem))
    lessons = {folder: folder.relative_to(tree).as_posix() for folder, count in steps.items() if count > 1}
    return {folder: _plain(name if name != "." else tree.name) for folder, name in lessons.items()}


def _new_id(source: str, ids: set[str]) -> str:
    """Return the path without its suffix, unless another file has that already (a.md beside a.markdown)."""
    id = source.rsplit(".", 1)[0] or source
    if id in ids:
        id = source
    while id in ids:
        id += "+"
    ids.add(id)
    return id


def _plain(name: str) -> str:
    """A file's name as text; bytes that are not UTF-8 cannot be written as JSON."""
    return name.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8", "replace")
