"""Splitting an answer into its sentences: the places between them are the slots where pictures may stand.

Rules, enough for English Markdown prose:

- A sentence ends at `.`, `!`, `?` or `…` (with closing quotes or brackets) before white space and something that can
  begin a sentence: a capital or digit, perhaps after a quote, a bracket, Markdown emphasis or a code mark.
- The full-width marks of Chinese and Japanese end one without white space.
- It does not end after an abbreviation, a single initial, a list number at the start, or inside `code`, which closes at
  the next run of as many backticks.
- A list item is one sentence, however many it holds. So is a code block or table of at most `MAX_VERBATIM` characters;
  a longer one is left out, since no reader looks for a picture in its middle.
"""

import re
from bisect import bisect_left

from m2io_jax.corpus.documents import TextBlock

MAX_VERBATIM = 300

# A run of marks is tried once, from its first: from each of them, a line of dots would take the square of its length.
_BOUNDARY = re.compile(
    r"""(?:(?<![.!?…])[.!?…]++["'”’)\]*_]*+(?=\s["'“‘(\[*_`]*[A-Z0-9À-ÞΑ-ΩА-Я])|[。！？]+[”’」）]*)"""
)
_ABBREVIATION = re.compile(
    r"""(?:^|[("'“‘\[*_])(?:e\.g|i\.e|cf|vs|viz|approx|ca|resp|incl|mr|mrs|ms|dr|prof|st|mt|sr|jr|fig|figs|eq|sec|ch"""
    r"""|vol|pp|ed|eds|inc|ltd|co|corp|gen|lt|sgt|col|rev|hon|dept|min|max|temp|tbsp|tsp|oz|lb|lbs"""
    r"""|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec)\.$""",
    re.IGNORECASE,
)
_INITIAL = re.compile(r"(?:^|\()(?:[A-Z]\.)+$")
_LIST_NUMBER = re.compile(r"\d{1,3}\.")
_BACKTICKS = re.compile(r"`+")


def split_sentences(text: str) -> tuple[str, ...]:
    """The sentences of one paragraph, in order; white space is collapsed, no other character is lost or changed."""
    text = " ".join(text.split())
    code = _code_spans(text)
    sentences, start = [], 0
    for match in _BOUNDARY.finditer(text):
        end = match.end()
        if _is_inside(end, code) or (match.group() == "." and not _ends_sentence(text, start, end)):
            continue
        sentences.append(text[start:end].strip())
        start = end
    sentences.append(text[start:].strip())
    return tuple(filter(None, sentences))


def block_sentences(block: TextBlock) -> tuple[str, ...]:
    """What a block of a document adds to an answer; headings add nothing, they are in the question."""
    if block.kind == "heading":
        return ()
    if block.kind in ("code", "table"):
        text = block.text.strip("\n")
        return (text,) if text.strip() and len(text) <= MAX_VERBATIM else ()
    if block.kind == "item":
        return tuple(filter(None, [" ".join(block.text.split())]))
    return split_sentences(block.text)


def _ends_sentence(text: str, start: int, end: int) -> bool:
    """Whether the full stop before `end` ends the sentence that begins at `start`: its last word tells."""
    first = max(start, text.rfind(" ", start, end) + 1)
    word, is_first = text[first:end], first - start <= 1  # but for a space
    if is_first and _LIST_NUMBER.fullmatch(word):
        return False
    if _INITIAL.search(word) or _ABBREVIATION.search(word):
        return False
    return not (word == "No." and text[end : end + 2].strip()[:1].isdigit())


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Where code begins and ends, in order: a run of backticks closes at the next run of as many."""
    runs = [run.span() for run in _BACKTICKS.finditer(text)]
    following: dict[int, int] = {}
    closing: list[int | None] = [None] * len(runs)
    for index in reversed(range(len(runs))):
        first, last = runs[index]
        closing[index] = following.get(last - first)
        following[last - first] = index
    spans, index = [], 0
    while index < len(runs):
        closed = closing[index]
        if closed is not None:
            spans.append((runs[index][0], runs[closed][1]))
        index = (index if closed is None else closed) + 1
    return spans


def _is_inside(position: int, spans: list[tuple[int, int]]) -> bool:
    before = bisect_left(spans, (position,)) - 1
    return before >= 0 and position < spans[before][1]
