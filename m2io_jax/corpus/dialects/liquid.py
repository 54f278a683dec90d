"""Liquid, as Jekyll fills it in: comments left out, variables and filters in addresses worked out."""

import re
from collections.abc import Iterator

import yaml

from m2io_jax.corpus.dialects.html import is_image_address
from m2io_jax.corpus.dialects.source import Edit, Source

COMMENTS = [
    (r"\{%-?\s*comment\b[^%{}]{0,200}-?%\}", r"\{%-?\s*endcomment\s*-?%\}"),
    (r"\{::comment\}", r"\{:/(?:comment)?\}"),
    (r"\{\{[<%]\s*comment\s*[>%]\}\}", r"\{\{[<%]\s*/\s*comment\s*[>%]\}\}"),
    (r"\{\{[<%]?/\*", r"\*/[>%]?\}\}"),
    (r"\{#(?=\s)", r"(?<=\s)#\}"),
]
RAW = (re.compile(r"\{%-?\s*raw\s*-?%\}"), re.compile(r"\{%-?\s*endraw\s*-?%\}"))
BRACES = re.compile(r"\{(?=[{%])")
ASSIGN = re.compile(r"\{%-?\s*(?:assign|set)\s+([\w-]+)\s*=([^%{}]{0,1000})%\}")
CAPTURE = (re.compile(r"\{%-?\s*capture\s+([\w-]+)\s*-?%\}"), re.compile(r"\{%-?\s*endcapture\s*-?%\}"))
OUTPUT = re.compile(r"\{\{(?![<%])([^{}\n]{1,1000})\}\}")
LINK = re.compile(r"\{%-?[ \t]*(link|static|asset|asset_path|asset_url)[ \t]([^%{}\n]{1,1000})%\}")
# {{< ref "a.png" >}}, {{% static "a.png" %}}, {{< baseurl >}} of Hugo.
HUGO = re.compile(r"\{\{[<%][ \t]*[\w/.-]+[ \t]*([^{}\n]{0,1000})[>%]\}\}")
# What stands before an address: ](, ](<, src=", and what may come between it and the variable.
BEFORE_ADDRESS = re.compile(
    r"""(?:\](?:\(|:)\s*<?|(?:src|href|srcset|poster|data|url|path)=\s*["'{]?)[^\s()"'<>{}]*$"""
)
STRING = re.compile(r""""([^"\n]*)"|'([^'\n]*)'""")
NAME = re.compile(r"[A-Za-z_][\w.-]*")
# Where a site stands: nothing of it is part of a file's path.
BASE_NAMES = re.compile(r"(?:site|page|config)\.(?:[\w.]*url|root|base_path)|(?:root|base)_?url")
FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
MAX_VALUE = 2000
MAX_FILTERS = 20

Variables = dict[str, str]


def without_comments(source: Source) -> Source:
    """Leave out what stands between the comment marks of Liquid, kramdown, Hugo and Tera, outside code."""
    for opening, closing in COMMENTS:
        source = source.without(source.pairs(re.compile(opening), re.compile(closing)))
    return source


def fill_in(source: Source, variables: Variables) -> Source:
    """Put values in the place of variables, in addresses also of links and paths to a site's root.

    Args:
        source: the text.
        variables: values known beforehand, such as MyST's substitutions.
    """
    source = source.edit(_literal(source))
    if "{{" not in source.text and "{%" not in source.text:
        return source
    variables = variables | _captured(source)
    for found in source.outside_code(ASSIGN):
        value = evaluate(found[2].strip(" \t\n-"), variables)
        if value is not None:
            variables[found[1]] = value
    source = source.without(_kept_captures(source))
    source = source.edit(_filled_in(source, variables))
    return source.edit(_linked(source))


def substitutions(text: str) -> Variables:
    """Return the texts that MyST's front matter gives names to."""
    found = FRONT_MATTER.match(text)
    if not found or "substitutions" not in found[1]:
        return {}
    try:
        node = yaml.compose(found[1], yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return {}
    values = _mapping(_mapping(node).get("myst")) | _mapping(node)
    texts = _mapping(values.get("substitutions"))
    return {name: value.value[:MAX_VALUE] for name, value in texts.items() if isinstance(value, yaml.ScalarNode)}


def evaluate(expression: str, variables: Variables) -> str | None:
    """Return the value of a Liquid expression with filters; None where it is not known."""
    first, *filters = _parts(expression)
    value = _value(first, variables)
    for step in filters[:MAX_FILTERS]:
        name, _, argument = step.partition(":")
        given = _value(argument.split(",")[0], variables) if argument else ""
        match name.strip():
            case "prepend" | "append" if value is not None:
                added = given or ""
                value = added + value if name.strip() == "prepend" else value + added
            case "default" if not value:
                value = given
    return value[:MAX_VALUE] if value is not None else None


def _parts(expression: str) -> list[str]:
    """Split at each "|" outside quotes."""
    parts = [""]
    quote = ""
    for letter in expression:
        if letter == "|" and not quote:
            parts.append("")
            continue
        if letter in "\"'":
            quote = "" if quote == letter else quote or letter
        parts[-1] += letter
    return parts


def _value(text: str, variables: Variables) -> str | None:
    text = text.strip()
    if string := STRING.fullmatch(text):
        return string[1] or string[2] or ""
    if text in variables:
        return variables[text]
    return "" if BASE_NAMES.fullmatch(text) else None


def _mapping(node: yaml.Node | None) -> dict[str, yaml.Node]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {name.value: value for name, value in pairs if isinstance(name, yaml.ScalarNode)}


def _literal(source: Source) -> Iterator[Edit]:
    """Make what stands between `raw` and `endraw` plain text."""
    for start, end in source.pairs(*RAW):
        yield start.start(), start.end(), ""
        for brace in BRACES.finditer(source.text, start.end(), end.start()):
            if not source.is_code(brace.start()):
                yield brace.start(), brace.end(), "&#123;"
        yield end.start(), end.end(), ""


def _captured(source: Source) -> Variables:
    pairs = _kept_captures(source)
    return {start[1]: source.text[start.end() : end.start()].strip() for start, end in pairs}


def _kept_captures(source: Source) -> list[tuple[re.Match[str], re.Match[str]]]:
    """Return the captures that are short enough to stand in the place of their name; others are read where they are."""
    pairs = source.pairs(*CAPTURE)
    texts = [source.text[start.end() : end.start()].strip() for start, end in pairs]
    return [pair for pair, text in zip(pairs, texts, strict=True) if len(text) <= MAX_VALUE and "\n" not in text]


def _filled_in(source: Source, variables: Variables) -> list[Edit]:
    edits: list[Edit] = []
    # Many short names of one long value could make a text of any length.
    room = 2 * len(source.text) + MAX_VALUE
    for found in source.outside_code(OUTPUT):
        line = source.text.rfind("\n", 0, found.start()) + 1
        joins = edits and edits[-1][1] == found.start() and edits[-1][0] >= line
        in_address = bool(joins) or _in_address(source.text[max(line, found.start() - MAX_VALUE) : found.start()])
        expression = found[1].strip("- \t")
        value = evaluate(expression, variables)
        first = _parts(expression)[0].strip()
        known = first in variables or STRING.fullmatch(first) or "|" in expression
        room -= len(value or "")
        if value is not None and (in_address or known) and room > 0:
            edits.append((found.start(), found.end(), value))
        elif in_address and NAME.match(first):
            # A folder of the site's settings: the rest of the address is looked for in known folders.
            follows = source.text[found.end() : found.end() + 1]
            named = [text for strings in STRING.findall(expression) for text in strings if is_image_address(text)]
            known = named[-1] if named else "" if follows == "/" else "".join(found[0].split())
            edits.append((found.start(), found.end(), known))
    return edits


def _linked(source: Source) -> Iterator[Edit]:
    """Put paths in the place of the tags for links and files in addresses."""
    found_ones = [(found, found[2], "/" * (found[1] == "link")) for found in source.outside_code(LINK)]
    found_ones += [(found, found[1], "") for found in source.outside_code(HUGO)]
    for found, argument, prefix in sorted(found_ones, key=lambda one: one[0].start()):
        line = source.text.rfind("\n", 0, found.start()) + 1
        if _in_address(source.text[max(line, found.start() - MAX_VALUE) : found.start()]):
            yield found.start(), found.end(), prefix + argument.strip("- \t\"'`")


def _in_address(before: str) -> bool:
    return bool(BEFORE_ADDRESS.search(before[-300:]))
