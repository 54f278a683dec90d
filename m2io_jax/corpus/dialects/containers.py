"""Blocks that hold other blocks, in the ways of many site generators, rewritten as the blocks they hold.

Each line of the text is looked at once. A dialect's opener turns a line such as `!!! note "Title"` into a `Container`.
Its body is then dedented or left as it stands, and its end is found by indentation or by a closing line.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from m2io_jax.corpus.dialects.lines import LIST_MARK, TAB, CodeTracker, columns, dedent, without_quote_marks
from m2io_jax.corpus.dialects.source import Source

# Containers nested deeper than this are read as text, so that the time a line takes is bounded.
MAX_DEPTH = 50
MARKER = re.compile(r"(`{3,}|~{3,}|:{3,}|/{3,})[ \t]*$")
OPTION = re.compile(r"\s*:([\w.-]+):(?:\s+(.*))?$")
YAML_OPTION = re.compile(r"\s*([\w.-]+):(?:\s+(.*))?$")

# What the lines begin with that open a container.
FIRST_SIGNS = tuple("`~:!?=/.[(+%^")

Options = dict[str, str]
Numbered = tuple[str, int]
"""A line and its number in the file."""


@dataclass(frozen=True)
class Container:
    """What an opener makes of a line.

    Attributes:
        start: the lines to write in place of the opening line, given the options that follow it.
        end: the lines to write where the container ends.
        fence: character and length of the closing line; None where indentation tells the end.
        indent: columns of indentation a body must have more than its opening line, where `fence` is None.
        options: how options after the opening line are written: "" for none, "field" for `:name: value` or YAML
            between two `---`, "yaml" for indented `name: value`.
        raw: what to write for the body and the opening line's number, where the body is not Markdown.
        body: the body's first line, which stands on the opening line.
    """

    start: Callable[[Options], Sequence[str]] = lambda options: ()
    end: Sequence[str] = ()
    fence: tuple[str, int] | None = None
    indent: int = TAB
    options: str = ""
    raw: Callable[[list[Numbered], Options], list[Numbered]] | None = None
    body: str = ""


Opener = Callable[[str], Container | None]
"""Reads a line without its indentation; None where no container begins."""


@dataclass
class _Open:
    """An open container."""

    container: Container
    number: int
    quotes: int
    lead: str
    prefix: str
    tracker: CodeTracker
    width: int
    body_width: int = 0
    reads_options: bool = False
    in_yaml: bool = False
    options: Options = field(default_factory=dict)
    raw: list[Numbered] = field(default_factory=list)


def unfold(source: Source, openers: Sequence[Opener]) -> Source:
    """Rewrite all containers as the blocks that they hold."""
    work = _Unfolding(openers, source.mdx)
    for line, number in zip(source.text.split("\n"), source.numbers, strict=True):
        work.take(line, number)
    work.close_to(0)
    return Source("\n".join(line for line, _ in work.out), [number for _, number in work.out], mdx=source.mdx)


class _Unfolding:
    def __init__(self, openers: Sequence[Opener], mdx: bool):
        self.openers = openers
        self.mdx = mdx
        self.out: list[Numbered] = []
        self.stack: list[_Open] = []
        self.outer = CodeTracker(indented=not mdx)
        self.number = 1

    @property
    def tracker(self) -> CodeTracker:
        return self.stack[-1].tracker if self.stack else self.outer

    def take(self, line: str, number: int) -> None:
        """Read the next line of the text."""
        self.number = number
        prefix, rest = self._enter(line)
        if self.stack and self.stack[-1].reads_options:
            if self._take_option(self.stack[-1], rest):
                return
            self._start(self.stack[-1])
        closing = MARKER.match(rest.lstrip())
        if closing and self._close_by(closing[1]):
            return
        if self.stack and self.stack[-1].container.raw:
            self.stack[-1].raw.append((rest, number))
        elif self.tracker.is_open or not self._open(prefix, rest):
            code = self.tracker.take(rest)
            # A closing line that closes nothing is still no text.
            bare = closing and closing[1][0] == ":" and not code
            self.out.append((prefix if bare else prefix + rest, number))

    def close_to(self, depth: int) -> None:
        """Close the innermost containers until `depth` are left."""
        while len(self.stack) > depth:
            top = self.stack[-1]
            if top.reads_options:
                self._start(top)
            if top.tracker.fence:
                self._write(top, [top.tracker.fence[0] * top.tracker.fence[1]])
            if top.container.raw:
                lead = top.prefix + top.lead
                body = top.container.raw(top.raw or [("", top.number)], top.options)
                self.out += [(lead + dedent(line, columns(top.lead)), number) for line, number in body]
            self._write(top, top.container.end)
            self.stack.pop()
            self.tracker.after_blank = True

    def _enter(self, line: str) -> tuple[str, str]:
        """Take off what the open containers put before a line, and close those that it no longer belongs to."""
        prefix = ""
        rest = line
        for depth, inner in enumerate(self.stack):
            count, inside = without_quote_marks(rest, inner.quotes)
            if count < inner.quotes:
                self.close_to(depth)
                break
            if not inner.container.fence and inside.strip():
                if columns(inside) < inner.width:
                    self.close_to(depth)
                    break
                inside = self._dedent_body(inner, inside)
            rest = inside
            prefix += "> " * inner.quotes
        return prefix, rest

    def _dedent_body(self, inner: _Open, line: str) -> str:
        lead = columns(inner.lead)
        if inner.container.indent >= TAB:
            return dedent(line, inner.container.indent)
        # The first line of the body tells how far all of it is indented.
        inner.body_width = inner.body_width or min(columns(line), lead + 2 * TAB)
        return dedent(line, min(columns(line), inner.body_width) - lead)

    def _take_option(self, top: _Open, rest: str) -> bool:
        """Read a line as an option of a container that has just begun; False where it is none."""
        if top.container.options == "field" and rest.strip() == "---" and (top.in_yaml or not top.options):
            top.in_yaml = not top.in_yaml
            top.reads_options = top.in_yaml
            if not top.reads_options:
                self._start(top)
            return True
        if top.in_yaml and ("](" in rest or "<" in rest):
            return False
        if top.in_yaml and (not rest.strip() or rest.lstrip()[0] in "#-" or columns(rest)):
            return True
        as_yaml = top.in_yaml or (top.container.options == "yaml" and columns(rest) >= TAB)
        found = (YAML_OPTION if as_yaml else OPTION).match(rest)
        if found and (as_yaml or top.container.options == "field"):
            top.options[found[1]] = (found[2] or "").strip().strip("\"'")
        return bool(found)

    def _start(self, top: _Open) -> None:
        top.reads_options = top.in_yaml = False
        self._write(top, top.container.start(top.options))
        if top.lead.strip():  # the list mark still needs a line of its own
            self._write(top, ("<!-- -->",))

    def _write(self, top: _Open, lines: Sequence[str]) -> None:
        """Write lines at the place of a container's opening line, after its list mark if one stands there."""
        lead = top.lead
        for line in lines:
            if line:
                self.out.append((top.prefix + lead + line, top.number))
                lead = top.lead = " " * columns_of_lead(lead)
            else:
                self.out.append((top.prefix.rstrip(), top.number))

    def _open(self, prefix: str, rest: str) -> bool:
        if len(self.stack) >= MAX_DEPTH or not rest.strip():
            return False
        quotes, line = without_quote_marks(rest)
        if self.tracker.is_indented_code(line):
            return False
        lead = line[: len(line) - len(line.lstrip(" \t"))]
        container = self._opened(line[len(lead) :])
        if not container and (mark := LIST_MARK.match(line)):
            lead = mark[0]
            container = self._opened(line[len(lead) :])
            if container:
                self.tracker.take("> " * quotes + lead + "x")
        if not container:
            return False
        while self.tracker.lists and columns(lead) < self.tracker.lists[-1] and not lead.strip():
            self.tracker.lists.pop()
        self._push(container, quotes, lead, prefix + "> " * quotes)
        return True

    def _push(self, container: Container, quotes: int, lead: str, prefix: str) -> None:
        tracker = CodeTracker(indented=not self.mdx)
        width = columns_of_lead(lead)
        tracker.lists = [indent for indent in self.tracker.lists if indent < width] + [width] * (width > 0)
        top = _Open(container, self.number, quotes, lead, prefix, tracker, width + container.indent)
        self.stack.append(top)
        top.reads_options = bool(container.options)
        if not top.reads_options:
            self._start(top)
        if container.body:
            self.out.append((prefix + top.lead + container.body, self.number))

    def _opened(self, line: str) -> Container | None:
        if line[:1] not in FIRST_SIGNS:
            return None
        return next((found for opener in self.openers if (found := opener(line))), None)

    def _close_by(self, marks: str) -> bool:
        """Close the container that a line of `marks` ends; False where there is none."""
        inner = self.tracker.fence
        best = -1
        for depth in range(len(self.stack) - 1, -1, -1):
            fence = self.stack[depth].container.fence
            if not fence or fence[0] != marks[0] or fence[1] > len(marks):
                continue
            # A fence of code inside ends first, unless the line is longer than what that code began with.
            if inner and (inner[0] != marks[0] or len(marks) <= inner[1]):
                continue
            if fence[1] == len(marks):
                best = depth
                break
            best = max(best, depth)
        if best < 0 or self.tracker.in_comment:
            return False
        self.close_to(best)
        self.out.append(("", self.number))
        return True


def columns_of_lead(lead: str) -> int:
    """Return the column at which text after `lead`, indentation or a list mark, begins."""
    return columns(lead) + len(lead.lstrip(" \t"))
