"""A Markdown file as text blocks and picture references in reading order, with their lines.

CommonMark and tables are markdown-it-py's work. Here: what site generators add to them (Liquid tags, Hugo shortcodes,
attribute lists, lesson directives), and the exact line of each inline picture, which the parser does not keep.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from m2io_jax.corpus.documents import TextBlock, TextKind
from m2io_jax.corpus.front_matter import split_front_matter
from m2io_jax.corpus.html_blocks import Piece, Reference, html_pieces
from m2io_jax.corpus.titles import main_heading

# {:width="9" .wide #me} of kramdown, {alt='words'} of pandoc. A name is tried where it begins alone: a search that
# tries it from each of its letters takes the square of a long word's length.
ATTRIBUTE = r"""(?:[#.][\w-]+|(?<![\w:-])([\w:-]+)=("[^"]*"|'[^']*'|[^\s"'{}]+))"""
ATTRIBUTES = re.compile(rf"\{{:?\s*{ATTRIBUTE}(?:\s+{ATTRIBUTE})*\s*\}}")
# {{< figure src="x" >}}, {{% note %}} of Hugo, {% include figure.html src="x" %} of Jekyll.
SHORTCODE = re.compile(r"\{\{[<%]([^{}]*?)[>%]\}\}|\{%-?([^{}]*?)-?%\}")
PICTURE_SHORTCODE = re.compile(r"(?:include(?:_\w+)?\s+\S*)?(?:figure|image|img|picture)\b\S*\s", re.IGNORECASE)
SHORTCODE_SOURCES = ("src", "image", "image_path", "url", "file", "path")
# ]({{ site.baseurl }}/x.png) and ]({{ "/x.png" | relative_url }}): a space would end the address.
LIQUID_ADDRESS = re.compile(
    r"""(\]\(\s*|src=["']?)\{\{\s*(?:(?:site|page)\.(?:base)?url|["']([^"'\n{}]*)["']\s*\|\s*\w+)\s*\}\}"""
)
# --- task ---, --- /task --- of lesson sites; ::::: challenge of pandoc.
DIRECTIVE = re.compile(r"-{3} /?[\w -]+ -{3}|:{3,}.*")
# The code sections of such lessons, with settings between two "---".
LESSON_CODE = re.compile(
    r"^(?P<indent>[ \t]*)--- code ---[ \t]*\n(?P<settings>\s*---[ \t]*\n(?:[ \t]*[\w-]+:.*\n)*[ \t]*---[ \t]*\n)?"
    r"(?P<code>(?:.*\n)*?)[ \t]*--- /code ---[ \t]*$",
    re.MULTILINE,
)
SETTING = re.compile(r"\w+:(?: (.*))?")
LEFTOVERS = re.compile(r"\{:[^{}]*\}|\{[#.][\w-][^{}]*\}|\[(?:TOC|\[_?TOC_?\])\]")
SENTENCE_END = re.compile(r"[.!?:;…。！？][)\]\"'”’»*_]*\s*$")


@dataclass(frozen=True)
class ParsedMarkdown:
    """`title` is the front matter's, else the main heading; empty where there is neither."""

    title: str
    pieces: tuple[Piece, ...]


def parse_markdown(text: str) -> ParsedMarkdown:
    """Reads a Markdown file. Lines are counted from 1, front matter included.

    Raises:
        Exception: what the parsers below raise on odd text: html.parser asserts on "<![foo[ bar]]>" (Python 3.11).
    """
    title, text = split_front_matter(text.replace("\r\n", "\n").replace("\r", "\n"))
    text = LIQUID_ADDRESS.sub(lambda found: found[1] + (found[2] or ""), text)
    reader = _Reader()
    for token in PARSER.parse(LESSON_CODE.sub(_fenced, text)):
        reader.read(token)
    return ParsedMarkdown(title or main_heading(reader.pieces), tuple(reader.pieces))


class _Reader:
    """Walks over the parser's tokens and gathers pieces."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.items = 0
        self.heading: Token | None = None
        self.row: list[Piece] | None = None
        self.after_directive = False

    def read(self, token: Token) -> None:
        line = token.map[0] + 1 if token.map else 0
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
                    self.pieces.append(TextBlock(token.content.rstrip("\n"), line + (token.type == "fence"), "code"))
            case "html_block":
                self.pieces += html_pieces(token.content, line)
            case "inline":
                self._read_inline(token, line)

    def _read_inline(self, token: Token, line: int) -> None:
        runs = _runs(token, line)
        if self.row is not None:
            self.row += _arranged(runs, "table", 0)
        elif self.heading is not None:
            self._read_heading(self.heading, runs, token.content)
        else:
            self.pieces += _arranged(runs, "item" if self.items else "paragraph", 0)
        self.after_directive = _is_directive(token.content)

    def _read_heading(self, heading: Token, runs: list["Run"], source: str) -> None:
        if heading.markup == "-" and (self.after_directive or _is_directive(source)):
            # "--- collapse ---" above "---" is no heading, nor are the settings between it and the next "---".
            settings = dict(line.split(":", 1) for line in source.splitlines() if SETTING.fullmatch(line))
            if title := settings.get("title", "").strip().strip("\"'"):
                self.pieces.append(TextBlock(title, runs[0].line))
            if settings or _is_directive(source):
                return
        level = int(heading.tag[1])
        texts = [run for run in runs if isinstance(run, Words)]
        whole = _clean("".join(run.text for run in texts))
        if whole:
            self.pieces.append(TextBlock(whole, runs[0].line, "heading", level))
        self.pieces += [run for run in runs if isinstance(run, Reference)]

    def _end_row(self) -> None:
        row, self.row = self.row or [], None
        texts = [piece for piece in row if isinstance(piece, TextBlock)]
        if texts:
            self.pieces.append(TextBlock(" | ".join(text.text for text in texts), texts[0].line, "table"))
        self.pieces += [piece for piece in row if isinstance(piece, Reference)]


@dataclass(frozen=True)
class Words:
    """A run of text between two pictures of one block; `line` is where it starts."""

    text: str
    line: int


Run = Words | Reference


def _runs(token: Token, line: int) -> list[Run]:
    """A block's inline content as runs of text and pictures."""
    runs: list[Run] = []
    text, start, here = "", line, line
    for child in token.children or ():
        found = _references(child, token.content, line)
        if found:
            runs += [Words(text, start), *found]
            text, here = "", line + token.content.count("\n", 0, child.meta["end"])
            start = here
            continue
        text += _reading_text(child)
        here += child.type in ("softbreak", "hardbreak")
        if not text.strip():
            start = here
    return [*runs, Words(text, start)]


def _references(child: Token, source: str, first_line: int) -> list[Reference]:
    """The pictures that an inline token stands for."""
    if child.type not in ("image", "html_inline", "shortcode"):
        return []
    line = first_line + source.count("\n", 0, child.meta["start"])
    if child.type == "html_inline":
        return [piece for piece in html_pieces(child.content, line) if isinstance(piece, Reference)]
    if child.type == "image":
        words = "".join(_reading_text(part) for part in child.children or ())
        caption = words.strip() or child.meta["attributes"].get("alt", "") or str(child.attrs.get("title", ""))
        return [Reference(str(child.attrs["src"]), line, _clean(caption))]
    attributes = child.meta["attributes"]
    address = next((attributes[name] for name in SHORTCODE_SOURCES if name in attributes), "")
    if not address or not PICTURE_SHORTCODE.match(child.content + " "):
        return []
    return [Reference(address, line, attributes.get("alt") or attributes.get("caption") or attributes.get("title", ""))]


def _reading_text(child: Token) -> str:
    match child.type:
        case "text" | "code_inline" | "text_special":
            return child.content
        case "softbreak" | "hardbreak":
            return "\n"
        case "html_inline":
            return "\n" if child.content.lower().startswith("<br") else ""
    return "".join(_reading_text(part) for part in child.children or ())


def _arranged(runs: list[Run], kind: TextKind, level: int) -> list[Piece]:
    """Text blocks and pictures; a picture in the middle of a sentence (a button, an icon) waits for its block's end."""
    pieces: list[Piece] = []
    waiting: list[Reference] = []
    text, line = "", runs[0].line
    for index, run in enumerate(runs):
        if isinstance(run, Words):
            text, line = text + run.text, line if text.strip() else run.line
            continue
        waiting.append(run)
        rest = next((later.text for later in runs[index + 1 :] if isinstance(later, Words) and later.text.strip()), "")
        if not _inside_sentence(text, rest):
            pieces += _text_block(text, line, kind, level) + waiting
            text, waiting = "", []
    return pieces + _text_block(text, line, kind, level) + waiting


def _inside_sentence(before: str, after: str) -> bool:
    if not before.strip() or not after.strip() or SENTENCE_END.search(before):
        return False
    return not before.rstrip(" ").endswith("\n") and not after.lstrip(" ").startswith("\n")


def _text_block(text: str, line: int, kind: TextKind, level: int) -> list[Piece]:
    cleaned = _clean(text)
    return [TextBlock(cleaned, line, kind, level)] if cleaned else []


def _clean(text: str) -> str:
    """Reading text on one line, without directives and attribute lists."""
    lines = (line.strip() for line in LEFTOVERS.sub("", text).splitlines())
    return " ".join(" ".join(line for line in lines if not DIRECTIVE.fullmatch(line)).split())


def _is_directive(source: str) -> bool:
    return bool(DIRECTIVE.fullmatch(source.strip().rsplit("\n", 1)[-1].strip()))


def _fenced(found: re.Match[str]) -> str:
    """A lesson's code section as a fenced block with the same number of lines."""
    settings, code, fence = found["settings"] or "", found["code"], f"{found['indent']}``````"
    return "\n" * settings.count("\n") + f"{fence}\n{code}{fence}"


def _attributes(source: str) -> dict[str, str]:
    """`name=value` pairs, quotes taken off."""
    return {found[1]: found[2].strip("\"'") for found in re.finditer(ATTRIBUTE, source) if found[1]}


def _located(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    """An inline rule that also notes where in the block's source its token starts and ends."""

    def located(state: StateInline, silent: bool) -> bool:
        start = state.pos
        if not rule(state, silent):
            return False
        attributes = ATTRIBUTES.match(state.src, state.pos)
        if attributes:
            state.pos = attributes.end()
        if not silent:
            given = _attributes(attributes[0]) if attributes else {}
            state.tokens[-1].meta |= {"start": start, "end": state.pos, "attributes": given}
        return True

    return located


def _shortcode(state: StateInline, silent: bool) -> bool:
    found = SHORTCODE.match(state.src, state.pos)
    if not found:
        return False
    if not silent:
        token = state.push("shortcode", "", 0)
        token.content = (found[1] or found[2] or "").strip()
        token.meta = {"start": found.start(), "end": found.end(), "attributes": _attributes(token.content)}
    state.pos = found.end()
    return True


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": 100}).enable("table")
    # Nothing is rendered here, so no address is dangerous; each must be counted just as it was written.
    parser.validateLink = lambda url: True
    parser.normalizeLink = lambda url: url
    rules = {rule.name: rule.fn for rule in parser.inline.ruler.__rules__}
    for name in ("image", "html_inline"):
        parser.inline.ruler.at(name, _located(rules[name]))
    parser.inline.ruler.before("link", "shortcode", _shortcode)
    return parser


PARSER = _parser()
