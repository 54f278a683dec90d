"""HTML that stands in Markdown: its reading text and its pictures, in order, with their lines."""

from dataclasses import dataclass, replace
from html.parser import HTMLParser

from m2io_jax.corpus.documents import TextBlock, TextKind

# Elements that do not end the text they stand in.
INLINE = frozenset(
    "a abbr b bdi bdo big br cite code data del dfn em font i img ins kbd label mark q s samp small source span strike "
    "strong sub sup td th time tt u var wbr picture".split()
)
HEADINGS = {f"h{level}": level for level in range(1, 7)}
UNREAD = frozenset(("script", "style", "svg", "template"))
# Where lazily loaded pictures keep the real address.
SOURCES = ("src", "data-src", "data-original")


@dataclass(frozen=True)
class Reference:
    """A picture as a document names it: address as written, line counted from 1, the author's words for it.

    `unsupported`: why no file can be found for it; else empty.
    """

    address: str
    line: int
    caption: str = ""
    unsupported: str = ""


Piece = TextBlock | Reference


def html_pieces(html: str, line: int) -> list[Piece]:
    """Text and pictures of an HTML fragment whose first line is line `line` of its file; comments are not read."""
    reader = _Reader(line)
    reader.feed(html)
    reader.close()
    return reader.finish()


class _Reader(HTMLParser):
    def __init__(self, line: int):
        super().__init__(convert_charrefs=True)
        self.first_line = line
        self.pieces: list[Piece] = []
        self.kind: TextKind = "paragraph"
        self.level = 0
        self.unread = 0
        self.figure: int | None = None
        self.in_caption = False
        self._words: list[str] = []
        self._line = line

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in UNREAD:
            self.unread += 1
        if tag == "img" and not self.unread:
            self._add_picture({name: value or "" for name, value in reversed(attrs)})
        if tag in ("br", "td", "th"):
            self._words.append(" ")
        if tag in INLINE:
            return
        self._flush()
        if tag in HEADINGS:
            self.kind, self.level = "heading", HEADINGS[tag]
        elif tag == "figure":
            self.figure = len(self.pieces)
        elif tag == "figcaption":
            self.in_caption = True
        elif tag in ("li", "pre", "tr"):
            self.kind = {"li": "item", "pre": "code", "tr": "table"}[tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # In HTML the slash of <div/> means nothing, but <svg/> must not swallow what follows.
        self.handle_starttag(tag, attrs)
        if tag in UNREAD:
            self.unread -= 1

    def handle_endtag(self, tag: str) -> None:
        if tag in UNREAD:
            self.unread = max(0, self.unread - 1)
        if tag in INLINE:
            return
        if tag == "figcaption" and self.in_caption:
            self._end_caption()
        self._flush()
        if tag == "figure":
            self.figure = None
        if tag in HEADINGS or tag in ("li", "pre", "tr"):
            self.kind, self.level = "paragraph", 0

    def handle_data(self, data: str) -> None:
        if self.unread or not data:
            return
        if not "".join(self._words).strip():
            self._line = self.first_line + self.getpos()[0] - 1 + _blank_lines(data)
        self._words.append(data)

    def finish(self) -> list[Piece]:
        self._flush()
        return self.pieces

    def _add_picture(self, attributes: dict[str, str]) -> None:
        address = next((attributes[name] for name in SOURCES if attributes.get(name)), "")
        if not address and attributes.get("srcset", "").strip():
            address = attributes["srcset"].split()[0].rstrip(",")
        self._flush()
        caption = attributes.get("alt") or attributes.get("title") or ""
        self.pieces.append(Reference(address, self.first_line + self.getpos()[0] - 1, " ".join(caption.split())))

    def _end_caption(self) -> None:
        """A figure's caption goes to its one picture that has no words of its own; else it stays reading text."""
        self.in_caption = False
        text = " ".join("".join(self._words).split())
        start = len(self.pieces) if self.figure is None else self.figure
        for index in range(start, len(self.pieces)):
            piece = self.pieces[index]
            if isinstance(piece, Reference) and not piece.caption:
                self.pieces[index] = replace(piece, caption=text)
                self._words.clear()
                return

    def _flush(self) -> None:
        text = " ".join("".join(self._words).split())
        self._words.clear()
        if text:
            self.pieces.append(TextBlock(text, self._line, self.kind, self.level))


def _blank_lines(text: str) -> int:
    """Number of line breaks before the first word."""
    return text[: len(text) - len(text.lstrip())].count("\n")
