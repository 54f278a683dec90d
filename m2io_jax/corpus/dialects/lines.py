"""Lines of Markdown: indentation, quote marks, list items, and which lines belong to code or to a comment."""

import re
from dataclasses import dataclass, field

TAB = 4
QUOTE_MARK = re.compile(r" {0,3}> ?")
LIST_MARK = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])(?:[ \t]{1,4}(?=\S)|[ \t]*$)")
FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
CLOSING_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*$")
# Lists nested deeper than this on one line are read as text: "- - - - …".
MAX_LIST_MARKS = 10


def columns(line: str) -> int:
    """Return the width of a line's indentation, with tab stops every four columns."""
    width = 0
    for letter in line:
        if letter == " ":
            width += 1
        elif letter == "\t":
            width += TAB - width % TAB
        else:
            break
    return width


def dedent(line: str, width: int) -> str:
    """Remove `width` columns of indentation, or all of it where there is less."""
    return " " * max(0, columns(line) - width) + line.lstrip(" \t")


def without_quote_marks(line: str, count: int | None = None) -> tuple[int, str]:
    """Remove the quote marks (`>`) that a line begins with.

    Args:
        line: one line of Markdown.
        count: how many to remove at most; all of them by default.

    Returns:
        How many were removed, and the rest of the line.
    """
    removed = 0
    at = 0
    while (count is None or removed < count) and (mark := QUOTE_MARK.match(line, at)):
        at = mark.end()
        removed += 1
    return removed, line[at:]


@dataclass
class CodeTracker:
    """Tells, line after line, what is code or an HTML comment and so must not be rewritten.

    Attributes:
        indented: whether four columns of indentation make code (not in MDX).
        fence: the open code fence as (character, length, quote depth, list indentation).
        lists: the columns at which the text of each open list item begins.
    """

    indented: bool = True
    fence: tuple[str, int, int, int] | None = None
    in_comment: bool = False
    lists: list[int] = field(default_factory=list)
    after_blank: bool = True
    after_code: bool = False

    @property
    def is_open(self) -> bool:
        """Whether a code fence or a comment goes on."""
        return self.fence is not None or self.in_comment

    def is_indented_code(self, line: str) -> bool:
        """Return whether the next line, without quote marks, is code by its indentation."""
        width = columns(line)
        base = next((indent for indent in reversed(self.lists) if indent <= width), 0)
        return self.indented and width - base >= TAB and (self.after_blank or self.after_code)

    def take(self, line: str) -> bool:
        """Read the next line and return whether it is code or part of a comment."""
        depth, rest = without_quote_marks(line)
        if self.in_comment:
            self.in_comment = "-->" not in rest
            return True
        if self.fence and not self._leaves_fence(depth, rest):
            closing = CLOSING_FENCE.match(rest)
            if closing and closing[1][0] == self.fence[0] and len(closing[1]) >= self.fence[1]:
                self.fence = None
            return True
        self.fence = None
        if not rest.strip():
            self.after_blank = True
            return False
        return self._take_text(depth, rest)

    def _leaves_fence(self, depth: int, rest: str) -> bool:
        assert self.fence is not None
        _, _, fence_depth, base = self.fence
        return depth < fence_depth or bool(rest.strip() and columns(rest) < base)

    def _take_text(self, depth: int, rest: str) -> bool:
        code = self.is_indented_code(rest)
        while self.lists and columns(rest) < self.lists[-1]:
            self.lists.pop()
        self.after_code, self.after_blank = code, False
        if code:
            return True
        rest = self._take_list_marks(rest)
        if fence := FENCE.match(rest):
            self.fence = (fence[1][0], len(fence[1]), depth, self.lists[-1] if self.lists else 0)
            return True
        if rest.lstrip().startswith("<!--"):
            self.in_comment = "-->" not in rest
            return True
        return False

    def _take_list_marks(self, rest: str) -> str:
        for _ in range(MAX_LIST_MARKS):
            mark = LIST_MARK.match(rest)
            if not mark:
                break
            width = columns(rest) + max(2, len(mark[0].lstrip(" \t")))
            self.lists.append(width)
            rest = " " * width + rest[mark.end() :]
            if not rest.strip():
                break
        return rest
