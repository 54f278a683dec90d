"""Fold the many ways to write one character into one: digits of any script, signs, fractions, superscripts.

The result is what a keyboard and LaTeX can write: `２½` becomes `2\\frac{1}{2}`, `x²` becomes `x^{2}`.
"""

import re
import unicodedata

# Characters that NFKC leaves alone or would spoil, by what they mean.
SYMBOLS = {
    "\N{MULTIPLICATION SIGN}": r"\times ",
    "\N{VECTOR OR CROSS PRODUCT}": r"\times ",
    "\N{DIVISION SIGN}": r"\div ",
    "\N{MIDDLE DOT}": r"\cdot ",
    "\N{DOT OPERATOR}": r"\cdot ",
    "\N{BULLET OPERATOR}": r"\cdot ",
    "\N{ASTERISK OPERATOR}": "*",
    "\N{FRACTION SLASH}": "/",
    "\N{DIVISION SLASH}": "/",
    "\N{RATIO}": ":",
    "\N{LESS-THAN OR EQUAL TO}": r"\leq ",
    "\N{LESS-THAN OR SLANTED EQUAL TO}": r"\leq ",
    "\N{GREATER-THAN OR EQUAL TO}": r"\geq ",
    "\N{GREATER-THAN OR SLANTED EQUAL TO}": r"\geq ",
    "\N{NOT EQUAL TO}": r"\neq ",
    "\N{ALMOST EQUAL TO}": r"\approx ",
    "\N{PLUS-MINUS SIGN}": r"\pm ",
    "\N{INFINITY}": r"\infty ",
    "\N{UNION}": r"\cup ",
    "\N{INTERSECTION}": r"\cap ",
    "\N{ELEMENT OF}": r"\in ",
    "\N{EMPTY SET}": r"\emptyset ",
    "\N{ANGLE}": r"\angle ",
    "\N{WHITE UP-POINTING TRIANGLE}": r"\triangle ",
    "\N{UP TACK}": r"\perp ",
    "\N{PERPENDICULAR}": r"\perp ",
    "\N{ALL EQUAL TO}": r"\cong ",
    "\N{REVERSED TILDE}": r"\sim ",
    "\N{DOUBLE SOLIDUS OPERATOR}": r"\parallel ",
    "\N{APPROXIMATELY EQUAL TO}": r"\cong ",
    "\N{TILDE OPERATOR}": r"\sim ",
    "\N{PARALLEL TO}": r"\parallel ",
    "\N{DOUBLE-STRUCK CAPITAL R}": r"\mathbb{R}",
    "\N{DOUBLE-STRUCK CAPITAL Z}": r"\mathbb{Z}",
    "\N{DOUBLE-STRUCK CAPITAL N}": r"\mathbb{N}",
    "\N{DOUBLE-STRUCK CAPITAL Q}": r"\mathbb{Q}",
    "\N{DOUBLE-STRUCK CAPITAL C}": r"\mathbb{C}",
    "\N{RING ABOVE}": "\N{DEGREE SIGN}",
    "\N{RING OPERATOR}": "\N{DEGREE SIGN}",
    "\N{ARABIC DECIMAL SEPARATOR}": ".",
    "\N{ARABIC THOUSANDS SEPARATOR}": ",",
    "\N{ARABIC PERCENT SIGN}": "%",
    "\N{ARABIC COMMA}": ",",
    "\N{IDEOGRAPHIC FULL STOP}": ".",
    "\N{HALFWIDTH IDEOGRAPHIC FULL STOP}": ".",
    "\N{DEVANAGARI DANDA}": ".",
    "\N{IDEOGRAPHIC COMMA}": ", ",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{MODIFIER LETTER APOSTROPHE}": "'",
    "\N{PRIME}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{DOUBLE LOW-9 QUOTATION MARK}": '"',
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
    "\N{LEFT CORNER BRACKET}": '"',
    "\N{RIGHT CORNER BRACKET}": '"',
    "\N{LEFT BLACK LENTICULAR BRACKET}": "(",
    "\N{RIGHT BLACK LENTICULAR BRACKET}": ")",
    "\N{MATHEMATICAL LEFT ANGLE BRACKET}": r"\langle ",
    "\N{MATHEMATICAL RIGHT ANGLE BRACKET}": r"\rangle ",
    "\N{BULLET}": "*",
}
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2796\ufe58\ufe63\uff0d"
# An en dash or a longer one between two numbers is a range more often than a minus sign.
RANGE_DASHES = "\u2012\u2013\u2014\u2015"

_FEMININE, _MASCULINE, _TRADE_MARKS = "\u00aa", "\u00ba", "\u2122\u2120"
_ORDINAL_DEGREE = re.compile(rf"(?<=[0-9]) ?{_MASCULINE}")
_CIRCLED = re.compile("[\u2460-\u2473](?=[\u2460-\u2473])")  # several statements, each by its number
_ROOT = re.compile(
    r"(?P<index>\\sqrt\[[0-9n]+\])?(?P<root>[\u221a\u221b\u221c]) ?"
    r"(?P<over>\(|\{|[0-9]+(?:\.[0-9]+)?|\\?[^\W\d_]+)?"
)
_INDEXED_ROOT = re.compile(r"(?P<index>[\u00b2\u00b3\u2070-\u2079\u207f]+)\u221a")


def fold_characters(text: str) -> str:
    """Return the text in one line of keyboard characters and LaTeX; letters of other scripts stay."""
    text = _ORDINAL_DEGREE.sub("\N{DEGREE SIGN}", text)
    text = _CIRCLED.sub(r"\g<0>, ", text)
    text = _INDEXED_ROOT.sub(lambda match: f"\\sqrt[{unicodedata.normalize('NFKC', match['index'])}]\u221a", text)
    parts: list[str] = []
    script = ""  # of the run of superscripts or subscripts that is open
    for character in text:
        kind = _script(character)
        if kind != script:
            parts.append("}" * bool(script) + (kind + "{") * bool(kind))
            script = kind
        parts.append(_folded(character))
    parts.append("}" * bool(script))
    folded = unicodedata.normalize("NFKC", "".join(parts))
    return " ".join(_with_roots(folded).split())


def is_letter(character: str) -> bool:
    """Return whether a character is a letter of any script, or a mark that belongs to one."""
    return unicodedata.category(character)[0] in "LM"


def _script(character: str) -> str:
    if character in _TRADE_MARKS or character in (_FEMININE, _MASCULINE):
        return ""
    decomposition = unicodedata.decomposition(character)
    return "^" if decomposition.startswith("<super>") else "_" if decomposition.startswith("<sub>") else ""


def _folded(character: str) -> str:
    if character.isascii():
        return character
    if character in SYMBOLS:
        return SYMBOLS[character]
    if character in DASHES:
        return "-"
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Cf":  # joins letters or turns the direction of writing; nothing that is seen
        return ""
    plain = unicodedata.normalize("NFKC", character)
    if category == "No" and "\N{FRACTION SLASH}" in plain:
        top, _, bottom = plain.partition("\N{FRACTION SLASH}")
        return rf"\frac{{{top}}}{{{bottom}}}" if bottom else top + "/"
    return "-" if plain == "\N{MINUS SIGN}" else plain


def _with_roots(text: str) -> str:
    """Write root signs as LaTeX: a root reaches over one number, one letter, or what brackets hold."""
    for _ in range(text.count("\u221a") + text.count("\u221b") + text.count("\u221c")):
        match = _ROOT.search(text)
        if match is None:
            break
        command = match["index"] or r"\sqrt" + {"\u221a": "", "\u221b": "[3]", "\u221c": "[4]"}[match["root"]]
        start, end, over = match.start(), match.end(), match["over"] or ""
        if over in ("(", "{"):
            close = matching_bracket(text, end - 1)
            body, end = (text[end:close], close + 1) if close else (text[end:], len(text))
        elif over[:1].isdigit() or over.startswith("\\"):
            body = over
        else:
            body, end = over[:1], end - max(len(over) - 1, 0)
        text = f"{text[:start]}{command}{{{body}}}{text[end:]}"
    return text


def matching_bracket(text: str, start: int) -> int | None:
    """Return where the bracket that opens at `start` closes; None where it does not."""
    opening = text[start]
    closing, depth = {"(": ")", "{": "}", "[": "]"}[opening], 0
    for index in range(start, len(text)):
        depth += (text[index] == opening) - (text[index] == closing)
        if depth == 0:
            return index
    return None
