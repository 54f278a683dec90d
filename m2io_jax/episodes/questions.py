"""Questions that a section of a document answers, made of its page's title and its headings."""

import re
import unicodedata

# First words of headings that are instructions ("Add oil"), which read well after "How do I".
_IMPERATIVES = frozenset(
    "add adjust attach bake calibrate calculate choose combine configure connect convert create define delete deploy"
    " detect develop enable find get give improve install join make manage measure mix prepare publish read receive"
    " register remove save secure select send serve subscribe transform translate upload validate visualize"
    " write".split()
)
# Such words that are nouns or adjectives too ("Test results", "Open source"): the second word tells.
_VERBS_OR_NOUNS = frozenset(
    "build call capture change check clean cook cut debug design display download draw export import load"
    " monitor move open plot program record run set setup show split start stop store take test train turn"
    " update use wire".split()
)
_OBJECT_BEGINS = frozenset(
    "a an all another any both down each every from into it its more my off on our out over some that the their them"
    " these this those to two up with your".split()
)
# They end in "ing" and are no activities.
_NO_GERUNDS = frozenset(
    "according anything being building ceiling during everything evening king morning nothing ring something spring"
    " string thing wing wiring".split()
)

_KINDS = (
    "activity|answer|caution|challenge|danger|example|exercise|hint|important|info|lab|note|part|question|reminder"
    "|solution|step|task|tip|warning"
)
# "Task - ", "Step 2: ", "3. ": where a heading stands in its document, which says nothing of what it is about.
_LABEL = re.compile(rf"^(?:(?:{_KINDS})\s*\d*\s*[-–—:.]|\d+(?:\.\d+)+[.)]?|\d+[.)])\s+(?=\S)", re.IGNORECASE)
# Headings that say what kind of section this is, or its number, and not what it is about.
_KIND = re.compile(
    rf"(?:the )?(?:(?:{_KINDS})s?|discussion|introduction|notes|output|overview|results?|summary)\s*\d*|[\W\d_]+",
    re.IGNORECASE,
)
# "(10 min)", "(optional, not included in timing)": how long a lesson takes.
_TIMING = re.compile(r"\s*\([^()]*\b(?:min|mins|minutes|hours?|optional)\b[^()]*\)$", re.IGNORECASE)
_CLAUSE = re.compile(r"(?:How|If|What|When|Where|Which|Who|Why)\b")

# A run of marks is tried once, from its first: from each of them, a line of dots would take the square of its length.
_QUESTION = re.compile(r"(?<![\s.!?…。！？؟।])[\s.!…。！।]*+([?？؟])[\s.!?…。！？؟।]*+(?=[\"'”’»)\]]*$)")
_ENDS = " \t.:;,!?…。：；，！？؟،؛।-–—"
_SYMBOLS = ("So", "Sk", "Co", "Cf", "Mn")  # categories of emoji, their modifiers and selectors
_BULLETS = "•·▸►→"


def ask(title: str, heading: str, parent: str = "") -> str:
    """Return a question that a section answers; "" where neither title nor heading has a word.

    Args:
        title: of the document.
        heading: of the section; empty before the first heading.
        parent: the heading that the section's own stands under. It says what the section is about if the heading is
            the name of a kind of section ("Solution") or a number.
    """
    title, heading, parent = _plain(title), _topic(heading), _topic(parent)
    kind = ""
    if _KIND.fullmatch(_body(heading)):
        kind, heading = _body(heading) if re.search(r"[^\W\d_]", heading) else "", parent
        if _KIND.fullmatch(_body(heading)):
            kind = heading = ""
    if not heading or _body(heading).casefold() in (_body(title).casefold(), _body(_topic(title)).casefold()):
        return _about(title)
    page = _body(title)
    if not page:
        return _about(heading)
    if kind:
        return f"What does {page} say about {_clause(_body(heading))}: {kind}?"
    if _QUESTION.search(heading):
        return f"{page}: {_asked(heading)}"
    heading = _body(heading)
    if _is_instruction(heading):
        return f"How do I {_begin_small(heading)}, in {page}?"
    first, _, rest = heading.casefold().partition(" ")
    if first.endswith("ing") and first not in _NO_GERUNDS and _begins_object(rest):
        return f"How does {_begin_small(heading)} go, in {page}?"
    page = f'"{page}"' if _CLAUSE.match(page) else page  # "What does What you need say" cannot be read
    return f"What does {page} say about {_clause(heading)}?"


def _about(title: str) -> str:
    if _QUESTION.search(title):
        return _asked(title)
    body = _body(title)
    if _is_instruction(body):
        return f"How do I {_begin_small(body)}?"
    return f"What is there to know about {_clause(body)}?" if body else ""


def _is_instruction(text: str) -> bool:
    first, _, rest = text.casefold().partition(" ")
    return bool(rest) and (first in _IMPERATIVES or (first in _VERBS_OR_NOUNS and _begins_object(rest)))


def _begins_object(text: str) -> bool:
    return text.partition(" ")[0] in _OBJECT_BEGINS


def _begin_small(text: str) -> str:
    first, _, rest = text.partition(" ")
    return f"{first.casefold()} {rest}"


def _topic(heading: str) -> str:
    """Return the heading without its label and what it says of time; empty where it has no letter and no digit."""
    return _TIMING.sub("", _plain(_LABEL.sub("", _plain(heading))))


def _plain(text: str) -> str:
    """Return the text on one line, without emoji and bullets around it; empty where nothing can be read."""
    text = " ".join(text.split())
    begin, end = 0, len(text)
    while begin < end and _is_symbol(text[begin]):
        begin += 1
    while begin < end and _is_symbol(text[end - 1]):
        end -= 1
    return text[begin:end] if any(each.isalnum() for each in text) else ""


def _is_symbol(character: str) -> bool:
    if character.isascii():
        return character.isspace()
    return character in _BULLETS or character.isspace() or unicodedata.category(character) in _SYMBOLS


def _body(text: str) -> str:
    """Return the text without the marks that end it, and those that begin a question in Spanish."""
    return text.rstrip(_ENDS).lstrip("¿¡")


def _asked(question: str) -> str:
    """Return the question with one mark at its end, that of its script."""
    return _QUESTION.sub(lambda found: found[1], question)


def _clause(topic: str) -> str:
    """Return a topic as it stands after "about": one that is a clause ("What you need") begins small."""
    return topic[0].lower() + topic[1:] if _CLAUSE.match(topic) else topic
