"""Chunks of code that are run when a page is made (R Markdown, Quarto, Jupyter Book), and the images they show."""

import re
from bisect import bisect_right
from functools import partial

from m2io_jax.corpus.dialects.containers import Container, Numbered, Options
from m2io_jax.corpus.dialects.html import figure_lines, image_tag, is_image_address

CHUNK = re.compile(r"(`{3,}|~{3,})[ \t]*\{([a-zA-Z][\w.+-]*)([ ,][^`]*)?\}[ \t]*$")
SHOWS = re.compile(r"\binclude_graphics\(|(?<![\w.])(?:display\.)?Image\(")
# fig.cap = "…" of knitr's header, #| fig-cap: "…" of Quarto.
HEADER_OPTION = re.compile(r"""\b(fig\.cap|fig\.alt|echo|eval)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\w+)""")
LINE_OPTION = re.compile(r"""#\|\s*(fig[.-]cap|fig[.-]alt|echo|eval)\s*[:=]\s*(.*)$""")
STRING = re.compile(r""""([^"\n]*)"|'([^'\n]*)'""")
PATH_CALL = re.compile(r"(?:here|file\.path|path|join)\(\s*((?:(?:\"[^\"\n]*\"|'[^'\n]*')[\s,]*)+)\)")
PARENTHESIS = re.compile(r"[()]")
MAX_ARGUMENTS = 500
UNSUPPORTED = "an address that code computes is not read"


def open_chunk(line: str) -> Container | None:
    """Open "```{r name, fig.cap="…"}", a chunk of code with settings."""
    found = CHUNK.match(line)
    if not found or not (found[3] or "").strip(" ,"):
        return None
    return Container(fence=(found[1][0], len(found[1])), raw=partial(_chunk, found[3]))


def chunk_lines(header: str, body: list[Numbered], *, python: bool = False) -> list[Numbered]:
    """Return a chunk's code, if it is shown, and the images that it shows."""
    options = {found[1].replace("-", "."): _unquoted(found[2]) for found in HEADER_OPTION.finditer(header)}
    settings = [found for line, _ in body if (found := LINE_OPTION.match(line.strip()))]
    options |= {found[1].replace("-", "."): _unquoted(found[2]) for found in settings}
    code = [(line, number) for line, number in body if not line.lstrip().startswith("#|")]
    while len(code) > 1 and not code[0][0].strip():
        del code[0]
    runs = options.get("eval", "").lower() not in ("f", "false", "no")
    images, rest = _images(code) if runs else ([], code)
    shown = options.get("echo", "").lower() not in ("f", "false", "no") and any(line.strip() for line, _ in rest)
    lines: list[Numbered] = []
    if shown:
        fence = "`" * max(3, 1 + max((len(run) for line, _ in code for run in re.findall(r"`+", line)), default=0))
        lines = [(fence, code[0][1]), *code, (fence, code[-1][1])]
    for address, unsupported, number in images:
        tag = image_tag(address, alt=options.get("fig.alt", ""), unsupported=unsupported)
        lines += figure_lines(tag, options.get("fig.cap", ""), number)
    return lines


def images_of_call(arguments: str) -> list[tuple[str, str]]:
    """Return the addresses among a call's arguments, each with why it cannot be read (empty where it can)."""
    if joined := PATH_CALL.search(arguments):
        parts = [one or other for one, other in STRING.findall(joined[1])]
        return [("/".join(parts), "")]
    strings = [one or other for one, other in STRING.findall(arguments)]
    found = [text for text in strings if is_image_address(text)] if "paste" not in arguments else []
    return [(address, "") for address in found] or [(arguments.strip(), UNSUPPORTED)]


def _chunk(header: str, body: list[Numbered], options: Options) -> list[Numbered]:
    return chunk_lines(header, body)


def _images(code: list[Numbered]) -> tuple[list[tuple[str, str, int]], list[Numbered]]:
    """Return the images of each call as (address, why unsupported, line), and the code beside the calls."""
    text = "\n".join("" if line.lstrip().startswith("#") else line for line, _ in code)
    images: list[tuple[str, str, int]] = []
    kept = list(code)
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    for call in SHOWS.finditer(text):
        end = closing_parenthesis(text, call.end(), MAX_ARGUMENTS)
        first, last = bisect_right(starts, call.start()) - 1, bisect_right(starts, end) - 1
        images += [(*image, code[first][1]) for image in images_of_call(text[call.end() : end])]
        if re.fullmatch(r"[\s)]*(?:\w+(?:::|\.|\())?", text[starts[first] : call.start()][:MAX_ARGUMENTS]):
            kept[first : last + 1] = [("", number) for _, number in kept[first : last + 1]]
    return images, kept


def closing_parenthesis(text: str, start: int, limit: int) -> int:
    """Return where the parenthesis that is open at `start` closes, `limit` characters further on at the latest."""
    depth = 1
    for found in PARENTHESIS.finditer(text, start, start + limit):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return min(len(text), start + limit)


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1].replace("\\" + value[0], value[0])
    return value
