"""Read an answer's text as a choice, a quantity, a figure, a ratio, a list, words, or an expression."""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from m2io_jax.verification.canonical import canonical
from m2io_jax.verification.characters import RANGE_DASHES
from m2io_jax.verification.dates import Date, read_date
from m2io_jax.verification.expressions import greek_name, has_angle_function, is_mathematical
from m2io_jax.verification.quantities import Quantity, is_decimal_comma, read_quantity, read_tail
from m2io_jax.verification.units import Unit
from m2io_jax.verification.words import Choice, Figure, fold_words, is_words, read_choice, read_figure, read_formula

MOST_ITEMS = 24
DEEPEST = 6
LONGEST_NAME = 60


@dataclass(frozen=True)
class Words:
    """Words, folded for comparison, and as they are written."""

    folded: str
    text: str = field(default="", compare=False)


@dataclass(frozen=True)
class Expression:
    """Mathematics for math-verify, with the unit or the noun that stands after it."""

    text: str
    unit: Unit | None = None
    noun: tuple[str, ...] = ()


@dataclass(frozen=True)
class Items:
    """Several answers in one.

    Attributes:
        brackets: the opening and the closing one; empty where there are none.
        items: the answers in the order they are written.
        text: all as it is written.
        decimal: what the text is where its comma is a decimal one: 3,14.
    """

    brackets: str
    items: tuple["Reading", ...]
    text: str
    decimal: Quantity | None = None


@dataclass(frozen=True)
class Named:
    """A value and what it is the value of: x = 5."""

    name: str
    value: "Reading"
    text: str


@dataclass(frozen=True)
class Parts:
    """Numbers with marks between them: a ratio, a time of day, a date, a range.

    Attributes:
        kind: the mark: `:`, `-`, `/` or `to`.
        suffix: what follows, as pm.
        ambiguous: a dash that is no hyphen, which means a range more often than a difference.
    """

    kind: str
    numbers: tuple[int, ...]
    suffix: str
    text: str
    ambiguous: bool = False


@dataclass(frozen=True)
class Unreadable:
    """Text without a letter, a digit or a command."""


Reading = Choice | Quantity | Date | Figure | Words | Expression | Items | Named | Parts | Unreadable

_PARTS = re.compile(
    r"(?P<numbers>[0-9]{1,9}(?P<mark> ?[:/-] ?| to )[0-9]{1,9}(?:(?P=mark)[0-9]{1,9}){0,5})"
    r" ?(?P<suffix>[aApP]\.?[mM]\.?)?"
)
_HOUR = re.compile(r"(?P<hour>[0-9]{1,2}) ?(?:(?P<suffix>[aApP]\.?[mM]\.?)|o'clock)")
_NOON = {"noon": (12, "pm"), "12 noon": (12, "pm"), "midnight": (12, "am"), "12 midnight": (12, "am")}
_INDEX = re.compile(r"_(?:\w|\{\w*\})$")  # what follows is a factor: v_0 t
# A length, an area or a mass right after an expression, as GeoQA writes it: 4\\sqrt{3}cm.
_ATTACHED = r"(?<=[)}π])(?=(?:[cmkd]m|kg)(?: ?\^ ?\{?[23]\}?)?$)"
_SETS = {"empty set": r"\emptyset", "the empty set": r"\emptyset"}
_SETS |= dict.fromkeys(("all real numbers", "all reals", "real numbers", "any real number"), r"\mathbb{R}")
_BETWEEN = re.compile(r"(?:between|from) (?P<low>[0-9]{1,9}) (?:and|to) (?P<high>[0-9]{1,9})")
_CODE = re.compile(r"v?[0-9]+(?:\.[0-9]+){2,}|[A-Za-z](?:\+\+|\\?#)|[A-Za-z]&[A-Za-z]")  # 192.168.0.1, v1.2.3, C++
_POINT = re.compile(
    r"(?P<name>[A-Z]'?(?:_\{?[0-9]\}?)?|(?:the )?(?:point|coordinates?)(?: [A-Z]'?)?) ?(?P<value>\(.*[0-9].*\))"
)
_RANGE = re.compile(rf"\d ?[{RANGE_DASHES}] ?\d")
_NAME = re.compile(
    r"(?P<name>[^\W\d_](?:[^\W\d]|\\|[ '|])*(?:_(?:\{[^{}]*\}|\w))?"
    r"(?:\((?:[a-z0-9](?:, ?[a-z0-9])?|[0-9]{1,6}|[A-Z][^()=]{0,40})\))?"
    r"|\\[^=<>+*^,;-]{1,40}?|\([a-z], ?[a-z]\)|\|[A-Z]{2}\|)"
    r" ?(?P<sign>=|\\in(?![a-z])|:(?= )) ?(?P<value>[^=<>]+(?:=[^=<>]+)*)"
)
_STATED = re.compile(
    r"(?:(?:the )?(?P<measure>(?:value|length|area|volume|perimeter|angle|height|width|radius|distance|sum|total)"
    r"(?: of [^=<>]{1,40}?)?)|the (?P<name>[a-z]+(?: [^=<>]{1,40}?)?)|(?P<symbol>(?:\\?angle )?[a-z]{1,3}(?=.*[0-9])))"
    r" (?:is|are|equals) (?:equal to )?(?P<value>.+)",
    re.IGNORECASE,
)
_REVERSED = re.compile(r"(?P<value>[^=<>a-zA-Z\\]*[0-9][^=<>a-zA-Z\\]*)= ?(?P<name>[a-zA-Z])")
_CALCULATION = r"(?:[^=<>a-zA-Z\\]|\\(?:times|div|cdot) )"
_SUM = re.compile(rf"{_CALCULATION}*[0-9)]{_CALCULATION}*=(?P<value>[^=<>]+)")
_BRACKETS = ((r"\langle", r"\rangle"), (r"\{", r"\}"), ("(", ")"), ("[", "]"), ("{", "}"), ("(", "]"), ("[", ")"))
_UNION = re.compile(r" ?\\(?:cup|cap|setminus)(?![a-z])")
_SET_BUILDER = re.compile(
    r"(?:\\?\{ ?)?[a-z] ?(?:\||\\mid(?![a-z])) ?(?P<condition>[^|]*?(?:[<>=]|\\[gln]eq?)[^|]*?)(?: ?\\?\})?"
)
_BARE_CONDITION = re.compile(r"(?:[<>]|\\[gl]eq?(?![a-z])) ?[^<>=]+")
_LETTERS = re.compile(r"[A-Z](?: [A-Z])+")  # of several choices
_GROUP = re.compile(r"[^0-9]*[0-9]{1,3},[0-9]{3}(?![0-9])")
_WORD_SEPARATOR = re.compile(
    r",? +(?:and|or|&) +|(?<=[0-9A-Za-z)}]) ?(?:和|与|或) ?(?=[0-9A-Za-z(\\-])|,? *\\(?:land|lor|wedge|vee)(?![a-z]) *"
)


def read(answer: str) -> Reading | None:
    """Read an answer; None where it is empty or too long."""
    reading = _read(canonical(answer))
    return replace(reading, ambiguous=True) if isinstance(reading, Parts) and _RANGE.search(answer) else reading


@lru_cache(maxsize=16_384)
def _read(text: str, depth: int = 0) -> Reading | None:
    if not text:
        return None
    choice = read_choice(text)
    if choice:
        return choice
    if _BARE_CONDITION.fullmatch(text):
        return Expression(f"x {text}")
    builder = _SET_BUILDER.fullmatch(text)
    if builder:
        return _read(builder["condition"], depth + 1)
    date = read_date(text)
    if date:
        return date
    quantity = None if _HOUR.fullmatch(text) else read_quantity(text)
    if quantity:
        return quantity
    return (
        _parts(text) or read_figure(text) or _plus_minus(text, depth) or _items(text, depth) or _named(text, depth)
        or _words_or_expression(text)
    )  # fmt: skip


def _parts(text: str) -> Parts | None:
    if text.casefold() in _NOON:
        hour, suffix = _NOON[text.casefold()]
        return Parts(":", (hour, 0), suffix, text)
    hour = _HOUR.fullmatch(text)
    if hour:
        return Parts(":", (int(hour["hour"]), 0), (hour["suffix"] or "").replace(".", "").casefold(), text)
    between = _BETWEEN.fullmatch(text)
    if between:
        return Parts("to", (int(between["low"]), int(between["high"])), "", text)
    match = _PARTS.fullmatch(text)
    if match is None:
        return None
    mark = match["mark"].strip()
    numbers = tuple(int(number) for number in re.split(r" ?[:/-] ?| to ", match["numbers"]))
    suffix = (match["suffix"] or "").replace(".", "").casefold()
    if mark != ":" and (suffix or mark == "/" and len(numbers) != 3):
        return None
    return Parts(mark, numbers, suffix, text)


def _plus_minus(text: str, depth: int) -> Reading | None:
    """Read `3 \\pm 2` as both of its values."""
    if text.count(r"\pm") != 1 or depth > DEEPEST or re.search(r"[=<>,;]", text):
        return None
    both = [_read(text.replace(r"\pm", sign).lstrip("+ "), depth + 1) for sign in "+-"]
    return None if None in both else Items("", tuple(both), text)


def _items(text: str, depth: int) -> Reading | None:
    if depth > DEEPEST or _UNION.search(text) or r"\begin" in text:
        return None
    brackets, body = _brackets(text)
    pieces = body.split() if _LETTERS.fullmatch(body) else _split(body, inside=bool(brackets))
    if len(pieces) < 2:
        return _read(body, depth + 1) if brackets in ("()", "[]", r"\{\}", "{}") and pieces else None
    if len(pieces) > MOST_ITEMS:
        return None
    items = [_read(canonical(piece), depth + 1) for piece in pieces]
    if None in items or not brackets and not _is_list(items):
        return None
    decimal = read_quantity(f"{text} units") if is_decimal_comma(text) else None
    return Items(brackets.replace("\\", ""), tuple(items), text, decimal)


def _is_list(items: list[Reading]) -> bool:
    """Return whether pieces without brackets are answers each; the parts of a sentence are not."""
    if all(isinstance(item, Words) for item in items):
        return all(len(item.folded.split()) <= 3 for item in items)
    return not any(isinstance(item, Unreadable) for item in items)


def _brackets(text: str) -> tuple[str, str]:
    """Return the brackets around a text, both in one string, and what they hold; none where they do not match."""
    for opening, closing in _BRACKETS:
        body = text[len(opening) : len(text) - len(closing)]
        if body.strip() and text == opening + body + closing and not body.endswith("\\") and _is_balanced(body):
            return opening + closing, body.strip()
    return "", text


def _is_balanced(body: str) -> bool:
    """Return whether all brackets in a text are closed in it, so that those around it belong to each other."""
    depth = 0
    for character in body:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _split(body: str, inside: bool) -> list[str]:
    """Split at commas, semicolons, "and" and "or" outside brackets; where a comma has a space after it, only there."""
    cuts, depth = [], 0
    for index, character in enumerate(body):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return [body]
        if not depth:
            if match := _WORD_SEPARATOR.match(body, index):
                cuts.append((index, match.end()))
            elif character in ",;" and not (cuts and index < cuts[-1][1]):
                cuts.append((index, index + 1))
    loose = [cut for cut in cuts if body[cut[0]] == ";" or " " in body[cut[1] - 1 : cut[1] + 1]]
    tight = [cut for cut in cuts if cut not in loose]
    if loose and (not inside or all(_GROUP.match(body[max(0, left - 3) : right + 4]) for left, right in tight)):
        cuts = loose
    pieces, start = [], 0
    for left, right in cuts:
        if left >= start:
            pieces.append(body[start:left])
            start = right
    pieces.append(body[start:])
    return [piece.strip() for piece in pieces] if all(piece.strip() for piece in pieces) else [body]


def _named(text: str, depth: int) -> Reading | None:
    if depth > DEEPEST:
        return None
    stated = _STATED.fullmatch(text)
    match = stated or _NAME.fullmatch(text) or _REVERSED.fullmatch(text)
    if match:
        value = match["value"].rpartition("=")[2].strip()
        name = (match["measure"] or match["name"] or match["symbol"] if stated else match["name"]).strip()
        letter_and_colon = match.re is _NAME and match["sign"] == ":" and len(name) < 2  # a choice, or a ratio
        if len(name) > LONGEST_NAME or not value or letter_and_colon:
            return None
        inner = _read(canonical(value), depth + 1)
        if inner is None or isinstance(inner, Unreadable):
            return None
        return Named(fold_words(name), inner, text)
    point = _POINT.fullmatch(text)
    coordinates = _read(point["value"], depth + 1) if point else None
    if isinstance(coordinates, Items):
        return Named(fold_words(point["name"]), coordinates, text)
    worked = _SUM.fullmatch(text)
    return _read(canonical(worked["value"].strip()), depth + 1) if worked else None


def _words_or_expression(text: str) -> Reading:
    symbol = greek_name(text) or text
    if text.casefold() in _SETS:
        return Expression(_SETS[text.casefold()])
    if symbol == "pi" or text == "\\pi":
        return Expression(r"\pi")
    if _CODE.fullmatch(text):
        return Words(text.casefold(), text)
    formula = read_formula(text)
    if formula:
        return Words(formula, text)
    if is_words(symbol) and text.casefold().lstrip("+- ") not in ("pi", "inf", "infinity", "infty"):
        return Words(fold_words(symbol), text)
    measured = _measured(text)
    if measured:
        return measured
    if text.endswith("°") and is_mathematical(text[:-1]) and not has_angle_function(text):
        return Expression(text[:-1].strip(), read_tail("°")[0])
    if is_mathematical(text):
        return Expression(text)
    return Words(fold_words(text), text) if any(character.isalnum() for character in text) else Unreadable()


def _measured(text: str) -> Expression | None:
    """Read an expression with a unit or a noun after it: 2\\sqrt{3} cm. The longest unit counts."""
    for match in re.finditer(r"(?<=[0-9)}π]) (?=[a-zA-Z°Ω])|(?<=\\pi) (?=[a-zA-Z°Ω])|" + _ATTACHED, text):
        before, after = text[: match.start()], text[match.end() :]
        if before.count("{") == before.count("}") and not _INDEX.search(before) and is_mathematical(before):
            tail = read_tail(after)
            if tail and (tail[0] or all(len(word) > 2 for word in tail[1])):
                return Expression(before, *tail)
    return None
