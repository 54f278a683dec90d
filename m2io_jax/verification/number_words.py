"""Numbers in words: "six", "twenty-one", "two and a half", "minus three point five", and Chinese numerals."""

import re
from dataclasses import dataclass
from fractions import Fraction

_FIRST_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_ONES = {name: value for value, name in enumerate(_FIRST_TWENTY)}
_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_TENS["fourty"] = 40
_SCALES = {"thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
          "ninth": 9, "tenth": 10, "hundredth": 100}  # fmt: skip
_PARTS |= {("halves" if name == "half" else name + "s"): part for name, part in _PARTS.items()}
ORDINALS = {name: place for place, name in enumerate(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), 1)}  # fmt: skip
_SIGNS = {"minus", "negative"}
_CARDINALS = _ONES.keys() | _TENS.keys() | _SCALES.keys() | {"hundred", "dozen"}

_CHINESE_DIGITS = dict(zip("零一二三四五六七八九", range(10), strict=True)) | {"〇": 0, "两": 2, "兩": 2}
_CHINESE_SCALES = {"十": 10, "百": 100, "千": 1000}
_CHINESE_MYRIADS = {"万": 10**4, "亿": 10**8}
_MEASURE_WORDS = tuple(
    "个個只條条张張块塊本支枝把辆輛架棵朵头頭匹位名人件颗顆粒根片面盏座艘双對对次种種群串瓶杯碗盒包袋台部间間层層道家口滴"
    "扇顶幅枚株厘毫米千公里克升吨秒分小天度平立元年"
)
_CHINESE = re.compile("负?[零一二三四五六七八九〇两兩十百千万亿]+(?:点[零一二三四五六七八九〇]+)?")


@dataclass(frozen=True)
class WordedNumber:
    """A number in words at the start of a text: its value, and the rest of the text."""

    value: Fraction
    rest: str


def is_number_word(token: str) -> bool:
    """Return whether a word in lower case is part of a number."""
    return all(part in _CARDINALS for part in token.split("-")) and bool(token)


def read_ordinal(text: str) -> int | None:
    """Return the place that an ordinal in words names, first to ninety-ninth; None for all other text."""
    tens, _, ones = text.casefold().replace(" ", "-").rpartition("-")
    place = ORDINALS.get(ones)
    if not tens or place is None:
        return None if tens else place
    return _TENS[tens] + place if tens in _TENS and place < 10 else None


def match_number_words(text: str) -> WordedNumber | None:
    """Read the number in words that a text begins with; None where it begins with none."""
    if text == "半" or text.startswith("半") and text[1:].startswith(_MEASURE_WORDS):
        return WordedNumber(Fraction(1, 2), text[1:])
    chinese = _CHINESE.match(text)
    if chinese:
        return _match_chinese(chinese)
    tokens = re.findall(r"[^\s-]+", text)
    lower = [token.casefold() for token in tokens]
    sign = -1 if lower[:1] and lower[0] in _SIGNS else 1
    start = int(sign < 0)
    found = _number(lower, start)
    if found is None:
        return None
    value, end = found
    if any(is_number_word(token) for token in lower[end : end + 1]):
        return None  # "seven eleven" is a name
    return WordedNumber(sign * value, " ".join(tokens[end:]))


def _number(tokens: list[str], start: int) -> tuple[Fraction, int] | None:
    """Read a whole number, then what may follow it: `point five`, `and a half`, `quarters`."""
    if tokens[start : start + 1] in (["half"], ["quarter"]):
        return Fraction(1, _PARTS[tokens[start]]), start + 1
    if tokens[start : start + 1] in (["a"], ["an"]):
        if tokens[start + 1 : start + 2] and tokens[start + 1] in ("half", "quarter", "third"):
            return Fraction(1, _PARTS[tokens[start + 1]]), start + 2
        if tokens[start + 1 : start + 2] and tokens[start + 1] in {"hundred", "dozen", *_SCALES}:
            return _whole([*tokens[:start], "one", *tokens[start + 1 :]], start)
        return None
    whole = _whole(tokens, start)
    if whole is None:
        return None
    value, end = whole
    if tokens[end : end + 1] == ["point"]:
        digits = ""
        while end + 1 < len(tokens) and _ONES.get(tokens[end + 1], 10) < 10:
            digits, end = digits + str(_ONES[tokens[end + 1]]), end + 1
        return (value + Fraction(int(digits), 10 ** len(digits)), end + 1) if digits else None
    if tokens[end : end + 1] and tokens[end] in _PARTS:
        return value / _PARTS[tokens[end]], end + 1
    if tokens[end : end + 1] == ["and"] and end + 2 < len(tokens) and tokens[end + 2] in _PARTS:
        top = Fraction(1) if tokens[end + 1] in ("a", "an") else Fraction(_ONES.get(tokens[end + 1], 0))
        if top:
            return value + top / _PARTS[tokens[end + 2]], end + 3
    return value, end


def _whole(tokens: list[str], start: int) -> tuple[Fraction, int] | None:
    total = group = 0
    last, end = None, start  # the last kind of word: ones, tens, hundred, scale
    while end < len(tokens):
        token = tokens[end]
        joined = token == "and" and last in ("hundred", "scale") and end + 1 < len(tokens)
        if joined and tokens[end + 1] in _ONES.keys() | _TENS.keys():
            end += 1
            continue
        if token in _ONES and (last in (None, "hundred", "scale") or last == "tens" and 0 < _ONES[token] < 10):
            group, last = group + _ONES[token], "ones"
        elif token in _TENS and last in (None, "hundred", "scale"):
            group, last = group + _TENS[token], "tens"
        elif token in ("hundred", "dozen") and last in ("ones", "tens"):
            group, last = group * (100 if token == "hundred" else 12), "hundred"
        elif token in _SCALES and last in ("ones", "tens", "hundred"):
            total, group, last = total + group * _SCALES[token], 0, "scale"
        elif token == "dozen" and last is None:
            group, last = 12, "hundred"
        else:
            break
        end += 1
    return None if last is None else (Fraction(total + group), end)


def _match_chinese(match: re.Match[str]) -> WordedNumber | None:
    value, rest = _chinese(match[0]), match.string[match.end() :].strip()
    top = _CHINESE.match(rest.removeprefix("分之")) if rest.startswith("分之") else None
    if value and top:  # 三分之二 is 2/3
        above = _chinese(top[0])
        return None if above is None else WordedNumber(above / value, rest[2 + top.end() :].strip())
    if value is None or rest and not rest.startswith(_MEASURE_WORDS):
        return None  # 三角形 is a triangle
    return WordedNumber(value, rest)


def _chinese(text: str) -> Fraction | None:
    sign, text = (-1, text[1:]) if text.startswith("负") else (1, text)
    whole, _, places = text.partition("点")
    if len(whole) > 1 and all(character in _CHINESE_DIGITS for character in whole):
        value = int("".join(str(_CHINESE_DIGITS[character]) for character in whole))
    else:
        value, section, digit = 0, 0, None
        for character in whole:
            if character in _CHINESE_DIGITS:
                digit = _CHINESE_DIGITS[character]
            elif character in _CHINESE_SCALES:
                section, digit = section + (1 if digit is None else digit) * _CHINESE_SCALES[character], None
            else:
                section += digit or 0
                if not section:
                    return None
                value, section, digit = value + section * _CHINESE_MYRIADS[character], 0, None
        value += section + (digit or 0)
    fraction = Fraction(int("".join(str(_CHINESE_DIGITS[c]) for c in places)), 10 ** len(places)) if places else 0
    return sign * (Fraction(value) + fraction)
