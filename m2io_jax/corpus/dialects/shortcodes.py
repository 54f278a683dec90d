"""Shortcodes of Hugo and Zola and tags of Jekyll, GitBook and Hexo: which of them show an image, and which."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from m2io_jax.corpus.dialects.containers import columns_of_lead
from m2io_jax.corpus.dialects.html import image_tag, is_image_address, is_media_address
from m2io_jax.corpus.dialects.lines import LIST_MARK
from m2io_jax.corpus.dialects.source import Edit, Source, Span

MAX_LENGTH = 4000
# {{< … >}} and {{% … %}} of Hugo, {% … %} of Jekyll, {{ name(…) }} of Zola. An argument may hold any sign in quotes.
QUOTED = r"""\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`"""
CALL = re.compile(r"\{\{[ \t]*([a-z_][\w:]*)\(([^{}]{0,2000})\)[ \t]*\}\}", re.IGNORECASE)
OPENINGS = {"{{<": ">}}", "{{%": "%}}", "{%": "%}"}
OPENING = re.compile(r"\{\{<|\{\{%|\{%")
START = re.compile(rf"{OPENING.pattern}|\{{\{{(?=[ \t]*[a-zA-Z_][\w:]*\()")
NAME = re.compile(r"(?:include(?:_\w+)?[ \t\n]+|partial[ \t\n]+|render[ \t\n]+)?[\"']?([^\s=\"'`(]+)[\"']?")
ARGUMENT = re.compile(rf"""([\w.:-]+?)\s*(?:=|:(?=[\s"'`]))\s*({QUOTED}|[^\s"'`,]+)|({QUOTED})|([^\s,"'`]+)""")
IMAGE_NAME = re.compile(
    r"(?:fig|figures?|img|imgs|images?|imgproc|pic|pics|pictures?|photos?|screenshots?"
    r"|thumb(?:nail)?s?|gallery|galleries|carousel|slideshow|lazyimage|cloudinary|respimg)"
)
NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
GALLERIES = re.compile(r"(?:.*[-_/])?(?:gallery|carousel|slideshow)s?")
VIDEO_NAME = re.compile(r"(?:.*[-_/])?(?:video|audio|mp4|mp3|asciinema)s?")
SOURCES = ("src", "image_path", "image", "img", "path", "url", "file", "filename", "source", "poster", "name", "link")
FOLDERS = ("dir", "folder", "match", "album", "id")
CAPTIONS = ("title", "caption", "description", "text", "cap", "figcaption")
# Tags that hold or steer content and never show an image by themselves.
PLAIN = frozenset(
    "if unless for case when else elsif endif endfor assign capture raw comment highlight link post_url tab tabs hint "
    "content-ref embed file code ref relref include_relative layout block extends set macro import from cycle "
    "tablerow".split()
)
# Shortcodes that hold the words of their image, up to {{< /name >}}.
CLOSING = re.compile(r"\{\{[<%][ \t]*/[ \t]*([\w./-]+)[ \t]*[%>]\}\}|\{%-?[ \t]*end([\w-]*)[ \t]*-?%\}")
# {% highlight %} of Jekyll and Hugo, {% codeblock %} of Hexo, each mark alone on its line.
CODE = (
    re.compile(
        r"^([ \t]*)(?:\{%-?|\{\{[<%])[ \t]*(?:highlight|codeblock|prism)\b[^{}\n]*(?:-?%\}|[%>]\}\})[ \t]*$", re.M
    ),
    re.compile(
        r"^[ \t]*(?:\{%-?[ \t]*end|\{\{[<%][ \t]*/[ \t]*)(?:highlight|codeblock|prism)[ \t]*(?:-?%\}|[%>]\}\})[ \t]*$",
        re.M,
    ),
)
END_OF_LINE = re.compile(r"[ \t]*(?:\n|\Z)")


@dataclass(frozen=True)
class Shortcode:
    """A shortcode's name, its named arguments, and the others in order."""

    name: str
    named: dict[str, str]
    plain: tuple[str, ...]


def shortcode_at(text: str, start: int) -> tuple[Shortcode, int] | None:
    """Read the shortcode that begins at `start`; return it with its end, or None."""
    if call := CALL.match(text, start):
        return parse_shortcode(f"{call[1]} {call[2]}"), call.end()
    opening = OPENING.match(text, start)
    if not opening:
        return None
    closing = OPENINGS[opening[0]]
    end = text.find(closing, opening.end(), opening.end() + MAX_LENGTH)
    # A second opening before the end: this one was never closed.
    if end < 0 or text.find(opening[0], opening.end(), end) >= 0:
        return None
    return parse_shortcode(text[opening.end() : end].strip("- \t\n")), end + len(closing)


def parse_shortcode(content: str) -> Shortcode:
    """Read what stands between a shortcode's marks."""
    found = NAME.match(content)
    if not found:
        return Shortcode("", {}, ())
    named: dict[str, str] = {}
    plain: list[str] = []
    arguments = content[found.end() :].strip()
    if arguments.startswith("("):
        arguments = arguments[1:].rstrip(")")
    for part in ARGUMENT.finditer(arguments.removesuffix("/")):
        if part[1]:
            named[part[1].lower()] = _unquoted(part[2])
        else:
            plain.append(_unquoted(part[3] or part[4]))
    return Shortcode(found[1], named, tuple(plain))


def image_of(shortcode: Shortcode) -> str:
    """Return the image that a shortcode shows as an `<img>` tag; empty where it shows none."""
    name = shortcode.name.rsplit("/", 1)[-1].rsplit(".htm", 1)[0].lower()
    if not name or shortcode.name.startswith("/") or name in PLAIN or name.startswith("end"):
        return ""
    is_image = shows_image(shortcode)
    named = shortcode.named
    addresses = [named[key] for key in SOURCES if named.get(key)]
    if not is_image:
        addresses = [address for address in addresses if is_image_address(address)]
    candidates = [*addresses, *(word for word in shortcode.plain if is_image_address(word))]
    words = {"alt": named.get("alt") or named.get("alt-text", "")}
    words["caption"] = joined_words(*(named.get(key, "") for key in CAPTIONS))
    if VIDEO_NAME.fullmatch(name) and not candidates:
        media = [value for value in (*named.values(), *shortcode.plain) if is_media_address(value)]
        return image_tag(media[0], unsupported="a video or a recording") if media else ""
    if candidates:
        return image_tag(candidates[0], **words)
    if not is_image:
        return ""
    if GALLERIES.fullmatch(name):
        folder = next((named[key] for key in FOLDERS if named.get(key)), " ".join(shortcode.plain))
        return image_tag(folder, unsupported="a gallery of a folder's images") if folder else ""
    return image_tag(shortcode.plain[0] if shortcode.plain else "", **words)


def shows_image(shortcode: Shortcode) -> bool:
    """Return whether a shortcode's name is that of an image: figure, image.html, imgproc, asset_img, myFigure."""
    name = shortcode.name.rsplit("/", 1)[-1].rsplit(".htm", 1)[0]
    return any(IMAGE_NAME.fullmatch(part.lower()) for part in NAME_PARTS.findall(name))


def joined_words(*parts: str) -> str:
    """Join an image's words, such as its alternative text and its caption, without repeating any."""
    words = ""
    for part in parts:
        part = " ".join(part.split())
        if not part or part.rstrip(".").casefold() == words.rstrip(".").casefold():
            continue
        words += ("" if not words else " " if words[-1] in ".!?:;。！？" else ". ") + part
    return words


def unfold_shortcodes(source: Source) -> Source:
    """Rewrite the shortcodes that hold their image or its caption, then those that go over several lines.

    A closing ">}}" at the start of a line would begin a quote.
    """
    source = source.edit(_fenced(source))
    with_captions = source.edit(_captioned(source))
    return with_captions.edit(_joined(with_captions))


def _shortcodes(source: Source) -> Iterator[tuple[Shortcode, int, int]]:
    """Find all shortcodes outside code as (shortcode, start, end)."""
    at = 0
    for opening in source.outside_code(START):
        if opening.start() >= at and (found := shortcode_at(source.text, opening.start())):
            at = found[1]
            yield found[0], opening.start(), at


def _fenced(source: Source) -> Iterator[Edit]:
    """Make fenced code of what stands between the tags for code."""
    for opening, closing in source.pairs(*CODE):
        indent = opening[1]
        yield opening.start(), opening.end(), f"{indent}``````"
        yield closing.start(), closing.end(), f"{indent}``````"


def _joined(source: Source) -> Iterator[Edit]:
    for shortcode, start, end in _shortcodes(source):
        text = source.text[start:end]
        before = source.text[source.text.rfind("\n", 0, start) + 1 : start]
        after = END_OF_LINE.match(source.text, end)
        if after and not before.strip() and not image_of(shortcode):
            # Text before and after it stands in paragraphs of its own.
            yield start, end, "\n" * text.count("\n")
        elif "\n" in text:
            yield start, end, " ".join(text.split("\n"))


def _captioned(source: Source) -> list[Edit]:
    """Return the edits that make figures of shortcodes with a closing one, such as Docsy's imgproc."""
    closings: dict[str, list[re.Match[str]]] = {}
    for closing in source.outside_code(CLOSING):
        closings.setdefault((closing[1] or closing[2]).lower(), []).append(closing)
    starts = {name: [closing.start() for closing in found] for name, found in closings.items()}
    edits: list[Edit] = []
    shortcodes = [found for found in _shortcodes(source) if shows_image(found[0])] if closings else []
    for index, (shortcode, start, end) in enumerate(shortcodes):
        # Zola ends all of them by {% end %}.
        name = shortcode.name.lower() if shortcode.name.lower() in closings else ""
        own = closings.get(name, [])
        at = bisect_left(starts.get(name, []), end)
        following = shortcodes[index + 1][1] if index + 1 < len(shortcodes) else len(source.text)
        before = source.text[source.text.rfind("\n", 0, start) + 1 : start]
        if at == len(own) or own[at].start() > following or (before.strip() and not LIST_MARK.fullmatch(before)):
            continue
        edits += _figure_edits(shortcode, (start, end), own[at].span(), "\n" + " " * columns_of_lead(before))
    return edits


def _figure_edits(shortcode: Shortcode, opening: Span, closing: Span, line: str) -> list[Edit]:
    """Return the edits for one shortcode; `line` is the break and indentation before each new line."""
    tag = image_of(shortcode)
    if 'src="' in tag:
        return [
            (*opening, f"<figure>{tag}<figcaption>{line}{line}"),
            (*closing, f"{line}{line}</figcaption></figure>{line}{line}"),
        ]
    caption = escape(joined_words(*(shortcode.named.get(key, "") for key in CAPTIONS)))
    return [
        (*opening, f"<figure>{line}{line}"),
        (*closing, f"{line}{line}<figcaption>{caption}</figcaption></figure>{line}{line}"),
    ]


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        return value[1:-1].replace("\\" + value[0], value[0])
    return value
