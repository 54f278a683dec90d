"""Answers that are told apart without a library: numbers, exactly, and words."""

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 500  # characters; what is longer is no answer
PLACES = 6  # decimals are compared to so many places, as math-verify compares them

WRAPPINGS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"))

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?:(?P<whole>{_UNSIGNED})(?: ?/ ?(?P<part>{_UNSIGNED}))?"
    rf"|\\[dt]?frac\{{(?P<top>{_UNSIGNED})\}}\{{(?P<bottom>{_UNSIGNED})\}})"
    r" ?(?P<percent>\\?%)?(?:°|\^\\circ|\^\{\\circ\}|\\degree)?"
)
_WORDS = re.compile(r"[^\W\d_]{3,}(?: [^\W\d_]+)*|[A-Z]")
_CHOICE = re.compile(r"\(([A-Z])\)|([A-Z])[).:]")


@dataclass(frozen=True)
class Number:
    """A number as it was written.

    Attributes:
        digits: its value without a per cent sign.
        percent: whether it has one.
        rounded: written with a decimal point, so that its last place may be rounded.
    """

    digits: Fraction
    percent: bool = False
    rounded: bool = False

    @property
    def value(self) -> Fraction:
        return self.digits / 100 if self.percent else self.digits


def bare(answer: str) -> str:
    """An answer in one line, without what stands around it: dollar signs, a box, a full stop.

    Empty where it is longer than `LONGEST`.
    """
    if len(answer) > LONGEST:
        return ""
    text, inner = "", " ".join(answer.replace("\N{MINUS SIGN}", "-").split())
    while inner != text:
        text, inner = inner, _unwrapped(inner)
    choice = _CHOICE.fullmatch(text)
    return choice[1] or choice[2] if choice else text


def read_number(text: str) -> Number | None:
    """A whole number, a decimal, a fraction or a percentage, in degrees or without a unit; None for all else.

    Args:
        text: as `bare` returns it.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    top, bottom = match["whole"] or match["top"], match["part"] or match["bottom"] or "1"
    divisor = _fraction(bottom)
    if not divisor:
        return None
    sign = -1 if match["sign"] == "-" else 1
    return Number(sign * _fraction(top) / divisor, match["percent"] is not None, "." in top + bottom)


def same_number(one: Number, other: Number) -> bool:
    """Whether two numbers are equal: exactly, or to `PLACES` places where one of them is a decimal.

    A per cent sign that only one of them has may stand for a hundredth or be a mere unit: 50% is 1/2 and is 50.
    """
    if one.percent != other.percent and _close(one.digits, other.digits, one, other):
        return True
    return _close(one.value, other.value, one, other)


def is_words(text: str) -> bool:
    """Whether an answer is a word or words, or the letter of a choice, which is no expression to calculate with."""
    return _WORDS.fullmatch(text) is not None


def _close(a: Fraction, b: Fraction, one: Number, other: Number) -> bool:
    return a == b or ((one.rounded or other.rounded) and round(a, PLACES) == round(b, PLACES))


def _fraction(digits: str) -> Fraction:
    whole = digits.replace(",", "")
    return Fraction(f"0{whole}0" if "." in whole else whole)


def _unwrapped(text: str) -> str:
    text = text.removesuffix(".").strip()
    for opening, closing in WRAPPINGS:
        body = text[len(opening) : len(text) - len(closing)]
        if body and text == opening + body + closing and _alone(body, opening):
            return body.strip()
    return text


def _alone(body: str, opening: str) -> bool:
    """Whether the marks around `body` belong to each other: `$1$ or $2$` has two pairs."""
    if opening == r"\boxed{":
        depth = 0
        for character in body:
            depth += (character == "{") - (character == "}")
            if depth < 0:
                return False
        return depth == 0
    return opening[-1] not in body if opening[0] == "$" else opening not in body
