"""Numbers in the notations that people use, held as exact fractions, and their comparison.

Read are whole numbers with thousands in any usual grouping, decimals, fractions, mixed numbers (2 1/2), powers of ten
(1.5e3, 1.5\\times 10^{3}, 10^{3}), repeating decimals (0.\\overline{3}) and a per cent sign. All values are fractions;
nothing is rounded when it is read.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

SIGNIFICANT = 6  # digits to which a rounded number must agree
PLACES = 6  # decimals to which two written decimals must agree from 1 on

LARGEST_EXPONENT = 2_000  # of ten, up to which a number is held as a fraction

_CONTINENTAL = r"[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}(?:,[0-9]+)?|[1-9][0-9]{0,2}(?:[. '][0-9]{3})+,[0-9]+"
_INDIAN = r"[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]*)?"
_SIMPLE = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_COMMA_GROUPS = re.compile(r"[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?:\.[0-9]*)?")


def _unsigned(name: str) -> str:
    """Return the pattern of a number without a sign. A comma groups thousands where it can: 1,234 is 1234."""
    first = f"(?P<{name}_mark>[, '_])"
    grouped = rf"[1-9][0-9]{{0,2}}{first}[0-9]{{3}}(?:(?P={name}_mark)[0-9]{{3}})*(?![0-9])(?:\.[0-9]*)?"
    return rf"(?:(?:{_CONTINENTAL}|{_INDIAN}|{grouped})(?![0-9])|{_SIMPLE})"


_POWER = (
    r"(?:(?P<e>[eE][+-]?[0-9]+)(?![0-9a-zA-Z])"
    r"|(?P<times> ?(?:\\times|\\cdot|\*|[xX]) ?)?\{?10\}? ?(?:\^|\*\*) ?[{(]? ?(?P<power>[+-]? ?[0-9]+)(?: ?[})])?)"
)
_NUMBER = re.compile(
    r"(?P<sign>(?:[+-] ?)?)(?P<open>\(?)(?P<inner>-?) ?(?:"
    r"(?P<mixed>[0-9]+) ?\\frac\{(?P<mixed_top>[0-9]+)\}\{(?P<mixed_bottom>[0-9]+)\}"
    r"|(?P<whole>[0-9]+) (?P<over>[0-9]+) ?/ ?(?P<under>[0-9]+)"
    rf"|\\frac\{{ ?(?P<top>-?(?:{_unsigned('top')})) ?\}}\{{ ?(?P<bottom>-?(?:{_unsigned('bottom')})) ?\}}"
    rf"|(?P<before>[0-9]*\.[0-9]*)\\(?:overline|dot|bar) ?\{{(?P<repeat>[0-9]{{1,40}})\}}"
    rf"|(?P<left>{_unsigned('left')}) ?/ ?(?P<right>{_unsigned('right')})"
    rf"|(?P<plain>{_unsigned('plain')}|[0-9]+,[0-9]+)?(?P<scientific>{_POWER})"
    rf"|(?P<only>{_unsigned('only')})(?![0-9]|,[0-9])"
    r"|(?P<decimal_comma>[0-9]+,[0-9]+)(?![0-9,]))(?P<close>\)?)"
)


@dataclass(frozen=True)
class Number:
    """A number as it was written.

    Attributes:
        digits: its value without a per cent sign.
        percent: whether it has one.
        rounded: written with a decimal point, so that its last digit may be rounded.
        scientific: written with a power of ten.
        huge: digits and power of ten of a number that is too large or too small for a fraction; None for all others.
    """

    digits: Fraction
    percent: bool = False
    rounded: bool = False
    scientific: bool = False
    huge: tuple[int, int] | None = None

    @property
    def value(self) -> Fraction:
        """The value, with a per cent sign as a hundredth."""
        return self.digits / 100 if self.percent else self.digits


@dataclass(frozen=True)
class NumberMatch:
    """A number at the start of a text: where it ends, and whether its comma could also part two numbers."""

    number: Number
    end: int
    decimal_comma: bool = False


def match_number(text: str) -> NumberMatch | None:
    """Read the longest number that the text begins with; None where there is none, or its divisor is 0."""
    match = _NUMBER.match(text)
    if match is None or bool(match["open"]) != bool(match["close"]) or match["inner"] and not match["open"]:
        return None
    number = None if match["open"] and match["decimal_comma"] else _value(match)
    if number is None:
        return None
    return NumberMatch(number, match.end(), match["decimal_comma"] is not None)


def read_number(text: str) -> Number | None:
    """Read a text that is a number and nothing else, perhaps in per cent; None for all other text.

    Args:
        text: as `canonical` returns it.
    """
    found = match_number(text)
    if found is None or found.decimal_comma:
        return None
    rest = text[found.end :].strip()
    if rest == "%":
        return as_percent(found.number)
    return None if rest else found.number


def as_percent(number: Number) -> Number:
    """Return the number with a per cent sign."""
    return Number(number.digits, True, number.rounded, number.scientific, number.huge)


def same_number(one: Number, other: Number) -> bool:
    """Return whether two numbers are equal: exactly, or as closely as `close` says where one of them is rounded.

    A per cent sign that only one of them has may stand for a hundredth or be a mere unit: 50% is 1/2 and is 50.
    """
    if one.huge or other.huge:
        return one.huge == other.huge and one.percent == other.percent
    if one.percent != other.percent and close(one.digits, other.digits, one, other):
        return True
    return close(one.value, other.value, one, other)


def close(a: Fraction, b: Fraction, one: Number, other: Number) -> bool:
    """Return whether the values of two written numbers are the same.

    Numbers without a decimal point are exact, and 0 is. Others agree to half a unit of the sixth significant digit;
    two decimals that are written out, from 1 on, to half a unit of the sixth decimal, for both may be exact.
    """
    if a == b:
        return True
    if not (one.rounded or other.rounded) or not a or not b or (a < 0) != (b < 0):
        return False
    size = max(abs(a), abs(b))
    unit = Fraction(10) ** (_magnitude(size) - SIGNIFICANT + 1)
    written_out = not (one.scientific or other.scientific) and _ends(a) and _ends(b)
    if size >= 1 and written_out:
        unit = Fraction(1, 10**PLACES)
    return 2 * abs(a - b) <= unit


def _magnitude(value: Fraction) -> int:
    """Return the power of ten of the first digit: 0 for 1 to 9, -1 for 0.1."""
    estimate = len(str(value.numerator)) - len(str(value.denominator))
    return estimate if value >= Fraction(10) ** estimate else estimate - 1


def _ends(value: Fraction) -> bool:
    """Return whether a value's decimals come to an end."""
    rest = value.denominator
    twos = (rest & -rest).bit_length() - 1
    rest >>= twos
    while rest % 5 == 0:
        rest //= 5
    return rest == 1


def _value(match: re.Match[str]) -> Number | None:
    negative = match["sign"].startswith("-") != bool(match["inner"])
    if match["scientific"]:
        return _scientific(match, negative)
    if match["mixed"] or match["whole"]:
        whole, top = match["mixed"] or match["whole"], match["mixed_top"] or match["over"]
        divisor = int(match["mixed_bottom"] or match["under"])
        if not divisor:
            return None
        found = Number(int(whole) + Fraction(int(top), divisor))
    elif match["repeat"]:
        found = _repeating(match["before"], match["repeat"])
    elif match["decimal_comma"]:
        written = match["decimal_comma"].replace(",", ".")
        found = Number(_fraction(written), rounded=True)
    elif match["only"]:
        found = Number(_fraction(match["only"]), rounded=_has_point(match["only"]))
    else:
        top, bottom = match["top"] or match["left"], match["bottom"] or match["right"]
        divisor = _fraction(bottom)
        if not divisor:
            return None
        found = Number(_fraction(top) / divisor, rounded=_has_point(top) or _has_point(bottom))
    return Number(-found.digits, rounded=found.rounded) if negative else found


def _scientific(match: re.Match[str], negative: bool) -> Number | None:
    written, sign = match["plain"], -1 if negative else 1
    if match["e"]:
        if not written:
            return None
        exponent_digits = match["e"][1:]
    else:
        if bool(written) != bool(match["times"]):
            return None  # 3 10^2, or a mere sign of multiplication
        exponent_digits = match["power"].replace(" ", "")
    digits, exponent = _plain_digits(written or "1"), int(exponent_digits)
    if abs(exponent) <= LARGEST_EXPONENT:
        value = _fraction(digits) * Fraction(10) ** exponent
        return Number(sign * value, rounded="." in digits, scientific=True)
    whole, _, places = digits.partition(".")
    mantissa, power = sign * int(whole + places), exponent - len(places)
    while mantissa and mantissa % 10 == 0:
        mantissa, power = mantissa // 10, power + 1
    return Number(Fraction(0), scientific=True, huge=(mantissa, power) if mantissa else None)


def _repeating(before: str, repeat: str) -> Number:
    whole, _, places = before.partition(".")
    shift = 10 ** len(places)
    period = Fraction(int(repeat), (10 ** len(repeat) - 1) * shift)
    return Number(Fraction(int(whole or "0")) + Fraction(int(places or "0"), shift) + period)


def _has_point(digits: str) -> bool:
    """Return whether a written number has a decimal point or comma: in 1.234.567 and 1,234 there is none."""
    return "." in _plain_digits(digits)


def _fraction(digits: str) -> Fraction:
    plain = _plain_digits(digits.lstrip("-"))
    value = Fraction(f"0{plain}0" if "." in plain else plain)
    return -value if digits.startswith("-") else value


def _plain_digits(digits: str) -> str:
    """Return a written number with a decimal point at most, and no other mark."""
    digits = re.sub(r"[ '_]", "", digits)
    if digits.count(".") > 1 or "," in digits and "." in digits.partition(",")[0]:
        return digits.replace(".", "").replace(",", ".")  # 1.234.567,8
    if "," in digits and not _COMMA_GROUPS.fullmatch(digits.lstrip("-")):
        return digits.replace(",", ".")  # a decimal comma: 3,14
    return digits.replace(",", "")
