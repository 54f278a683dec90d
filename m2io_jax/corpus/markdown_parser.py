"""markdown-it-py set up to read what wikis and site generators add inside a line, and to note where images stand."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.rules_inline import StateInline

from m2io_jax.corpus.dialects.html import image_tag
from m2io_jax.corpus.dialects.shortcodes import image_of, parse_shortcode, shortcode_at
from m2io_jax.corpus.dialects.wiki import embed_at

# {:width="9" .wide #me} of kramdown, {alt='words'} of pandoc. A name is tried where it begins alone: a search that
# tries it from each of its letters takes the square of a long word's length.
ATTRIBUTE = r"""(?:[#.][\w-]+|(?<![\w:-])([\w:-]+)=("[^"]*"|'[^']*'|[^\s"'{}]+))"""
ATTRIBUTES = re.compile(rf"\{{:?\s*{ATTRIBUTE}(?:\s+{ATTRIBUTE})*\s*\}}")
# {data-zoomable} of markdown-it-attrs has no value.
AFTER_IMAGE = re.compile(rf"{ATTRIBUTES.pattern}|\{{[ ]?[a-z][\w -]{{0,200}}\}}")
# {numref}`fig-lid`, {doc}`words <target>`: the first kind says nothing without words of its own.
ROLE = re.compile(r"\{([a-zA-Z][\w:.+-]{0,50})\}(`+)([^`]{1,1000})\2(?!`)")
TARGETS = re.compile(
    r"(?:numref|ref|eq|doc|cite.*|any|download|footcite.*|external.*|func|class|meth|mod|py:.*|std:.*)"
)
WORDS_AND_TARGET = re.compile(r"(.*\S)\s*<[^<>]*>\s*$", re.DOTALL)
INCLUDE_GRAPHICS = re.compile(r"\\includegraphics\*?[ ]?(?:\[[^\[\]\n]{0,500}\])?\{([^{}\n]{1,500})\}")
# \image html a.png "words" of Doxygen, [img]a.png[/img] of forums.
DOXYGEN_IMAGE = re.compile(
    r"""[\\@]image(?:\{[^{}\n]{0,100}\})?[ \t]+html[ \t]+("[^"\n]+"|[^\s"]+)(?:[ \t]+"([^"\n]*)")?"""
)
FORUM_IMAGE = re.compile(r"\[img(?:[= ][^\[\]\n]{0,200})?\]([^\[\]\s]{1,500})\[/img\]", re.IGNORECASE)
MICROSOFT_IMAGE = re.compile(r":::[ \t]*image[ \t]([^\n]{1,2000}?):::")
# The size of an image after its address: =300x200 of Azure, =50%x of HackMD.
SIZE = re.compile(r"[ \t]+=(?:\d+%?|\*)?x?(?:\d+%?|\*)?(?=[ \t]|$)")
TITLE = re.compile(r"""[ \t]+(?:"[^"]*"|'[^']*')[ \t]*$""")
# A paragraph with more brackets than this is read with only those that pair up.
MAX_OPEN_BRACKETS = 1000


@dataclass(frozen=True)
class Parsers:
    """One parser for each way in which a text is read.

    Attributes:
        markdown: CommonMark and tables.
        mdx: the same without code by indentation.
        in_html: for the text of HTML elements, whose tags are taken out already.
    """

    markdown: MarkdownIt
    mdx: MarkdownIt
    in_html: MarkdownIt


def attributes_of(source: str) -> dict[str, str]:
    """Return the `name=value` pairs of an attribute list, quotes taken off."""
    return {found[1]: found[2].strip("\"'") for found in re.finditer(ATTRIBUTE, source) if found[1]}


def _located(rule: Callable[[StateInline, bool], bool], attribute_list: re.Pattern[str]) -> Callable:
    """Return an inline rule that also notes where in the block's source its token starts and ends.

    What `attribute_list` matches after the token belongs to it.
    """

    def located(state: StateInline, silent: bool) -> bool:
        start = state.pos
        if not rule(state, silent):
            return False
        attributes = attribute_list.match(state.src, state.pos)
        if attributes:
            state.pos = attributes.end()
        if not silent:
            given = attributes_of(attributes[0]) if attributes else {}
            state.tokens[-1].meta |= {"start": start, "end": state.pos, "attributes": given}
        return True

    return located


def _push(state: StateInline, silent: bool, end: int, tag: str, words: str = "") -> bool:
    """Move on to `end`, and add an `<img>` tag, words or nothing to the tokens."""
    if not silent:
        token = state.push("html_inline" if tag else "text" if words else "shortcode", "", 0)
        token.content = tag or words
        token.meta |= {"start": state.pos, "end": end, "attributes": {}}
    state.pos = end
    return True


def _shortcode(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] != "{":
        return False
    found = shortcode_at(state.src, state.pos)
    return bool(found) and _push(state, silent, found[1], image_of(found[0]))


def _embed(state: StateInline, silent: bool) -> bool:
    found = embed_at(state.src, state.pos)
    # [[1]](address) is a link whose words stand in brackets.
    if not found or state.src[found[2] : found[2] + 1] in ("(", "["):
        return False
    return _push(state, silent, found[2], found[0], found[1])


def _role(state: StateInline, silent: bool) -> bool:
    found = ROLE.match(state.src, state.pos)
    if not found:
        return False
    named = WORDS_AND_TARGET.match(found[3])
    words = named[1] if named else "" if TARGETS.fullmatch(found[1]) else found[3]
    return _push(state, silent, found.end(), "", " ".join(words.split()))


def _latex_image(state: StateInline, silent: bool) -> bool:
    found = INCLUDE_GRAPHICS.match(state.src, state.pos)
    return bool(found) and _push(state, silent, found.end(), image_tag(found[1]))


def _forum_image(state: StateInline, silent: bool) -> bool:
    found = FORUM_IMAGE.match(state.src, state.pos)
    return bool(found) and _push(state, silent, found.end(), image_tag(found[1]))


def _doxygen_image(state: StateInline, silent: bool) -> bool:
    found = DOXYGEN_IMAGE.match(state.src, state.pos)
    return bool(found) and _push(state, silent, found.end(), image_tag(found[1].strip('"'), alt=found[2] or ""))


def _microsoft_image(state: StateInline, silent: bool) -> bool:
    found = MICROSOFT_IMAGE.match(state.src, state.pos)
    return bool(found) and _push(state, silent, found.end(), image_of(parse_shortcode(f"image {found[1]}")))


def _lenient_image(state: StateInline, silent: bool) -> bool:
    """Read an image whose address CommonMark does not take: one with spaces, or with a size after it."""
    if state.src[state.pos : state.pos + 2] != "![":
        return False
    label_end = state.md.helpers.parseLinkLabel(state, state.pos + 1, False)
    if label_end < 0 or state.src[label_end + 1 : label_end + 2] != "(":
        return False
    end = _parenthesis_end(state, label_end + 2)
    if not end:
        return False
    content = state.src[label_end + 2 : end]
    # The size may stand before the title or after it.
    content = SIZE.sub("", content)
    title = TITLE.search(content)
    address = unescapeAll((content[: title.start()] if title else content).strip().strip("<>"))
    if not address:
        return False
    caption = state.src[state.pos + 2 : label_end] or (title[0].strip()[1:-1] if title else "")
    return _push(state, silent, end + 1, image_tag(address, alt=caption))


def _parenthesis_end(state: StateInline, start: int) -> int:
    """Return where the parenthesis that opens before `start` closes on its line; 0 where it does not."""
    return _once(state, "parenthesis_ends", _parenthesis_ends).get(start - 1, 0)


def _parenthesis_ends(text: str) -> dict[int, int]:
    """Return the closing parenthesis of each open one on the same line."""
    ends: dict[int, int] = {}
    open_ones: list[int] = []
    for found in re.finditer(r"[()\n]", text):
        if found[0] == "(":
            open_ones.append(found.start())
        elif found[0] == "\n":
            open_ones.clear()
        elif open_ones:
            ends[open_ones.pop()] = found.start()
    return ends


def _guarded(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    """Return a rule for brackets that is not tried at those of a long row of open ones.

    The search for the end of each takes the square of their number.
    """

    def guarded(state: StateInline, silent: bool) -> bool:
        at = state.pos + (state.src[state.pos] == "!")
        if state.src[at : at + 1] == "[" and at in _once(state, "unpaired", _unpaired_brackets):
            return False
        return rule(state, silent)

    return guarded


def _once(state: StateInline, name: str, compute: Callable[[str], Any]) -> Any:
    """Compute something of a block's whole source when it is first asked for."""
    known: dict = state.cache
    if name not in known:
        known[name] = compute(state.src)
    return known[name]


def _unpaired_brackets(text: str) -> frozenset[int]:
    """Return the open brackets of a hostile paragraph that have no closing one, or hold too much."""
    if text.count("[") <= MAX_OPEN_BRACKETS:
        return frozenset()
    unpaired: list[int] = []
    open_ones: list[int] = []
    for found in re.finditer(r"\\.|[\[\]]", text, re.DOTALL):
        if found[0] == "[":
            open_ones.append(found.start())
        elif found[0] == "]" and open_ones:
            start = open_ones.pop()
            if len(open_ones) > MAX_OPEN_BRACKETS or found.start() - start > 100 * MAX_OPEN_BRACKETS:
                unpaired.append(start)
    return frozenset(unpaired + open_ones)


def _parser(disabled: tuple[str, ...] = ()) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": 100}).enable("table").disable(list(disabled))
    # Nothing is rendered here, so no address is dangerous; each must be counted just as it was written.
    parser.validateLink = lambda url: True
    parser.normalizeLink = lambda url: url
    ruler = parser.inline.ruler
    rules = {rule.name: rule.fn for rule in ruler.__rules__}
    ruler.at("image", _guarded(_located(rules["image"], AFTER_IMAGE)))
    ruler.at("html_inline", _located(rules["html_inline"], ATTRIBUTES))
    ruler.at("link", _guarded(rules["link"]))
    ruler.before("escape", "latex_image", _latex_image)
    ruler.before("escape", "doxygen_image", _doxygen_image)
    ruler.before("link", "forum_image", _forum_image)
    ruler.before("link", "shortcode", _shortcode)
    ruler.before("link", "role", _role)
    ruler.before("link", "microsoft_image", _microsoft_image)
    ruler.before("link", "embed", _embed)
    ruler.after("image", "lenient_image", _guarded(_lenient_image))
    return parser


PARSERS = Parsers(_parser(), _parser(("code",)), _parser(("code", "html_block", "html_inline")))
