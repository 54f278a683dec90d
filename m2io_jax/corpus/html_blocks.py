"""HTML that stands in Markdown: its reading text and its pictures, in order, with their lines."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser

from m2io_jax.corpus.dialects.shortcodes import joined_words
from m2io_jax.corpus.documents import TextBlock, TextKind
from m2io_jax.corpus.html_images import VIDEOS, Reference, image_reference, source_address

# Elements that do not end the text they stand in.
INLINE = frozenset(
    "a abbr b bdi bdo big br cite code data del dfn em font i img ins kbd label mark q s samp small source span strike "
    "strong sub sup td th time tt u var wbr picture".split()
)
HEADINGS = {f"h{level}": level for level in range(1, 7)}
UNREAD = frozenset(("script", "style", "svg", "template"))
# Elements whose text is shown as it stands, among other text.
VERBATIM = frozenset(("code", "kbd", "samp", "tt", "var"))
FIGURES = ("figure", "frame")
# Elements that hold a line of text: a "+" or a "1." at its start begins no list.
LINES = frozenset("p summary figcaption caption dt dd li td th tr label button legend".split()) | frozenset(HEADINGS)
# Figures nested deeper than this, and captions longer, are read as text.
MAX_FIGURES = 100
MAX_CAPTION = 2000
MAX_CAPTION_BLOCKS = 3
# A figure's caption is given to one of so many pieces before it.
MAX_FIGURE_PIECES = 1000
MARKS = {ord(mark): f"\\{mark}" for mark in "\\`*_{}[]()#+-.!<>|~$:^=&"}

# What stands in captions of shortcodes that are no plain text.
CAPTION_SIGN = re.compile(r"[*_`\[<&\\]")
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")

Piece = TextBlock | Reference

ReadMarkdown = Callable[[str, int, TextKind, int, bool], list[Piece]]
"""Reads Markdown that stands in HTML: text, index of its first line, kind and level of its blocks, whether it may hold
blocks (lists, code) or is one line of text."""


@dataclass
class _Figure:
    """An open figure: where its pieces start, and what its caption is.

    Attributes:
        start: index of its first piece.
        caption: the words of its caption, where an attribute gives them.
        takes_rest: whether the text after its last picture is its caption.
        early: where the pieces of a caption stand that comes before the picture.
    """

    start: int
    caption: str = ""
    takes_rest: bool = False
    early: tuple[int, int] | None = None


class HtmlReader(HTMLParser):
    """Reads the HTML fragments of one document into `pieces`; a figure may go over several of them.

    Args:
        pieces: the document's, to which text and pictures are added.
        number: returns a line's number in the file, given its index in the text.
        read_markdown: reads the text of elements, which many site generators take for Markdown.
    """

    def __init__(self, pieces: list[Piece], number: Callable[[int], int], read_markdown: ReadMarkdown):
        super().__init__(convert_charrefs=True)
        self.pieces = pieces
        self.number = number
        self.read_markdown = read_markdown
        self.figures: list[_Figure] = []
        self.caption_start: int | None = None
        self.start(0)

    def start(self, line: int) -> None:
        """Forget what was open, but for figures: the next fragment begins at line index `line`."""
        self.reset()
        self.first_line = line
        self.kind: TextKind = "paragraph"
        self.level = 0
        self.unread = self.silent = self.verbatim = 0
        self.is_line = False
        self.sources: list[str] | None = None
        self.needs_video = False
        self._words: list[str] = []
        self._line = line

    def read(self, html: str, line: int) -> None:
        """Read a fragment whose first line has index `line`; comments are not read."""
        self.start(line)
        self.feed(_closed(html))
        self.close()
        self._flush()

    def references_in(self, tag: str, line: int) -> list[Reference]:
        """Return the pictures that a tag inside a paragraph stands for."""
        pieces, self.pieces = self.pieces, []
        figures, self.figures = self.figures, []
        caption_start, self.caption_start = self.caption_start, None
        self.reset()
        self.first_line = line
        self.feed(tag)
        self.close()
        found = [piece for piece in self.pieces if isinstance(piece, Reference)]
        self.pieces, self.figures, self.caption_start = pieces, figures, caption_start
        self._words.clear()
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in reversed(attrs)}
        if tag in UNREAD:
            self.unread += 1
        if not self.unread or tag == "image":
            self._add_picture(tag, given)
        if tag in ("br", "td", "th"):
            self._add_words(" ")
        self.verbatim += tag in VERBATIM
        if tag in INLINE:
            return
        self._flush()
        self.silent += tag in VIDEOS
        if tag in HEADINGS:
            self.kind, self.level = "heading", HEADINGS[tag]
        elif tag in FIGURES:
            self.figures.append(
                _Figure(len(self.pieces), given.get("caption", ""), given.get("data-caption") == "rest")
            )
            del self.figures[:-MAX_FIGURES]
        elif tag == "figcaption":
            self.caption_start = len(self.pieces)
        elif tag in ("li", "pre", "tr"):
            self.kind = {"li": "item", "pre": "code", "tr": "table"}[tag]
        self.is_line = tag in LINES

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # In HTML the slash of <div/> means nothing, but <svg/> must not swallow what follows.
        self.handle_starttag(tag, attrs)
        if tag in UNREAD or tag in VERBATIM or tag in VIDEOS or tag in FIGURES:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in UNREAD:
            self.unread = max(0, self.unread - 1)
        if tag in VERBATIM:
            self.verbatim = max(0, self.verbatim - 1)
        if tag == "picture":
            self._end_picture()
        if tag in INLINE:
            return
        self._flush()
        if tag in VIDEOS:
            self.silent = max(0, self.silent - 1)
            self.needs_video = False
        if tag == "figcaption" and self.caption_start is not None:
            self._end_caption(self.caption_start)
        if tag in FIGURES and self.figures:
            self._end_figure(self.figures.pop())
        if tag in HEADINGS or tag in ("li", "pre", "tr"):
            self.kind, self.level = "paragraph", 0
        self.is_line = False

    def handle_data(self, data: str) -> None:
        if self.unread or self.silent or not data:
            return
        self._add_words(data.translate(MARKS) if self.verbatim and self.kind != "code" else data)

    def _add_words(self, words: str) -> None:
        if not self._words:
            self._line = self._here()
        self._words.append(words)

    def _here(self) -> int:
        return self.first_line + self.getpos()[0] - 1

    def _add_picture(self, tag: str, given: dict[str, str]) -> None:
        line = self.number(self._here())
        if tag == "picture":
            self.sources = []
        if tag == "source":
            found = self._read_source(given, line)
        else:
            if CAPTION_SIGN.search(given.get("data-caption", "")):
                given["data-caption"] = self._read_caption(given["data-caption"])
            found = image_reference(tag, given, line)
            self.needs_video = self.needs_video or (tag in VIDEOS and not found)
        if found:
            if tag == "img":
                self.sources = None
            self._flush()
            self.pieces.append(found)

    def _read_caption(self, caption: str) -> str:
        """Return the text of a shortcode's caption, which may be Markdown with tags."""
        text = TAG.sub(" ", caption)
        pieces = self.read_markdown(text, self._here(), "paragraph", 0, False) if text.strip() else []
        return " ".join(piece.text for piece in pieces if isinstance(piece, TextBlock))

    def _read_source(self, given: dict[str, str], line: int) -> Reference | None:
        """Keep a picture's source for when it has no `<img>`; return that of a video that names none itself."""
        address = source_address(given)
        if self.needs_video and address:
            self.needs_video = False
            return Reference(address, line, unsupported="a video or a recording, no still image")
        if self.sources is not None and address:
            self.sources.append(address)
        return None

    def _end_picture(self) -> None:
        if self.sources:
            self._flush()
            self.pieces.append(Reference(self.sources[0], self.number(self._here())))
        self.sources = None

    def _end_caption(self, start: int) -> None:
        """Give a figure's caption to its picture; where it has none the caption stays reading text."""
        self.caption_start = None
        figure = self.figures[-1] if self.figures else None
        first = figure.start if figure else start - 1
        if not self._give_caption(first, start, (start, len(self.pieces))) and figure:
            figure.early = (start, len(self.pieces))

    def _end_figure(self, figure: _Figure) -> None:
        if figure.early:
            self._give_caption(figure.early[1], len(self.pieces), figure.early)
        elif figure.takes_rest:
            places = [at for at in range(figure.start, len(self.pieces)) if isinstance(self.pieces[at], Reference)]
            after = self.pieces[places[-1] + 1 :] if places else []
            if places and len(after) <= MAX_CAPTION_BLOCKS:
                self._give_caption(places[-1], places[-1] + 1, (places[-1] + 1, len(self.pieces)))
        if figure.caption:
            self._caption_one(figure.start, len(self.pieces), figure.caption)

    def _give_caption(self, first: int, end: int, words: tuple[int, int]) -> bool:
        """Take the text pieces at `words` for the caption of a picture among the pieces from `first` to `end`."""
        texts = [piece for piece in self.pieces[slice(*words)] if isinstance(piece, TextBlock)]
        caption = " ".join(text.text for text in texts)
        # Headings and code are the rest of a page whose figure never ends.
        if not caption or len(caption) > MAX_CAPTION or any(text.kind in ("heading", "code") for text in texts):
            return False
        if not self._caption_one(first, end, caption):
            return False
        self.pieces[slice(*words)] = [piece for piece in self.pieces[slice(*words)] if isinstance(piece, Reference)]
        return True

    def _caption_one(self, first: int, end: int, caption: str) -> bool:
        """Add a caption to the first picture without words, else to the last; False where there is no picture."""
        places = range(max(first, end - MAX_FIGURE_PIECES, 0), end)
        pictures = [(at, piece) for at in places if isinstance(piece := self.pieces[at], Reference)]
        if not pictures:
            return False
        at, picture = next(((at, piece) for at, piece in pictures if not piece.caption), pictures[-1])
        self.pieces[at] = replace(picture, caption=joined_words(picture.caption, caption))
        return True

    def _flush(self) -> None:
        text = "".join(self._words)
        self._words.clear()
        if not text.strip():
            return
        if self.kind == "code":
            line = self._line + text[: len(text) - len(text.lstrip())].count("\n")
            self.pieces.append(TextBlock(" ".join(text.split()), self.number(line), self.kind, self.level))
        else:
            holds_blocks = not self.is_line and self.kind == "paragraph" and text.lstrip(" \t").startswith("\n")
            self.pieces += self.read_markdown(text, self._line, self.kind, self.level, holds_blocks)


def _closed(html: str) -> str:
    """Return HTML without a comment that does not end, and with no tag begun after the last one that ends.

    The parser would look for the end of each again from every later one.
    """
    comment = html.find("<!--", html.rfind("-->") + 1)
    if comment >= 0:
        html = html[:comment]
    end = html.rfind(">") + 1
    return html[:end] + html[end:].replace("<", "&lt;")
