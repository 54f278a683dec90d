"""Questions that a section of a document answers, made of its page's title and its headings."""

import re
import unicodedata

# First words of headings that are instructions ("Connect the sensor"), which read well after "How do I".
_IMPERATIVES = frozenset(
    "add adjust attach bake build calibrate calculate call capture change check choose clean combine configure connect"
    " convert cook create cut debug define delete deploy design detect develop display download enable export find get"
    " import improve install join load make manage measure mix monitor move open plot prepare program publish read"
    " receive register remove run save secure select send serve set setup show split start stop store subscribe test"
    " train transform translate turn update upload use validate visualize wire work write".split()
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
_QUESTION = re.compile(r"(?<![\s.!?…。！？])[\s.!…。！]*+([?？])[\s.!?…。！？]*+(?=[\"'”’»)\]]*$)")
_ENDS = " \t.:;,!?…。：；，！？-–—"
_SYMBOLS = ("So", "Sk", "Co", "Cf", "Mn")  # categories of emoji, their modifiers and selectors
_BULLETS = "•·▸►→*"


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
    first, _, rest = heading.partition(" ")
    if first.casefold() in _IMPERATIVES and rest:
        return f"How do I {first.casefold()} {rest}, in {page}?"
    if first.casefold().endswith("ing") and rest:
        return f"How does {first.casefold()} {rest} go, in {page}?"
    return f"What does {page} say about {_clause(heading)}?"


def _about(title: str) -> str:
    if _QUESTION.search(title):
        return _asked(title)
    body = _clause(_body(title))
    return f"What is there to know about {body}?" if body else ""


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
    return character.isspace() or character in _BULLETS or unicodedata.category(character) in _SYMBOLS


def _body(text: str) -> str:
    """Return the text without the marks that end it."""
    return text.rstrip(_ENDS)


def _asked(question: str) -> str:
    """Return the question with one mark at its end, that of its script."""
    return _QUESTION.sub(lambda found: found[1], question)


def _clause(topic: str) -> str:
    """Return a topic as it stands after "about": one that is a clause ("What you need") begins small."""
    return topic[0].lower() + topic[1:] if _CLAUSE.match(topic) else topic
