"""Splitting an answer into its sentences: the places between them are the slots where pictures may stand.

Rules, enough for English Markdown prose:

- A sentence ends at `.`, `!`, `?` or `…` (with closing quotes or brackets) before white space and something that can
  begin a sentence: a capital or digit, perhaps after a quote, a bracket, Markdown emphasis or a code mark.
- The full-width marks of Chinese and Japanese end one without white space.
- It does not end after an abbreviation, a single initial, a list number at the start, or inside `code`.
- A list item is one sentence, however many it holds. So is a code block or table of at most `MAX_VERBATIM` characters;
  a longer one is left out, since no reader looks for a picture in its middle.
"""

import re

from m2io_jax.corpus.documents import TextBlock

MAX_VERBATIM = 300

_BOUNDARY = re.compile(r"""(?:[.!?…]+["'”’)\]*_]*(?=\s+["'“‘(\[*_`]*[A-Z0-9À-ÞΑ-ΩА-Я])|[。！？]+[”’」）]*)""")
_ABBREVIATION = re.compile(
    r"""(?:^|[\s("'“‘\[*_])(?:e\.g|i\.e|cf|vs|viz|approx|ca|resp|incl|mr|mrs|ms|dr|prof|st|mt|sr|jr|fig|figs|eq|sec|ch"""
    r"""|vol|pp|ed|eds|inc|ltd|co|corp|gen|lt|sgt|col|rev|hon|dept|min|max|temp|tbsp|tsp|oz|lb|lbs"""
    r"""|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec)\.$""",
    re.IGNORECASE,
)
_INITIAL = re.compile(r"(?:^|[\s(])(?:[A-Z]\.)+$")
_NUMBER_SIGN = re.compile(r"(?:^|\s)No\.$")
_LIST_NUMBER = re.compile(r"^\s*\d{1,3}\.$")
_CODE = re.compile(r"(`+)(?:.+?)\1")


def split_sentences(text: str) -> tuple[str, ...]:
    """The sentences of one paragraph, in order; white space is collapsed, no other character is lost or changed."""
    text = " ".join(text.split())
    code = [match.span() for match in _CODE.finditer(text)]
    sentences, start = [], 0
    for match in _BOUNDARY.finditer(text):
        end = match.end()
        inside_code = any(first < end < last for first, last in code)
        if inside_code or (match.group() == "." and not _ends_sentence(text[start:end], text[end:].lstrip())):
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


def _ends_sentence(sentence: str, rest: str) -> bool:
    """Whether the full stop at the end of `sentence` ends it, given what follows."""
    if _LIST_NUMBER.match(sentence) or _INITIAL.search(sentence) or _ABBREVIATION.search(sentence):
        return False
    return not (_NUMBER_SIGN.search(sentence) and rest[:1].isdigit())
