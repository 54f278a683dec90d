"""Blocks of MkDocs Material: admonitions, content tabs, details, `///` blocks; and notes whose body is indented."""

import re

from m2io_jax.corpus.dialects.containers import Container, Options

ADMONITION = re.compile(r'(?:!!!|\?\?\?\+?)[ \t]*([\w-]+(?: +[\w-]+)*)?[ \t]*(?:"([^"]*)")?[ \t]*(.*)$')
# "!!! Look at this before you go on" is a sentence: no admonition has so many classes.
MAX_CLASSES = 3
TAB_TITLE = re.compile(r"===[!+]{0,2}[ \t]+(?:\"[^\"]+\"|'[^']+')[ \t]*$")
BLOCK = re.compile(r"(/{3,})[ \t]*([a-zA-Z][\w-]*)[ \t]*(?:\|[ \t]*(.*))?$")
CAPTIONS = ("caption", "figure-caption")
# What stands after the "|" of these is a label or an element's name, not a sentence.
UNTITLED = ("tab", "html", "table-caption", "define", *CAPTIONS)
FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]:[ \t]*(.*)$")
DEFINITION = re.compile(r":[ \t]{1,3}(?=\S)(.*)$")


def open_admonition(line: str) -> Container | None:
    """Open `!!! note "Title"`, `??? tip` and `???+ tip`, whose bodies are indented."""
    found = ADMONITION.match(line)
    if not found or not (found[1] or found[2] is not None):
        return None
    if found[2] is None and (found[3] or len((found[1] or "").split()) > MAX_CLASSES):
        return None
    return Container(start=_paragraph(found[2] or ""), end=("",), body=found[3] or "")


def open_tab(line: str) -> Container | None:
    """Open a content tab, `=== "Label"`."""
    return Container(start=_paragraph(""), end=("",)) if TAB_TITLE.match(line) else None


def open_block(line: str) -> Container | None:
    """Open `/// note | Title` and `/// caption`, which end at `///`."""
    found = BLOCK.match(line)
    if not found:
        return None
    fence = ("/", len(found[1]))
    if found[2] in CAPTIONS:
        return Container(lambda _: ("", "<figcaption>", ""), ("", "</figcaption>", ""), fence, options="yaml")
    title = "" if found[2] in UNTITLED else found[3] or ""
    return Container(_paragraph(title), ("",), fence, options="yaml")


def open_footnote(line: str) -> Container | None:
    """Open a footnote's text, which would be taken for the definition of a link."""
    found = FOOTNOTE.match(line)
    return Container(start=_paragraph(""), indent=2, body=found[1]) if found else None


def open_definition(line: str) -> Container | None:
    """Open a definition, whose further paragraphs are indented."""
    found = DEFINITION.match(line)
    return Container(indent=2, body=line) if found else None


def _paragraph(text: str):
    def start(options: Options) -> tuple[str, ...]:
        return ("", text, "") if text else ("",)

    return start
