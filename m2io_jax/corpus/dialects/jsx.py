"""MDX: imports and exports left out, JSX tags rewritten as HTML with the values that their expressions have.

Tags with bound attributes (`:src` of Vue) are read the same way in plain Markdown.
"""

import re
from collections.abc import Iterable, Iterator

from m2io_jax.corpus.dialects.html import attributes, is_image_address
from m2io_jax.corpus.dialects.source import Edit, Source, Span

IMPORT = re.compile(
    r"""import\s+(?:(\w+)|\{[^{}]{0,2000}\}|\*\s+as\s+\w+)(?:\s*,\s*\{[^{}]{0,2000}\})?\s+"""
    r"""from\s+["']([^"'\n]{1,1000})["'][ \t]*;?|import\s+["'][^"'\n]{1,1000}["'][ \t]*;?"""
)
EXPORT = re.compile(r"export\s+(?:const|let|var|function|default|async|class|\{|\*)")
CONSTANT = re.compile(r"\b(?:const|let|var)\s+(\w+)\s*=\s*([^;\n]{1,1000})")
COMPONENT = re.compile(
    r"^[ \t]*(?:</[A-Z][a-z]\w*(?:\.\w+)?>[ \t]*$|import[ \t].*[ \t]from[ \t]+['\"]|\{/\*)"
    r"|^export[ \t]+(?:const|default|function|async)[ \t][^\n]*[=({]",
    re.M,
)
TAG = re.compile(r"<([A-Za-z][\w.:-]*)(?=[\s/>])")
ATTRIBUTE_NAME = re.compile(r"[^\s\"'<>/={}`]+")
STRING = re.compile(r""""([^"\n]*)"|'([^'\n]*)'|`([^`$]*)`""")
IDENTIFIER = re.compile(r"\b[A-Za-z_]\w*")
LIGHT = re.compile(r"""\blight["']?\s*:\s*""")
EXPRESSION = re.compile(r"(?:(?<=\s)|(?<=>)|^)\{(?![{%#.:<])", re.M)
# Fragments, <>…</>, and the ends of tags with a dot, whose beginnings are rewritten.
UNNAMED = re.compile(r"<>|</>|</\w+(?:\.\w+)+\s*>")
LAST_LINE = re.compile(r"\s*\n[ \t]*(/?>)\Z")
ATTRIBUTE = re.compile(r'[\w:.-]+="[^"]*"')
BINDING = re.compile(r"^(?::|v-bind:|\[)|\]$")
COMMENT = (re.compile(r"\{/\*"), re.compile(r"\*/\}"))
BRACKET = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|[()\[\]{}\n]")
IMAGE_COMPONENT = re.compile(r"(?:\w*\.)?\w*(?:Image|Img|Picture|Figure|Screenshot|Photo)|img|amp-img")
SOURCE_NAMES = ("src", "sources", "source", "image", "img", "imageSrc", "imgSrc", "url", "href", "poster", "srcSet")
MAX_SPAN = 20_000
MAX_FAILURES = 100
UNSUPPORTED = "an address that code computes is not read"

Names = dict[str, str]


def is_mdx(text: str) -> bool:
    """Return whether a text looks like MDX: it imports, or a component that ends alone on a line holds other blocks."""
    return bool(COMPONENT.search(text)) and any(Source(text).outside_code(COMPONENT))


def rewrite_jsx(source: Source) -> Source:
    """Rewrite imports, exports, comments, tags and expressions as HTML."""
    names: Names = {}
    if source.mdx:
        source = source.without(source.pairs(*COMMENT))
        source = source.edit(_modules(source, names))
    source = source.edit(_tags(source, names))
    if not source.mdx:
        return source
    source = source.edit((found.start(), found.end(), "") for found in source.outside_code(UNNAMED))
    return source.edit(_expressions(source))


def evaluate(expression: str, names: Names) -> str | None:
    """Return the address that an expression most likely has; None where that cannot be told."""
    expression = expression.strip()
    if light := LIGHT.search(expression):
        expression = expression[light.end() :].split(",", 1)[0]
    strings = [next((part for part in found.groups() if part is not None), "") for found in STRING.finditer(expression)]
    if images := [text for text in strings if is_image_address(text)]:
        return images[0]
    bare = STRING.sub("", expression)
    if known := [names[word] for word in IDENTIFIER.findall(bare) if word in names]:
        return known[0]
    # A call or a literal with one string: useBaseUrl('/img/a').
    computed = "${" in expression or "+" in bare
    return strings[0] if len(strings) == 1 and not computed else None


def _modules(source: Source, names: Names) -> Iterator[Edit]:
    """Leave out imports and exports at the start of a line; images in them stay where they stand."""
    at = 0
    while at < len(source.text):
        end = source.text.find("\n", at)
        end = len(source.text) if end < 0 else end
        found = IMPORT.match(source.text, at)
        if found and not source.is_code(at):
            if found[1]:
                names[found[1]] = found[2]
            end = max(end, found.end())
            yield at, end, "\n" * source.text.count("\n", at, end)
        elif EXPORT.match(source.text, at) and not source.is_code(at):
            end = _statement_end(source.text, at)
            statement = source.text[at:end]
            names |= {word: value for word, given in CONSTANT.findall(statement) if (value := evaluate(given, names))}
            yield at, end, _images_alone(statement)
        at = end + 1


def _statement_end(text: str, start: int) -> int:
    """Return the end of the line on which all brackets of a statement are closed; else of those before an empty one."""
    depth = 0
    for found in BRACKET.finditer(text, start, start + MAX_SPAN):
        depth += (found[0] in "([{") - (found[0] in ")]}")
        if found[0] == "\n" and depth <= 0:
            return found.start()
    end = text.find("\n\n", start)
    return end if 0 <= end < start + MAX_SPAN else min(len(text), start + MAX_SPAN)


def _images_in(statement: str) -> Iterator[Span]:
    """Find the tags of images in a statement or an expression."""
    for tag, _, end in _scanned(statement, TAG.finditer(statement)):
        if IMAGE_COMPONENT.fullmatch(tag[1]):
            yield tag.start(), end


def _images_alone(statement: str) -> str:
    """Return only the tags of images in a statement, each on its line."""
    parts: list[str] = []
    at = 0
    for start, end in _images_in(statement):
        parts += ["\n" * statement.count("\n", at, start), statement[start:end]]
        at = end
    return "".join([*parts, "\n" * statement.count("\n", at)])


def _scanned(text: str, tags: Iterable[re.Match[str]]) -> Iterator[tuple[re.Match[str], list[tuple[str, str]], int]]:
    """Read tags as (name, attributes, end), leaving out those that do not end or stand in another."""
    # A tag that does not end may be read far, and again from the next "<" on.
    budget = 20 * len(text) + MAX_SPAN
    at = 0
    for found in tags:
        if found.start() < at or budget < 0:
            continue
        given, end = scan_tag(text, found.end())
        budget -= end - found.start()
        if given is not None:
            at = end
            yield found, given, end


def _expressions(source: Source) -> Iterator[Edit]:
    """Leave out expressions; a string is read, and so are the images of one that holds tags."""
    at = 0
    failures = 0
    for found in source.outside_code(EXPRESSION):
        start = found.start()
        # Others may follow at once: {name}{' '}.
        while start >= at and failures <= MAX_FAILURES and source.text[start : start + 1] == "{":
            end = matching_brace(source.text, start)
            if not end:
                failures += 1
                break
            yield start, end, _shown(source.text[start + 1 : end - 1]) + "\n" * source.text.count("\n", start, end)
            start = at = end


def _shown(expression: str) -> str:
    """Return what an expression puts into the text, as far as that can be told."""
    if string := STRING.fullmatch(expression.strip()):
        return next((part for part in string.groups() if part is not None), "")
    return " ".join(" ".join(expression[start:end].split()) for start, end in _images_in(expression))


def matching_brace(text: str, start: int) -> int:
    """Return the end of the braces that open at `start`; 0 where they do not close within bounds."""
    depth = 0
    quote = ""
    for at in range(start, min(len(text), start + MAX_SPAN)):
        letter = text[at]
        if quote:
            quote = "" if letter == quote or letter == "\n" and quote != "`" else quote
        elif letter in "\"'`":
            quote = letter
        elif letter == "{":
            depth += 1
        elif letter == "}":
            depth -= 1
            if depth == 0:
                return at + 1
    return 0


def scan_tag(text: str, start: int) -> tuple[list[tuple[str, str]] | None, int]:
    """Read a tag from the end of its name on.

    Returns:
        Its attributes as (name, value as written), an expression without a name as ("{", ""); None where the tag does
        not end. And how far the text was read.
    """
    given: list[tuple[str, str]] = []
    at = start
    while at < len(text) and at - start < MAX_SPAN:
        letter = text[at]
        if letter == ">":
            return given, at + 1
        if letter.isspace() or letter == "/":
            at += 1
        elif letter == "{":
            given.append(("{", ""))
            at = matching_brace(text, at)
            if not at:
                return None, min(len(text), start + MAX_SPAN)
        elif name := ATTRIBUTE_NAME.match(text, at, at + 200):
            value = _attribute_value(text, name.end())
            if value is None:
                return None, min(len(text), start + MAX_SPAN)
            given.append((name[0], value[0]))
            at = value[1]
        else:
            break
    return None, at


def _attribute_value(text: str, start: int) -> tuple[str, int] | None:
    """Read `="…"`, `={…}` or `=word`; an attribute without a value has an empty one."""
    at = start
    while at < min(len(text), start + 50) and text[at].isspace():
        at += 1
    if text[at : at + 1] != "=":
        return "", start
    at += 1
    while at < min(len(text), start + 100) and text[at].isspace():
        at += 1
    match text[at : at + 1]:
        case '"' | "'" as quote:
            end = text.find(quote, at + 1, at + MAX_SPAN) + 1
        case "{":
            end = matching_brace(text, at)
        case _:
            word = re.compile(r"[^\s\"'<>`{}]+").match(text, at)
            end = word.end() if word else 0
    return (text[at:end], end) if end else None


def _tags(source: Source, names: Names) -> Iterator[Edit]:
    """Rewrite the tags that HTML's parser would not take, or that show an imported image."""
    for found, given, end in _scanned(source.text, source.outside_code(TAG)):
        tag = source.text[found.start() : end]
        if new := _rewritten(found[1], given, tag, names):
            yield found.start(), end, new


def _rewritten(name: str, given: list[tuple[str, str]], tag: str, names: Names) -> str:
    """Return a tag as HTML; empty where it may stay as it stands."""
    imported = names.get(name.split(".")[0], "")
    if is_image_address(imported):
        return f"<img {attributes({'src': imported})}>"
    bound = any(value.startswith("{") or key.startswith("v-bind:") or not key[0].isalpha() for key, value in given)
    if not bound and "." not in name:
        # A ">" alone on its line would begin a quote.
        return LAST_LINE.sub(r"\1", tag) if given else ""
    values: dict[str, str] = {}
    for written, value in given:
        key, read = _value(written, value, names)
        if read is not None:
            values.setdefault("src" if key == "sources" else key, read)
        elif key in SOURCE_NAMES and IMAGE_COMPONENT.fullmatch(name):
            values |= {"src": value.strip("{}\"'"), "data-unsupported": UNSUPPORTED}
    parts = ATTRIBUTE.findall(attributes(values))
    # As many lines as before, so that later lines keep their numbers.
    breaks = min(tag.count("\n"), len(parts))
    spaced = "".join("\n" * (index < breaks) + " " * (index >= breaks) + part for index, part in enumerate(parts))
    return f"<{name.replace('.', '-')}{spaced}{' /' if tag.endswith('/>') else ''}>"


def _value(key: str, value: str, names: Names) -> tuple[str, str | None]:
    """Return an attribute's plain name and its value; None where an expression's value is not known."""
    plain = BINDING.sub("", key)
    if not re.fullmatch(r"[A-Za-z_][\w:.-]*", plain):
        return "", None
    if value.startswith("{"):
        return plain, evaluate(value[1:-1], names)
    unquoted = value[1:-1] if value[:1] in ("'", '"') else value
    if plain != key and plain in SOURCE_NAMES:
        return plain, evaluate(unquoted, names)
    return plain, unquoted
