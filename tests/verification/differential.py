"""Pairs of answers whose verdict is known by construction: exact values, written in many notations and wrappers."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

UNITS = {  # kind: names of each unit with its size
    "length": {Fraction(1): ("m", "metres", "meters"), Fraction(1000): ("km", "kilometres"),
               Fraction(1, 100): ("cm", r"\text{ cm}", "centimeters"), Fraction(1, 1000): ("mm",)},
    "mass": {Fraction(1): ("g", "grams"), Fraction(1000): ("kg", "kilograms"), Fraction(1, 1000): ("mg",)},
    "time": {Fraction(1): ("s", "seconds"), Fraction(60): ("min", "minutes"), Fraction(3600): ("h", "hours")},
    "area": {Fraction(1): ("m^2", "m²", "square metres"), Fraction(1, 10_000): ("cm^2", "cm²", "square centimeters")},
    "volume": {Fraction(1): ("L", "litres", "dm^3"), Fraction(1, 1000): ("mL", "ml", "cm³")},
    "speed": {Fraction(1): ("m/s", r"\text{m/s}"), Fraction(5, 18): ("km/h", "km per hour")},
}  # fmt: skip
NOUNS = ("objects", "cubes", "blue cubes", "people", "trees", "右", "яблок")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
DIGITS = ("0123456789", "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "০১২৩৪৫৬৭৮৯")
ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen").split()  # fmt: skip
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()


@dataclass(frozen=True)
class Pair:
    gold: str
    said: str
    equal: bool


def pairs(seed: int) -> Iterator[Pair]:
    """Yield pairs without end, about half of them equal."""
    draw = random.Random(seed)
    while True:
        yield draw.choice((_numbers, _numbers, _numbers, _measures, _lists, _choices, _nouns))(draw)


def _value(draw: random.Random) -> Fraction:
    kind = draw.randrange(6)
    if kind == 0:
        return Fraction(draw.randint(-30, 30))
    if kind == 1:
        return Fraction(draw.randint(-(10**9), 10**9))
    if kind == 2:
        return Fraction(draw.randint(-99_999, 99_999), 10 ** draw.randint(1, 5))
    if kind == 3:
        return Fraction(draw.randint(-60, 60), draw.randint(2, 30))
    if kind == 4:
        return Fraction(draw.randint(1, 999)) * Fraction(10) ** draw.randint(-40, -6)
    return Fraction(draw.randint(1, 9_999)) * Fraction(10) ** draw.randint(6, 30)


def _other(draw: random.Random, value: Fraction) -> Fraction:
    """Return a value that is another one by more than a rounding."""
    changes = (
        lambda: -value,
        lambda: value * 10,
        lambda: value / 10,
        lambda: value * Fraction(draw.choice((2, 3, 7))),
        lambda: value + draw.choice((-1, 1)) * max(abs(value), Fraction(1)) * Fraction(1, 1000),
        lambda: 1 / value if value else value + 1,
        lambda: value + 1,
        lambda: _value(draw),
    )
    while True:
        found = draw.choice(changes)()
        if found != value and abs(found - value) > Fraction(1, 10_000) * max(abs(value), abs(found)):
            return found


def _numbers(draw: random.Random) -> Pair:
    value = _value(draw)
    equal = draw.random() < 0.5
    said = value if equal else _other(draw, value)
    return Pair(_wrapped(draw, _written(draw, value)), _wrapped(draw, _written(draw, said)), equal)


def _measures(draw: random.Random) -> Pair:
    kind = draw.choice(list(UNITS))
    (size, names), (other_size, other_names) = draw.choices(list(UNITS[kind].items()), k=2)
    value = abs(_value(draw)) or Fraction(7)
    equal = draw.random() < 0.5
    said = value * size / other_size
    if not equal:
        said = _other(draw, said)
        if draw.random() < 0.5 and size != other_size:
            said = value  # the number alone is the same
    name, other_name = draw.choice(names), draw.choice(other_names)
    if not equal and draw.random() < 0.3:
        wrong_kind = draw.choice([other for other in UNITS if other != kind])
        other_name = draw.choice(draw.choice(list(UNITS[wrong_kind].values())))
        said = value
    bare = equal and size == other_size and draw.random() < 0.3
    gold = _with_unit(draw, value, name)
    return Pair(gold, _written(draw, said) if bare else _with_unit(draw, said, other_name), equal)


def _with_unit(draw: random.Random, value: Fraction, name: str) -> str:
    return _written(draw, value) + ("" if name.startswith("\\text{ ") else " ") + name


def _lists(draw: random.Random) -> Pair:
    values = [Fraction(draw.randint(-50, 50), draw.choice((1, 1, 2, 4, 5))) for _ in range(draw.randint(2, 4))]
    ordered = draw.random() < 0.5
    said = list(values)
    equal = draw.random() < 0.5
    if equal and not ordered:
        draw.shuffle(said)
    if not equal:
        index = draw.randrange(len(said))
        if draw.random() < 0.3:
            del said[index]
        else:
            said[index] = _other(draw, said[index])
    if len(said) < 2 or sorted(said) == sorted(values) and not equal:
        return _lists(draw)
    shapes = (("(", ")"),) if ordered else (("", ""), (r"\{", r"\}"), ("", ""))
    texts = []
    for each in (values, said):
        opening, closing = draw.choice(shapes)
        joint = draw.choice((", ", "; ", " and ") if not opening else (", ", "; "))
        texts.append(opening + joint.join(_simple(draw, value) for value in each) + closing)
    return Pair(texts[0], _wrapped(draw, texts[1]), equal)


def _choices(draw: random.Random) -> Pair:
    letters = "ABCDE"
    gold = draw.choice(letters)
    equal = draw.random() < 0.5
    said = gold if equal else draw.choice([letter for letter in letters if letter != gold])
    text = f"{draw.randint(1, 99)} cm"
    forms = ("{0}", "({0})", "{0}.", "{0})", "[{0}]", "Option {0}", "**{0}**", r"\boxed{{{0}}}", r"\text{{{0}}}",
             "The answer is {0}.", "答案：{0}", "{0}. {1}", "({0}) {1}", "{0}: {1}", "{0}) {1}")  # fmt: skip
    return Pair(draw.choice(forms[:-5]).format(gold, text), draw.choice(forms).format(said, text), equal)


def _nouns(draw: random.Random) -> Pair:
    count = draw.randint(0, 99)
    equal = draw.random() < 0.5
    said = count if equal else draw.choice([other for other in range(100) if other != count])
    noun = draw.choice(NOUNS)
    both = draw.random() < 0.4
    gold = f"{_count(draw, count)} {noun}" if both else str(count)
    return Pair(gold, f"{_count(draw, said)} {noun}{draw.choice(('', '.'))}", equal)


def _count(draw: random.Random, count: int) -> str:
    return draw.choice((str(count), _words(count), _words(count).capitalize(), _in_script(draw, str(count))))


def _words(count: int) -> str:
    if count < 20:
        return ONES[count]
    tens, ones = divmod(count, 10)
    return TENS[tens] + ("-" + ONES[ones] if ones else "")


def _written(draw: random.Random, value: Fraction) -> str:
    """Write a value exactly in one of its notations."""
    sign = draw.choice("-−–﹣－") if value < 0 else draw.choice(("", "", "", "+"))
    return sign + draw.choice(_notations(draw, abs(value)))


def _simple(draw: random.Random, value: Fraction) -> str:
    """Write a value in a notation that has no comma."""
    body = _decimal(abs(value)) or f"{abs(value).numerator}/{abs(value).denominator}"
    return ("-" if value < 0 else "") + body


def _notations(draw: random.Random, value: Fraction) -> list[str]:
    top, bottom = value.numerator, value.denominator
    found = [f"{top}/{bottom}", rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{{top}}}{{{bottom}}}"]
    whole, rest = divmod(top, bottom)
    if whole and rest:
        found += [f"{whole} {rest}/{bottom}", rf"{whole}\frac{{{rest}}}{{{bottom}}}"]
    halves = {Fraction(1, 2): "½", Fraction(1, 3): "⅓", Fraction(3, 4): "¾", Fraction(2, 5): "⅖"}
    if value - whole in halves:
        found += [(str(whole) if whole else "") + halves[value - whole]] * 2
    if bottom == 1 and top < 10**15:
        found += [str(top), f"{top:,}", f"{top:,}".replace(",", " "), f"{top:,}".replace(",", "\u202f"),
                  f"{top:,}".replace(",", "'"), f"{top:,}".replace(",", "{,}"), f"{top:,}".replace(",", r"\,"),
                  _in_script(draw, str(top))]  # fmt: skip
    decimal = _decimal(value)
    if decimal:
        found += [decimal, decimal + ("0" if "." in decimal else ".0"), _in_script(draw, decimal)]
        mantissa, power = _scientific(value)
        found += [f"{mantissa}e{power}", f"{mantissa}E{power:+}", rf"{mantissa}\times 10^{{{power}}}",
                  f"{mantissa}×10{str(power).translate(SUPERSCRIPTS)}", f"{mantissa}*10**{power}",
                  rf"{mantissa} \cdot 10^{{{power}}}"]  # fmt: skip
    return found


def _decimal(value: Fraction) -> str:
    """Return a value with all of its decimals; empty where they do not end."""
    places = next((places for places in range(50) if (value * 10**places).denominator == 1), None)
    if places is None:
        return ""
    digits = str(value.numerator * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


def _scientific(value: Fraction) -> tuple[str, int]:
    if not value:
        return "0", 0
    power = 0
    while value >= 10:
        value, power = value / 10, power + 1
    while value < 1:
        value, power = value * 10, power - 1
    return _decimal(value), power


def _in_script(draw: random.Random, digits: str) -> str:
    return digits.translate(str.maketrans(DIGITS[0], draw.choice(DIGITS)))


def _wrapped(draw: random.Random, text: str) -> str:
    wrappers = ("{}", "{}", "${}$", r"\({}\)", r"\boxed{{{}}}", "**{}**", "The answer is {}.", "Answer: {}", " {}\n",
                "答案是{}。", "`{}`", r"$\boxed{{{}}}$", "# {}", "Final answer: **{}**")  # fmt: skip
    return draw.choice(wrappers).format(text)
