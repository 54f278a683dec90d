"""Choose a page's title where its front matter has none: its main heading, or the name of its file or folder."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from m2io_jax.corpus.documents import TextBlock
from m2io_jax.corpus.html_blocks import Piece

# Files that stand for their folder: their name says nothing of what they are about.
FOLDER_PAGES = ("readme", "index", "_index")
# Names that only count: step_2, 01, part-3.
COUNTED = re.compile(r"(?:step|part|page|chapter|section|lesson|unit|day|week)?[-_ .]*\d*", re.IGNORECASE)
POST_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}-(?=\w)")
LANGUAGE = re.compile(r"\.[a-z]{2}(?:[-_][A-Za-z]{2,4})?$")
# Wikis write the spaces of a page's name as hyphens.
WORD_BREAK = re.compile(r"(?<=[^\W\d_])[-_]+(?=[^\W\d_])")


def main_heading(pieces: Sequence[Piece]) -> str:
    """Return the heading of level 1 that names the page, else "".

    It is the first one, unless text stands before it and more of its level follow: then they only divide the page.
    """
    first = next((at for at, piece in enumerate(pieces) if _level(piece) == 1), None)
    if first is None:
        return ""
    has_text_before = any(isinstance(piece, TextBlock) for piece in pieces[:first])
    has_siblings = any(_level(piece) == 1 for piece in pieces[first + 1 :])
    return "" if has_text_before and has_siblings else pieces[first].text


def page_title(pieces: Sequence[Piece], path: str, tree: str) -> str:
    """Return the title of a page without a front matter's title and without a main heading.

    Vaults and wikis name the page by its file. Its first subheading is taken only where the file's name just counts
    (step_2, 01), or where the name has no spaces, the heading stands before all other text, and all other headings are
    below it.

    Args:
        pieces: the page in reading order.
        path: of its file, relative to the imported tree.
        tree: name of the tree's folder, which stands for a README at its top.
    """
    file = PurePosixPath(path)
    stem = LANGUAGE.sub("", file.stem) or file.stem
    texts = [piece for piece in pieces if isinstance(piece, TextBlock)]
    headings = [piece for piece in texts if _level(piece)]
    if headings and COUNTED.fullmatch(stem):
        return headings[0].text
    if headings and headings[0] is texts[0] and " " not in stem:
        if sum(_level(heading) <= headings[0].level for heading in headings) == 1:
            return headings[0].text
    if stem.lower() in FOLDER_PAGES:
        return _readable(file.parent.name or tree)
    return _readable(POST_DATE.sub("", stem))


def _readable(name: str) -> str:
    return name if " " in name else WORD_BREAK.sub(" ", name)


def _level(piece: Piece) -> int:
    return piece.level if isinstance(piece, TextBlock) and piece.kind == "heading" else 0
