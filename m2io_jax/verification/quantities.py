"""Quantities: numbers with a unit, a currency, a noun or nothing beside them, and their comparison.

A unit or a noun that only one of two quantities has is ignored: 6 cubes is 6, and 5 km is 5. Two units are converted:
5 km is 5000 m and is not 5 m. Whether two different nouns name the same things, nobody can say.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

from m2io_jax.verification.characters import is_letter
from m2io_jax.verification.number_words import is_number_word, match_number_words, read_ordinal
from m2io_jax.verification.numbers import Number, as_percent, close, match_number, same_number
from m2io_jax.verification.units import Unit, currency_signs, is_unit_symbol, read_unit

_DEGREE, _RADIAN = (("degree", 1),), (("radian", 1),)
_DEGREES_OF_A_RADIAN = 180 / Fraction("3.14159265358979323846264338327950288")
_SIGNS = currency_signs()
_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "bn": 10**9,
           "trillion": 10**12, "lakh": 10**5, "crore": 10**7, "万": 10**4, "亿": 10**8}  # fmt: skip
_SCALE = re.compile(r" ?(dozen|hundred|thousand|million|billion|bn|trillion|lakh|crore)s?\b|(万|亿)", re.IGNORECASE)
_AND_PART = re.compile(r" and (?:a |one )?(half|quarter)\b", re.IGNORECASE)
_SPOKEN_SIGN = re.compile(r"^(minus|negative|plus) (?=[0-9.])", re.IGNORECASE)
_PERCENT = {"%", "percent", "per cent", "pct", "percentage"}
_ORDINAL = re.compile(r"([0-9]+)(?:st|nd|rd|th|\^\{?(?:st|nd|rd|th)\}?)", re.IGNORECASE)
_TWICE = re.compile(r"([^()]{1,60}) \(([^()]{1,60})\)")
_ABSTRACT = re.compile(r"(?:(?:square|sq\.?|cubic) )?units?(?![^\W_])(?: ?\^ ?\{?[23]\}?)?(?= |$)")  # of area or volume
# 37°30' and 5'6", in units that a sum of units is read of.
_SEXAGESIMAL = (
    (
        re.compile(r"(-?[0-9]+) ?° ?([0-9]+) ?\^?\{?(?:'|\\prime)\}?(?: ?([0-9]+(?:\.[0-9]+)?) ?(?:\"|''))?"),
        ("°", "arcmin", "arcsec"),
    ),
    (re.compile(r"([0-9]+) ?' ?([0-9]+) ?(?:\"|'')"), ("ft", "in")),
)
_PIECES = re.compile(r"(?:,? +and +|, +| +)(?=[0-9])|(?<=[a-zA-Z])(?=[0-9])")
# After a number these calculate, compare or offer a choice; what follows is no noun.
_NO_NOUNS = frozenset(
    "plus minus times divided multiplied over squared cubed factorial root mod modulo not no never or than less more "
    "fewer versus vs if to power sin cos tan cot sec csc log ln exp sqrt pi inf lim max min alpha beta gamma theta "
    "e i x y z n k half halves thirds wrong incorrect".split()
)
_FILLERS = frozenset(
    "in total altogether overall left remaining long wide tall high deep away old of the a an only all each visible "
    "there are is here".split()
)
_SHORT_NOUNS = frozenset({"ox", "pc", "tv"})
_GENERIC = frozenset("object item thing piece element unit one pc 个 只 件".split())
_IRREGULAR = {"people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse",
              "geese": "goose", "teeth": "tooth", "dice": "die", "leaves": "leaf", "knives": "knife",
              "halves": "half", "feet": "foot", "wolves": "wolf", "shelves": "shelf", "loaves": "loaf"}  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """A number and what it is a number of.

    Attributes:
        unit: of measure or money; None where there is none that is known.
        noun: the words that follow the number instead, each in lower case and in the singular.
        doubtful: the unit is one letter beside the digits, which may be a variable: 2t.
        ordinal: a place in an order: 2nd.
    """

    number: Number
    unit: Unit | None = None
    noun: tuple[str, ...] = ()
    doubtful: bool = False
    ordinal: bool = False


@dataclass(frozen=True)
class _Tail:
    """What may follow a number."""

    unit: Unit | None = None
    noun: tuple[str, ...] = ()
    percent: bool = False
    doubtful: bool = False


def read_quantity(text: str) -> Quantity | None:
    """Read a text that is a number, in digits or in words, with a unit, a currency or a noun; None for all other text.

    Args:
        text: as `canonical` returns it.
    """
    ordinal = _ORDINAL.fullmatch(text)
    place = int(ordinal[1]) if ordinal else read_ordinal(text)
    if place is not None:
        return Quantity(Number(Fraction(place)), ordinal=True)
    return _with_currency(text) or _in_digits(text) or _in_words(text) or _sum_of_units(text) or _twice(text)


def is_decimal_comma(text: str) -> bool:
    """Return whether a text is digits, a comma and digits: a decimal or a list of two."""
    found = match_number(text)
    return found is not None and found.decimal_comma and found.end == len(text)


def same_quantity(one: Quantity, other: Quantity) -> bool | None:
    """Return whether two quantities are the same; None where nobody can say."""
    if not (_has_kind(one) and _has_kind(other)):
        same = same_number(one.number, other.number)
        return None if same and one.doubtful != other.doubtful else same
    if one.ordinal != other.ordinal:
        return False
    if one.unit and other.unit:
        return _same_measure(one, other, one.unit, other.unit)
    if one.unit or other.unit or one.number.percent != other.number.percent:
        return False  # 5 km and 5 apples, 5% and 5 km
    if not same_number(one.number, other.number):
        return False
    few, many = sorted((set(one.noun), set(other.noun)), key=len)
    if ("and" in few) != ("and" in many):
        return None  # cats, and dogs and cats
    return True if few <= many or few <= _GENERIC or many <= _GENERIC else None


def whole_count(quantity: Quantity) -> int | None:
    """Return how many things a quantity counts; None where it is no whole number from 0 on."""
    number = quantity.number
    if number.percent or number.huge or number.value.denominator != 1 or number.value < 0:
        return None
    return int(number.value)


def read_tail(rest: str) -> tuple[Unit | None, tuple[str, ...]] | None:
    """Read a unit or a noun that stands after an expression and a space; None where it is neither."""
    tail = _tail(" " + rest)
    return None if tail is None or tail.percent else (tail.unit, tail.noun)


def singular(word: str) -> str:
    """Return an English noun's singular, near enough to compare nouns by."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("xes", "ches", "shes", "sses", "zes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _has_kind(quantity: Quantity) -> bool:
    return bool(quantity.unit or quantity.noun or quantity.number.percent or quantity.ordinal)


def _same_measure(one: Quantity, other: Quantity, a: Unit, b: Unit) -> bool | None:
    if a.currencies and b.currencies:
        if not a.currencies & b.currencies:
            return False
        factors = [unit.factor if unit.dimensions == (("money", 1),) else Fraction(1) for unit in (a, b)]
        return _same_scaled(one.number, other.number, factors[0], factors[1])
    if a == b:
        return same_number(one.number, other.number)
    if a.dimensions == b.dimensions:
        return _same_scaled(one.number, other.number, a.factor, b.factor, a.zero, b.zero)
    kinds = {a.dimensions, b.dimensions}
    if kinds == {_DEGREE, (("temperature", 1),)}:  # 25° may be a temperature
        return same_number(one.number, other.number)
    if kinds == {_DEGREE, _RADIAN}:
        return same_number(_in_degrees(one.number, a), _in_degrees(other.number, b))
    # How many days a month has, nobody can say.
    return None if kinds == {(("s", 1),), (("month", 1),)} else False


def _in_degrees(number: Number, unit: Unit) -> Number:
    degrees = number.value * (_DEGREES_OF_A_RADIAN if unit.dimensions == _RADIAN else 1)
    return replace(number, digits=degrees, percent=False, scientific=True)


def _same_scaled(
    one: Number, other: Number, a: Fraction, b: Fraction, zero_a: Fraction = Fraction(0), zero_b: Fraction = Fraction(0)
) -> bool:
    if one.huge or other.huge:
        return one.huge == other.huge and a == b
    scale = min(a, b)  # compared in the smaller of both units
    return close((one.value * a + zero_a) / scale, (other.value * b + zero_b) / scale, one, other)


def _with_currency(text: str) -> Quantity | None:
    """Read an amount with its currency before it: $5, -$5, USD 5, $5 million, $5 each."""
    sign = text[0] if text[:1] in ("-", "+") else ""
    body = text[len(sign) :].lstrip()
    for symbol in _SIGNS:
        if body.startswith(symbol) and not (symbol.isalpha() and body[len(symbol) :][:1].isalpha()):
            found = _in_digits(sign + body[len(symbol) :].strip(), money=True)
            if found is None or found.unit and not found.unit.currencies:
                return None
            return replace(found, unit=read_unit(symbol), noun=())
    return None


def _in_digits(text: str, money: bool = False) -> Quantity | None:
    text = _SPOKEN_SIGN.sub(lambda match: "" if match[1].casefold() == "plus" else "-", text)
    if text.startswith("%") and text[1:].strip()[:1].isdigit():
        text = text[1:].strip() + "%"
    found = match_number(text)
    if found is None:
        return None
    number, rest = found.number, text[found.end :]
    part = _AND_PART.match(rest)
    if part and not number.huge:
        added = Fraction(1, 2 if part[1].casefold() == "half" else 4)
        number, rest = replace(number, digits=number.digits + added), rest[part.end() :]
    number, rest, scaled = _scaled(number, rest)
    if money and not scaled and rest in ("k", "K", "M", "m", "bn", "B"):
        power = {"k": 3, "m": 6, "b": 9}[rest[0].casefold()]
        number, rest = replace(number, digits=number.digits * 10**power), ""
    tail = _tail(rest)
    if tail is None or found.decimal_comma and not (rest.strip() or money):
        return None
    return _quantity(number, tail)


def _in_words(text: str) -> Quantity | None:
    found = match_number_words(text)
    if found is None:
        return None
    tail = _tail(" " + found.rest if found.rest else "")
    return None if tail is None else _quantity(Number(found.value), tail)


def _twice(text: str) -> Quantity | None:
    """Read a number in digits and in words: 6 (six)."""
    match = _TWICE.fullmatch(text)
    both = [read_quantity(part) for part in match.groups()] if match else [None]
    return None if None in both or not same_number(both[0].number, both[1].number) else both[0]


def _scaled(number: Number, rest: str) -> tuple[Number, str, bool]:
    match = _SCALE.match(rest)
    if match is None or number.huge:
        return number, rest, False
    scale = _SCALES[(match[1] or match[2]).casefold()]
    return replace(number, digits=number.digits * scale), rest[match.end() :], True


def _quantity(number: Number, tail: _Tail) -> Quantity:
    return Quantity(as_percent(number) if tail.percent else number, tail.unit, tail.noun, tail.doubtful)


def _sum_of_units(text: str) -> Quantity | None:
    """Read one quantity in several units, the larger before the smaller: 1 h 30 min, 5 ft 3 in."""
    for pattern, units in _SEXAGESIMAL:
        match = pattern.fullmatch(text)
        if match:
            text = " ".join(f"{part} {unit}" for part, unit in zip(match.groups(), units, strict=True) if part)
    pieces = _PIECES.split(text)
    if not 2 <= len(pieces) <= 4:
        return None
    found = [_in_digits(piece) or _with_currency(piece) for piece in pieces]
    parts = [(each.number, each.unit) for each in found if each and each.unit and not each.number.huge]
    if len(parts) != len(pieces):
        return None
    kinds = {(unit.dimensions, unit.zero) for _, unit in parts}
    factors = [unit.factor for _, unit in parts]
    if len(kinds) != 1 or factors != sorted(set(factors), reverse=True):
        return None
    last = parts[-1][1]
    total = sum(number.value * unit.factor for number, unit in parts) / last.factor
    return Quantity(Number(total, rounded=any(number.rounded for number, _ in parts)), last)


def _tail(rest: str) -> _Tail | None:
    """Read what follows a number; None where it makes the number part of something else."""
    attached, rest = bool(rest) and not rest[0].isspace(), rest.strip()
    if not rest:
        return _Tail()
    if rest.casefold() in _PERCENT:
        return _Tail(percent=True)
    if rest.startswith("(") and rest.endswith(")"):
        rest, attached = rest[1:-1].strip(), False
    rest = _ABSTRACT.sub("", re.sub(r"\((?:s|es)\)", "", rest)).strip()
    if not rest:
        return _Tail()
    if not (rest.isalpha() and _is_variable(rest, attached)):
        unit = read_unit(rest) or read_unit(" ".join(word for word in rest.split() if word not in _FILLERS))
        if unit:
            return _Tail(unit, doubtful=attached and len(rest) == 1 and rest in "shdtlTBAK")
    noun = _noun(rest, attached)
    return None if noun is None else _Tail(noun=noun)


def _is_variable(rest: str, attached: bool) -> bool:
    """Return whether a single letter after a number is a variable rather than a unit: 3x, 3d."""
    return len(rest) == 1 and rest.isascii() and (attached and rest == "d" or not is_unit_symbol(rest))


def _noun(rest: str, attached: bool) -> tuple[str, ...] | None:
    plain = unicodedata.normalize("NFKC", rest).casefold().replace("-", " ").replace("'", "")
    tokens = plain.split()
    if tokens == ["times"]:
        return ("time",)
    if not tokens or not all(is_letter(character) for token in tokens for character in token):
        return None
    if any(token in _NO_NOUNS or is_number_word(token) for token in tokens):
        return None
    if any(first == "and" and second in ("a", "an") for first, second in zip(tokens, tokens[1:], strict=False)):
        return None
    first = tokens[0]
    greek = ["GREEK" in unicodedata.name(character, "") for character in first]
    if greek[0] or any(greek) and not all(greek) or first in ("and", "of") and len(tokens) == 1:
        return None
    if first.isascii() and len(first) < 3 and (attached or first not in _SHORT_NOUNS | _FILLERS):
        return None  # 3xy
    return tuple(singular(token) for token in tokens if token not in _FILLERS)
