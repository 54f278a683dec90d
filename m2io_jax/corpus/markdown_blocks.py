"""A Markdown file as text blocks and picture references in reading order, with their lines.

CommonMark and tables are markdown-it-py's work. What wikis and site generators add to them is rewritten first, one
family of dialects after another (`dialects/`), or read inside the lines (`markdown_parser.py`).
"""

import re
from dataclasses import dataclass
from textwrap import dedent

from markdown_it import MarkdownIt
from markdown_it.token import Token

from m2io_jax.corpus.dialects.rewriting import rewrite
from m2io_jax.corpus.documents import TextBlock, TextKind
from m2io_jax.corpus.front_matter import split_front_matter
from m2io_jax.corpus.html_blocks import HtmlReader, Piece
from m2io_jax.corpus.html_images import Reference
from m2io_jax.corpus.inline_runs import Run, Words, arranged, clean, is_directive, runs_of
from m2io_jax.corpus.markdown_parser import PARSERS
from m2io_jax.corpus.titles import main_heading

# The code sections of such lessons, with settings between two "---".
LESSON_CODE = re.compile(
    r"^(?P<indent>[ \t]*)--- code ---[ \t]*\n(?P<settings>\s*---[ \t]*\n(?:[ \t]*[\w-]+:.*\n)*[ \t]*---[ \t]*\n)?"
    r"(?P<code>(?:.*\n)*?)[ \t]*--- /code ---[ \t]*$",
    re.MULTILINE,
)
SETTING = re.compile(r"\w+:(?: (.*))?")
# Text of HTML elements with none of these is no Markdown.
MARKDOWN_SIGN = re.compile(r"[`*_\[\]{}#!|~<>&\\:$=+-]|^\s*\d+[.)]|%%", re.MULTILINE)


@dataclass(frozen=True)
class ParsedMarkdown:
    """`title` is the front matter's, else the main heading; empty where there is neither."""

    title: str
    pieces: tuple[Piece, ...]


def parse_markdown(text: str) -> ParsedMarkdown:
    """Read a Markdown file. Lines are counted from 1, front matter included.

    Raises:
        Exception: what the parsers below raise on odd text: html.parser asserts on "<![foo[ bar]]>" (Python 3.11).
    """
    whole = text.replace("\r\n", "\n").replace("\r", "\n")
    title, text = split_front_matter(whole)
    source = rewrite(LESSON_CODE.sub(_fenced, text), whole)
    reader = _Reader(PARSERS.mdx if source.mdx else PARSERS.markdown, source.numbers, {})
    reader.read_all(reader.parser.parse(source.text, reader.env), 0)
    return ParsedMarkdown(title or main_heading(reader.pieces), tuple(reader.pieces))


class _Reader:
    """Walks over a parser's tokens and gathers pieces.

    Args:
        parser: what the tokens came from.
        numbers: the line in the file of each line of the text.
        env: the parser's, which knows the links that the document defines.
    """

    def __init__(self, parser: MarkdownIt, numbers: list[int], env: dict):
        self.parser = parser
        self.numbers = numbers
        self.env = env
        self.pieces: list[Piece] = []
        self.html = HtmlReader(self.pieces, self._number, self._read_in_html)
        self.items = 0
        self.heading: Token | None = None
        self.row: list[Piece] | None = None
        self.after_directive = False
        self.first = 0

    def read_all(self, tokens: list[Token], first: int) -> None:
        """Read all blocks of a text whose first line has index `first`."""
        self.first = first
        for token in tokens:
            self.read(token)

    def read(self, token: Token) -> None:
        """Read one block's token."""
        line = self.first + token.map[0] if token.map else 0
        match token.type:
            case "list_item_open" | "list_item_close":
                self.items += token.nesting
            case "heading_open":
                self.heading = token
            case "heading_close":
                self.heading = None
            case "tr_open":
                self.row = []
            case "tr_close":
                self._end_row()
            case "fence" | "code_block":
                if token.content.strip():
                    number = self._number(line + (token.type == "fence"))
                    self.pieces.append(TextBlock(token.content.rstrip("\n"), number, "code"))
            case "html_block":
                self.html.read(token.content, line)
            case "inline":
                self._read_inline(token, line)

    def _number(self, index: int) -> int:
        return self.numbers[min(index, len(self.numbers) - 1)]

    def _read_in_html(self, text: str, line: int, kind: TextKind, level: int, holds_blocks: bool) -> list[Piece]:
        """Read the text of an HTML element as Markdown, as MDX and `markdown="1"` do."""
        skipped = text[: len(text) - len(text.lstrip())].count("\n")
        if not MARKDOWN_SIGN.search(text):
            return [TextBlock(" ".join(text.split()), self._number(line + skipped), kind, level)]
        inner = _Reader(PARSERS.in_html, self.numbers, self.env)
        if holds_blocks:
            # Text of the tag's own line has no indentation that could count.
            inner.read_all(inner.parser.parse(dedent(text), self.env), line)
            return inner.pieces
        (token,) = inner.parser.parseInline(text.strip(), self.env)
        runs = runs_of(token, line + skipped, inner.html)
        return _heading(runs, level) if kind == "heading" else arranged(runs, kind, level)

    def _read_inline(self, token: Token, line: int) -> None:
        runs = runs_of(token, line, self.html)
        if self.row is not None:
            self.row += arranged(runs, "table", 0)
        elif self.heading is not None:
            self._read_heading(self.heading, runs, token.content)
        else:
            self.pieces += arranged(runs, "item" if self.items else "paragraph", 0)
        self.after_directive = is_directive(token.content)

    def _read_heading(self, heading: Token, runs: list[Run], source: str) -> None:
        if heading.markup == "-" and (self.after_directive or is_directive(source)):
            # "--- collapse ---" above "---" is no heading, nor are the settings between it and the next "---".
            settings = dict(line.split(":", 1) for line in source.splitlines() if SETTING.fullmatch(line))
            if title := settings.get("title", "").strip().strip("\"'"):
                self.pieces.append(TextBlock(title, runs[0].line))
            if settings or is_directive(source):
                return
        self.pieces += _heading(runs, int(heading.tag[1]))

    def _end_row(self) -> None:
        row, self.row = self.row or [], None
        texts = [piece for piece in row if isinstance(piece, TextBlock)]
        if texts:
            self.pieces.append(TextBlock(" | ".join(text.text for text in texts), texts[0].line, "table"))
        self.pieces += [piece for piece in row if isinstance(piece, Reference)]


def _heading(runs: list[Run], level: int) -> list[Piece]:
    """Return a heading as one text block, with its pictures after it."""
    whole = clean("".join(run.text for run in runs if isinstance(run, Words)))
    texts: list[Piece] = [TextBlock(whole, runs[0].line, "heading", level)] if whole else []
    return texts + [run for run in runs if isinstance(run, Reference)]


def _fenced(found: re.Match[str]) -> str:
    """A lesson's code section as a fenced block with the same number of lines."""
    settings, code, fence = found["settings"] or "", found["code"], f"{found['indent']}``````"
    return "\n" * settings.count("\n") + f"{fence}\n{code}{fence}"
