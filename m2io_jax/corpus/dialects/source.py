"""A Markdown text that is rewritten step by step and still knows the line of the file that each line came from."""

import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property

from m2io_jax.corpus.dialects.lines import CodeTracker

Edit = tuple[int, int, str]
Span = tuple[int, int]

BACKTICKS = re.compile(r"`+")
# What is shown or run as it stands, so that nothing in it is rewritten. Comments may stand inside a line.
RAW_HTML = [(re.compile("<!--"), re.compile("-->"))] + [
    (re.compile(rf"<{name}\b", re.IGNORECASE), re.compile(rf"</{name}\s*>", re.IGNORECASE))
    for name in ("pre", "script", "style")
]


class Source:
    """Text, and the line number in the file (from 1) of each of its lines.

    Args:
        text: lines end in "\\n".
        numbers: one number a line; counted from 1 by default.
        mdx: whether the text is MDX, where indentation makes no code.
    """

    def __init__(self, text: str, numbers: list[int] | None = None, *, mdx: bool = False):
        self.text = text
        self.numbers = list(range(1, text.count("\n") + 2)) if numbers is None else numbers
        self.mdx = mdx

    def edit(self, edits: Iterable[Edit]) -> "Source":
        """Replace spans (start, end, new text), which are in order and do not overlap."""
        parts: list[str] = []
        numbers = [self.numbers[0]]
        at = line = 0
        for start, end, new in edits:
            kept = self.text.count("\n", at, start)
            numbers += self.numbers[line + 1 : line + kept + 1]
            line += kept
            removed = self.text.count("\n", start, end)
            numbers += [self.numbers[line + min(count, removed)] for count in range(1, new.count("\n") + 1)]
            line += removed
            parts += [self.text[at:start], new]
            at = end
        if not parts:
            return self
        numbers += self.numbers[line + 1 :]
        return Source("".join([*parts, self.text[at:]]), numbers, mdx=self.mdx)

    def without(self, pairs: Iterable[tuple[re.Match[str], re.Match[str]]]) -> "Source":
        """Remove all between each opening and its closing, and both; line breaks stay."""
        spans = ((opening.start(), closing.end()) for opening, closing in pairs)
        return self.edit((start, end, "\n" * self.text.count("\n", start, end)) for start, end in spans)

    def outside_code(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Find all matches that begin outside code and comments."""
        return (found for found in pattern.finditer(self.text) if not self.is_code(found.start()))

    def pairs(self, opening: re.Pattern[str], closing: re.Pattern[str]) -> list[tuple[re.Match[str], re.Match[str]]]:
        """Find each opening with the first closing after it, outside code; pairs do not nest or overlap."""
        closings = deque(self.outside_code(closing))
        found: list[tuple[re.Match[str], re.Match[str]]] = []
        for start in self.outside_code(opening):
            if found and start.start() < found[-1][1].end():
                continue
            while closings and closings[0].start() < start.end():
                closings.popleft()
            if not closings:
                break
            found.append((start, closings.popleft()))
        return found

    def is_code(self, position: int) -> bool:
        """Return whether the character at `position` stands in code or a comment."""
        index = bisect_right(self._starts, position) - 1
        return index >= 0 and position < self._code[index][1]

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in self._code]

    @cached_property
    def _code(self) -> list[Span]:
        """Spans of code and comments in order, merged where they overlap."""
        blocks, paragraphs = self._code_lines()
        code = _merged(blocks + self._code_spans(paragraphs))
        return _merged(code + self._raw_html(code))

    def _code_lines(self) -> tuple[list[Span], list[Span]]:
        """Return the lines of code, and the paragraphs between them and blank lines, as spans."""
        tracker = CodeTracker(indented=not self.mdx)
        code: list[Span] = []
        free: list[Span] = []
        at = 0
        joins = False
        for line in self.text.split("\n"):
            end = at + len(line)
            if tracker.take(line):
                code.append((at, end))
                joins = False
            elif not line.strip():
                joins = False
            elif joins:
                free[-1] = (free[-1][0], end)
            else:
                free.append((at, end))
                joins = True
            at = end + 1
        return code, free

    def _code_spans(self, paragraphs: list[Span]) -> list[Span]:
        """Return the inline code of each paragraph: runs of backticks with the next run of the same length."""
        spans: list[Span] = []
        for start, end in paragraphs:
            runs = [(run.start(), run.end()) for run in BACKTICKS.finditer(self.text, start, end)]
            later: dict[int, deque[Span]] = {}
            for run in runs:
                later.setdefault(run[1] - run[0], deque()).append(run)
            at = start
            for run in runs:
                same = later[run[1] - run[0]]
                while same and same[0][0] <= run[0]:
                    same.popleft()
                escaped = run[0] > start and self.text[run[0] - 1] == "\\"
                if run[0] >= at and same and not escaped:
                    spans.append((run[0], same[0][1]))
                    at = same[0][1]
        return spans

    def _raw_html(self, code: list[Span]) -> list[Span]:
        """Return comments, and the elements whose content is not Markdown, that do not begin inside `code`."""
        spans: list[Span] = []
        starts = [start for start, _ in code]
        for opening, closing in RAW_HTML:
            ends = [found.end() for found in closing.finditer(self.text)]
            for found in opening.finditer(self.text):
                before = bisect_right(starts, found.start()) - 1
                after = bisect_left(ends, found.end())
                if after < len(ends) and (before < 0 or code[before][1] <= found.start()):
                    spans.append((found.start(), ends[after]))
        return spans


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
