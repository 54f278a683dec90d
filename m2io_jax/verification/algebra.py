"""Compare expressions of SymPy. Loaded by workers alone, for SymPy takes seconds to load and may compute for ever.

math-verify compares numbers to an absolute precision, in which all small numbers are equal. Here numbers are compared
exactly, or relatively where one has a decimal point; math-verify compares relations, sets and expressions with symbols,
each with its decimals made exact.
"""

from typing import Any

from sympy import Basic, Expr, Float, I, Interval, MatrixBase, Rational, Symbol, Tuple, nan, oo, zoo
from sympy import FiniteSet as SympyFiniteSet

DIGITS = 150  # in which two exact numbers are compared
SAME = Rational(1, 10**100)  # relative difference up to which they are equal
ROUNDED = Rational(1, 10**6)  # half a unit of the sixth significant digit, at most
IMAGINARY = Symbol("i", real=False)  # as math-verify reads it
PROBES = (Rational(7, 3), Rational(31, 17))  # values of symbols at which equal expressions must agree

Expression = Basic | MatrixBase


def same_expression(gold: Expression, said: Expression) -> bool:
    """Return whether two expressions are equal.

    Raises:
        Exception: whatever SymPy or math-verify raises.
    """
    gold, said = _with_imaginary_unit(gold), _with_imaginary_unit(said)
    if _is_number(gold) and _is_number(said):
        return same_value(gold, said)
    if isinstance(gold, MatrixBase) and isinstance(said, MatrixBase):
        pairs = zip(gold.flat(), said.flat(), strict=False)
        return gold.shape == said.shape and all(same_expression(*pair) for pair in pairs)
    if isinstance(gold, Tuple) and isinstance(said, Tuple):
        return len(gold) == len(said) and all(map(same_expression, gold, said))
    if isinstance(gold, Interval) and isinstance(said, Interval):
        ends = gold.left_open == said.left_open and gold.right_open == said.right_open
        return ends and same_expression(gold.start, said.start) and same_expression(gold.end, said.end)
    if isinstance(gold, SympyFiniteSet) and isinstance(said, SympyFiniteSet):
        return _same_sets(list(gold.args), list(said.args))
    return _same_by_math_verify(gold, said)


def same_value(gold: Expr, said: Expr) -> bool:
    """Return whether two numbers are equal: exactly, or to six significant digits where one has a decimal point.

    Raises:
        ValueError: the gold one is no number, as 1/0, or has no value that can be computed.
    """
    rounded = gold.has(Float) or said.has(Float)
    one, other = _exact(gold).doit(), _exact(said).doit()
    if one.has(nan, zoo):
        raise ValueError("the gold answer is no number")
    if other.has(nan, zoo):
        return False
    if one == other:
        return True
    if one.has(oo) or other.has(oo):
        return False
    if one.is_Rational and other.is_Rational and not rounded:
        return False
    # Digits are those of the result: SymPy computes with more where terms cancel.
    scale, difference = max(_size(one), _size(other)), _size(one - other)
    if not difference:
        return True
    if not rounded:
        return bool(difference <= scale * Float(SAME, DIGITS))
    return bool(one != 0 and other != 0 and 2 * difference <= _unit(scale))


def _size(value: Expr) -> Float:
    """Return a number's absolute value; 0 where it is 0 to all digits that SymPy computes."""
    size = abs(value.evalf(DIGITS, maxn=4 * DIGITS))
    if not size.is_Float and not size.is_Integer:
        raise ValueError("a value that cannot be computed")
    return size if size.is_comparable else Float(0)


def _unit(scale: Float) -> Rational:
    """Return a unit of the sixth significant digit of a number."""
    from mpmath import floor, log10, mpf

    return Rational(10) ** (int(floor(log10(mpf(scale)))) - 5)


def _is_number(value: Any) -> bool:
    return isinstance(value, Expr) and not isinstance(value, MatrixBase) and value.is_number


def _exact(value: Expression) -> Expression:
    """Return an expression with its decimals as fractions."""
    if not isinstance(value, Basic):
        return value.applyfunc(_exact)
    exact = {number: Rational(str(number)) for number in value.atoms(Float)}
    return value.xreplace(exact)


def _with_imaginary_unit(value: Expression) -> Expression:
    if isinstance(value, MatrixBase):
        return value.applyfunc(_with_imaginary_unit)
    return value.xreplace({IMAGINARY: I}) if isinstance(value, Expr) and value.has(IMAGINARY) else value


def _same_sets(gold: list[Basic], said: list[Basic]) -> bool:
    if len(gold) != len(said):
        return False
    for one in gold:
        match = next((index for index, other in enumerate(said) if same_expression(one, other)), None)
        if match is None:
            return False
        del said[match]
    return True


def _same_by_math_verify(gold: Expression, said: Expression) -> bool:
    from math_verify import verify

    one, other = _exact(gold), _exact(said)
    ways = dict(numeric_precision=DIGITS, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    if not verify(one, other, **ways):
        return False
    if not (isinstance(one, Expr) and isinstance(other, Expr)):
        return True
    # What is small is nothing to math-verify: x/2^99 and x/2^98 differ by less than its precision.
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    values = {symbol: PROBES[index % 2] + index for index, symbol in enumerate(symbols)}
    at_one, at_other = one.subs(values), other.subs(values)
    if not (_is_number(at_one) and _is_number(at_other)) or at_one.has(nan, zoo, oo) or at_other.has(nan, zoo, oo):
        return True
    return same_value(at_one, at_other)
