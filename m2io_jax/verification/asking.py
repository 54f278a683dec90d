"""Compare two readings as expressions: in one unit, and in the other readings that an expression may have."""

import re
from collections.abc import Callable

from m2io_jax.verification.expressions import number_latex, scaled, to_latex
from m2io_jax.verification.quantities import Quantity
from m2io_jax.verification.readings import Reading, Words
from m2io_jax.verification.units import Unit
from m2io_jax.verification.words import Choice

Verdict = bool | None  # None where nobody can say
# Compares two expressions in LaTeX, the gold one first.
Ask = Callable[[str, str], bool]

_DEGREE, _RADIAN = (("degree", 1),), (("radian", 1),)
_IN_DEGREES = r"\frac{180}{\pi} \cdot "
_IN_RADIANS = re.compile(r"\\pi|arc(?:sin|cos|tan)|(?:sin|cos|tan) ?\^ ?\{?-1")
_EQUATION = re.compile(r"(?<![<>!])=")
_BELOW = re.compile(r"_ ?\{[^{}]*\}")  # of a sum or a limit
_SLASH = re.compile(r"(?<![0-9.}])([0-9]+) ?/ ?([0-9]+)(?= ?(?:\\pi|\\sqrt|[a-zA-Z(]))")


def ask_about(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    """Return whether two readings are equal as expressions. A unit or a noun on one side is ignored."""
    texts = [_latex(each) for each in (gold, said)]
    if None in texts:
        return None
    units = [getattr(each, "unit", None) for each in (gold, said)]
    if all(units):
        return _in_one_unit(texts, units, ask)
    if any(getattr(each, "doubtful", False) for each in (gold, said)):
        return None
    percents = [isinstance(each, Quantity) and each.number.percent for each in (gold, said)]
    degrees = [unit is not None and unit.dimensions == _DEGREE for unit in units]
    verdict = ask(*texts) or _in_another_reading(texts, percents, degrees, ask)
    if verdict and sum(_EQUATION.search(_BELOW.sub("", text)) is not None for text in texts) == 1:
        return None  # math-verify takes x + y = 5 for 5
    return verdict


def _in_one_unit(texts: list[str], units: list[Unit], ask: Ask) -> Verdict:
    kinds = {unit.dimensions for unit in units}
    if kinds == {_DEGREE, _RADIAN}:
        return ask(*(
            f"{_IN_DEGREES}({text})" if unit.dimensions == _RADIAN else text
            for text, unit in zip(texts, units, strict=True)
        ))  # fmt: skip
    if len(kinds) > 1 or units[0].currencies and not units[0].currencies & units[1].currencies:
        return False
    if units[0] != units[1] and any(unit.zero for unit in units):
        return None  # temperatures on two scales
    smaller = min(unit.factor for unit in units)
    return ask(*(scaled(text, unit.factor / smaller) for text, unit in zip(texts, units, strict=True)))


def _in_another_reading(texts: list[str], percents: list[bool], degrees: list[bool], ask: Ask) -> Verdict:
    """Compare 50% as 50, an angle in radians with one in degrees, and 1/2x as a half of x."""
    if any(percents):
        return ask(*(rf"100 \cdot ({text})" if each else text for text, each in zip(texts, percents, strict=True)))
    if any(degrees) and any(_IN_RADIANS.search(text) for text in texts):
        return ask(*(text if each else f"{_IN_DEGREES}({text})" for text, each in zip(texts, degrees, strict=True)))
    halves = [_SLASH.sub(r"\\frac{\1}{\2}", text) for text in texts]
    if halves != texts and ask(*halves):
        return None
    return False


def _latex(reading: Reading) -> str | None:
    """Return a reading as LaTeX; None for a number too large to be written out."""
    if isinstance(reading, Quantity):
        return None if reading.number.huge else number_latex(reading.number)
    if isinstance(reading, Choice):
        return reading.letter.lower()
    return to_latex(reading.folded if isinstance(reading, Words) else reading.text)
