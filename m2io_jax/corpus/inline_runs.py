"""A block's inline content as runs of text and pictures, each with its line."""

import re
from bisect import bisect_left
from dataclasses import dataclass

from markdown_it.token import Token

from m2io_jax.corpus.dialects.chunks import images_of_call
from m2io_jax.corpus.dialects.shortcodes import joined_words
from m2io_jax.corpus.documents import TextBlock, TextKind
from m2io_jax.corpus.html_blocks import HtmlReader, Piece
from m2io_jax.corpus.html_images import Reference, markdown_reference
from m2io_jax.corpus.markdown_parser import ATTRIBUTES

# --- task ---, --- /task --- of lesson sites; ::::: challenge of pandoc.
DIRECTIVE = re.compile(r"-{3} /?[\w -]+ -{3}|:{3,}.*")
# Attribute lists after something or alone, tables of contents, footnotes' marks, Obsidian's names of blocks.
LEFTOVERS = re.compile(
    rf"(?<!\{{)(?:(?:^|(?<=\S)){ATTRIBUTES.pattern}|\{{:[^{{}}]*\}}|\{{[ ]?[#.][\w-][^{{}}]*\}})(?!\}})"
    r"|\[(?:TOC|\[_?TOC_?\])\]|\[\^[^\[\]\s]{1,100}\]|(?<=\s)\^[0-9a-f]{6}$",
    re.MULTILINE,
)
# [!NOTE] of GitHub, [!tip]- Title of Obsidian, before a quote's text.
CALLOUT = re.compile(r"\s*\[!\w[\w-]*(?:\|[^\[\]\n]*)?\][+-]?")
# Obsidian's width of an image, ![words|300](a.png).
WIDTH = re.compile(r"\|\d+(?:x\d+)?$")
SENTENCE_END = re.compile(r"[.!?:;…。！？][)\]\"'”’»*_]*\s*$")
MAX_BEFORE = 1000  # characters before an image that tell whether a sentence goes on
INLINE_CHUNK = re.compile(r"r\s+(?:knitr::)?include_graphics\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Words:
    """A run of text between two pictures of one block; `line` is where it starts."""

    text: str
    line: int


Run = Words | Reference


def runs_of(token: Token, first: int, html: HtmlReader) -> list[Run]:
    """Return a block's inline content as runs of text and pictures.

    Args:
        token: an inline token.
        first: index of its first line in the text.
        html: reads the tags among the text.
    """
    runs: list[Run] = []
    text, start, here = "", first, first
    breaks = [found.start() for found in re.finditer("\n", token.content)]
    html.start(first)
    for child in token.children or ():
        found = _references(child, first + bisect_left(breaks, child.meta.get("start", 0)), html, here)
        if found:
            runs += [Words(text, html.number(start)), *found]
            text = ""
            start = here = first + bisect_left(breaks, child.meta["end"]) if "end" in child.meta else here
            continue
        if not (html.silent or html.unread):
            text += reading_text(child)
        here += child.type in ("softbreak", "hardbreak")
        if not text.strip():
            start = here
    runs.append(Words(text, html.number(start)))
    if isinstance(runs[0], Words) and (callout := CALLOUT.match(runs[0].text)):
        runs[0] = Words(runs[0].text[callout.end() :], runs[0].line)
    return runs


def _references(child: Token, index: int, html: HtmlReader, here: int) -> list[Reference]:
    """Return the pictures that an inline token stands for."""
    match child.type:
        case "html_inline":
            return html.references_in(child.content, index)
        case "image":
            words = " ".join("".join(reading_text(part) for part in child.children or ()).split())
            caption = (
                WIDTH.sub("", words) or child.meta["attributes"].get("alt", "") or str(child.attrs.get("title", ""))
            )
            caption = joined_words(caption, child.meta["attributes"].get("fig-alt", ""))
            return [markdown_reference(str(child.attrs["src"]), html.number(index), clean(caption))]
        case "code_inline" if found := INLINE_CHUNK.fullmatch(child.content):
            images = images_of_call(found[1])
            return [Reference(address, html.number(here), "", unsupported) for address, unsupported in images]
    return []


def reading_text(child: Token) -> str:
    """Return the text that an inline token shows."""
    match child.type:
        case "text":
            return LEFTOVERS.sub("", child.content)
        case "code_inline" | "text_special":
            return child.content
        case "softbreak" | "hardbreak":
            return "\n"
        case "html_inline":
            return "\n" if child.content.lower().startswith("<br") else ""
    return "".join(reading_text(part) for part in child.children or ())


def arranged(runs: list[Run], kind: TextKind, level: int) -> list[Piece]:
    """Return text blocks and pictures; a picture in the middle of a sentence (a button, an icon) waits for its block's
    end."""
    pieces: list[Piece] = []
    waiting: list[Reference] = []
    words: list[str] = []
    before, line = "", runs[0].line  # the last words that are not blank, up to the image
    following = _texts_after(runs)
    for index, run in enumerate(runs):
        if isinstance(run, Words):
            words.append(run.text)
            line = line if before else run.line
            before = (run.text if run.text.strip() else before and before + run.text)[-MAX_BEFORE:]
            continue
        waiting.append(run)
        if not _inside_sentence(before, following[index]):
            pieces += text_block("".join(words), line, kind, level) + waiting
            before, words, waiting = "", [], []
    return pieces + text_block("".join(words), line, kind, level) + waiting


def _texts_after(runs: list[Run]) -> list[str]:
    """Return for each run the next text after it."""
    following: list[str] = []
    text = ""
    for run in reversed(runs):
        following.append(text)
        if isinstance(run, Words) and run.text.strip():
            text = run.text
    return following[::-1]


def _inside_sentence(before: str, after: str) -> bool:
    if not before.strip() or not after.strip() or SENTENCE_END.search(before[-50:]):
        return False
    return not before.rstrip(" ").endswith("\n") and not after.lstrip(" ").startswith("\n")


def text_block(text: str, line: int, kind: TextKind, level: int) -> list[Piece]:
    """Return a text block, or nothing where there is no text."""
    cleaned = clean(text)
    return [TextBlock(cleaned, line, kind, level)] if cleaned else []


def clean(text: str) -> str:
    """Return reading text on one line, without directives."""
    lines = (line.strip() for line in text.splitlines())
    return " ".join(" ".join(line for line in lines if not DIRECTIVE.fullmatch(line)).split())


def is_directive(source: str) -> bool:
    """Return whether the last line of a block is a directive."""
    return bool(DIRECTIVE.fullmatch(source.strip().rsplit("\n", 1)[-1].strip()))
