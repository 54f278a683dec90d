"""Recognise mathematics, and write it as LaTeX that math-verify reads right."""

import re
from fractions import Fraction

from m2io_jax.verification.characters import matching_bracket
from m2io_jax.verification.numbers import Number

_FUNCTIONS = (
    "arcsinh arccosh arctanh arcsin arccos arctan sinh cosh tanh sin cos tan cot sec csc log ln lg exp sqrt lim max "
    "min gcd lcm mod det infinity infty inf pi alpha beta gamma delta epsilon theta lambda sigma omega phi psi rho tau"
    " mu"
).split()
_GREEK_NAMES = (
    r"\alpha \beta \gamma \delta \epsilon \zeta \eta \theta \iota \kappa \lambda \mu \nu \xi \pi \rho \sigma \tau "
    r"\upsilon \phi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Phi \Psi \Omega"
).split()
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ", _GREEK_NAMES, strict=True))
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_NAMED_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-zA-Z]+\*?\}|\\math(?:bb|cal|frak)\{[A-Za-z]+\}")
_LETTERS = re.compile(r"[a-zA-Z]+")
_LONGEST_PRODUCT = 3  # letters; longer runs are words

_PLAIN_FUNCTION = re.compile(r"(?<![a-zA-Z\\])(" + "|".join(_FUNCTIONS) + r")(?![a-zA-Z])")
_E_NOTATION = re.compile(r"(?<![a-zA-Z\\0-9.])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([+-]?[0-9]+)(?![0-9a-zA-Z.])")
_MIXED = re.compile(r"(?<![0-9.}^_])([0-9]+) ?\\frac\{([0-9]+)\}\{([0-9]+)\}")
_GROUPS = re.compile(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)°")
_FALLS = re.compile(r"(>|\\geq?(?![a-z]))")
_AT_MOST = r"\leq "
_IMAGINARY = re.compile(r"(?<=[0-9}) ])i(?![a-zA-Z])")


def is_mathematical(text: str) -> bool:
    """Return whether a text can be an expression: no letters but ASCII's, Greek ones and commands, no words."""
    if not re.search(r"[0-9a-zA-Z\\αβγδθλμπρσφω]", text):
        return False
    bare = _COMMAND.sub(" ", _NAMED_ENVIRONMENT.sub(" ", text))
    for character in _GREEK:
        bare = bare.replace(character, " ")
    if not bare.isascii() and not bare.replace("°", "").isascii():
        return False
    runs = _LETTERS.findall(_PLAIN_FUNCTION.sub(" ", bare))
    return all(len(run) <= _LONGEST_PRODUCT or _is_product_of_functions(run) for run in runs)


def has_angle_function(text: str) -> bool:
    """Return whether a text has a function of angles, so that its degrees are no unit of the whole."""
    return re.search(r"(?<![a-zA-Z])\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])", text) is not None


def greek_name(text: str) -> str | None:
    """Return the name of a Greek letter, written as itself or as a command; None for all other text."""
    command = _GREEK.get(text, text)
    return command[1:] if command in _GREEK.values() else None


def to_latex(text: str) -> str:
    """Return an expression as LaTeX: functions, powers, roots, powers of ten and mixed numbers as LaTeX has them."""
    text = _rising(text.replace("**", "^").replace(r"\bmod", r"\mod"))
    if has_angle_function(text):
        text = _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", text)
    text = text.replace("°", "")
    for character, command in _GREEK.items():
        text = text.replace(character, command + " ")
    if not re.search(r"[(\[{].*,|;", text):
        text = _GROUPS.sub(lambda match: match[0].replace(",", ""), text)
    text = _E_NOTATION.sub(r"(\1\\times 10^{\2})", text)
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    text = _PLAIN_FUNCTION.sub(_as_command, text).replace(r"\lg ", r"\log_{10} ")
    text = _with_braces(text)
    return _IMAGINARY.sub(" i ", text)


def number_latex(number: Number, factor: Fraction = Fraction(1)) -> str:
    """Return a number as LaTeX: a decimal where it was written as one, a fraction elsewhere."""
    value = number.value * factor
    if number.rounded and factor == 1:
        digits, places = value, 0
        while digits.denominator != 1 and places < 400:
            digits, places = digits * 10, places + 1
        if digits.denominator == 1:
            whole = str(abs(digits.numerator)).rjust(places + 1, "0")
            shown = f"{whole[: len(whole) - places]}.{whole[len(whole) - places :] or '0'}"
            return f"-{shown}" if value < 0 else shown
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def scaled(latex: str, factor: Fraction) -> str:
    """Return an expression times a factor."""
    return latex if factor == 1 else rf"{number_latex(Number(factor))} \cdot ({latex})"


def _is_product_of_functions(run: str) -> bool:
    """Return whether letters are functions and a symbol, as in `sinx`."""
    return any(run.startswith(name) and len(run) - len(name) <= 1 for name in _FUNCTIONS)


def _as_command(match: re.Match[str]) -> str:
    name = {"infinity": "infty", "inf": "infty", "exp": "e^", "sqrt": "sqrt"}.get(match[1], match[1])
    return "e^" if name == "e^" else f"\\{name} "


def _rising(text: str) -> str:
    """Write 3 > x > 1 as 1 < x < 3, which math-verify reads."""
    parts = _FALLS.split(text)
    if len(parts) != 5 or not all(map(str.strip, parts)) or re.search(r"[<=]|\\leq?(?![a-z])", text):
        return text
    high, one, middle, two, low = parts
    signs = {">": "<"}
    return f"{low}{signs.get(two, _AT_MOST)}{middle}{signs.get(one, _AT_MOST)}{high}"


def _with_braces(text: str) -> str:
    """Give roots and powers braces for what stands in brackets after them: sqrt(3), e^(x+1)."""
    for opening in (re.compile(r"\\sqrt *(?=\()"), re.compile(r"\^ *(?=\()")):
        position = 0
        while match := opening.search(text, position):
            start = match.end()
            close = matching_bracket(text, start)
            if close is None:
                break
            text = f"{text[: match.start()]}{match[0].rstrip()}{{{text[start + 1 : close]}}}{text[close + 1 :]}"
            position = match.start() + len(match[0].rstrip()) + 1
    return text
