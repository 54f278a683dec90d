"""Compare two readings of answers. A verdict is True, False, or None where nobody can say."""

import re
from collections.abc import Callable
from fractions import Fraction

from m2io_jax.verification.asking import Ask, Verdict, ask_about
from m2io_jax.verification.dates import Date, same_date, same_numeric_date
from m2io_jax.verification.numbers import Number
from m2io_jax.verification.quantities import Quantity, same_quantity, singular
from m2io_jax.verification.readings import (
    Expression,
    Items,
    Named,
    Parts,
    Reading,
    Unreadable,
    Words,
    read,
)
from m2io_jax.verification.units import read_unit
from m2io_jax.verification.words import Choice, Figure, bare_letters, fold_expression, without_preposition

_RELATION = re.compile(r"[<>]|\\[lg]eq?(?![a-z])")
_PRODUCT = 3  # letters at most of a word that may also be a product of symbols
_DAY = 24
_LETTERS = "ABCDEFGH"  # of choices
_OF_LETTERS = re.compile(r"(?<![^\W_])[A-H](?![\w+*^=-])|^[A-H]+$")
_SHORT_SCALE = re.compile(r"(?P<digits>[0-9]+(?:\.[0-9]+)?) ?(?P<scale>[kKM])")
_COLUMN = re.compile(r"\\begin\{[pb]matrix\}(?P<lines>[^&]*)\\end\{[pb]matrix\}")
_NO_SOLUTION = {"no solution", "no solutions", "no real solution", "no real solutions", "none", "无解"}
_KINDS = "色边侧面形"
_NOTHING = {"none", "no", "nothing", "没有", "无"}
_UNIT_OR_SCALE = {read_unit("K"): 10**3, read_unit("B"): 10**9}  # 10K, 1.2B
_YES_NO = {"yes", "no"}


def same(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    """Return whether what was said is the gold answer; None where nobody can say."""
    if gold == said:
        return True
    for kind, compare in _COMPARED:
        if isinstance(gold, kind) or isinstance(said, kind):
            return compare(gold, said, ask)
    raise TypeError(f"{type(gold).__name__} and {type(said).__name__} cannot be compared")


def _unreadable(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    return None if isinstance(gold, Unreadable) else False


def _choices(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    """Letters first: another letter is wrong. A choice's text counts where the other side has no letter."""
    if isinstance(gold, Choice) and isinstance(said, Choice):
        if gold.letter != said.letter:
            return False
        if not (gold.text and said.text):
            return True
        return True if _texts(gold.text, said.text, ask) else None  # the letter is right, the text is another
    choice, other = (gold, said) if isinstance(gold, Choice) else (said, gold)
    if choice.text:
        text = read(choice.text)
        return text is not None and (same(text, said, ask) if choice is gold else same(gold, text, ask))
    if isinstance(other, Named):
        return same(other.value, said, ask) if other is gold else same(gold, other.value, ask)
    symbolic = isinstance(other, Expression) and other.unit is None and not other.noun
    if symbolic and ask_about(gold, said, ask):
        return True
    # A letter asks for a choice, whose text nobody told; a number or words ask for no letter.
    return None if choice is gold and choice.letter in _LETTERS and not _are_letters(other) else False


def _are_letters(reading: Reading) -> bool:
    """Return whether a reading is about letters of choices: AB, A and B, not A."""
    if isinstance(reading, Items):
        return any(isinstance(item, Choice) for item in reading.items)
    return isinstance(reading, Words | Expression) and _OF_LETTERS.search(reading.text) is not None


def _texts(gold: str, said: str, ask: Ask) -> Verdict:
    one, other = read(gold), read(said)
    return one is not None and other is not None and same(one, other, ask)


def _named(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    """Values, and names where both have one. Other names for one value may mean the same, other symbols do not."""
    for one, other in ((gold, said), (said, gold)):
        if isinstance(one, Named) and isinstance(other, Expression) and "=" in other.text:
            return ask_about(gold, said, ask)
    if isinstance(gold, Named) and isinstance(said, Named):
        if _sides(gold) == _sides(said):  # AB = CD is CD = AB
            return True
        verdict = same(gold.value, said.value, ask)
        if gold.name == said.name or not verdict or _is_indexed(gold.name, said.name):
            return verdict
        return False if len(gold.name) == len(said.name) == 1 else None
    named, other = (gold, said) if isinstance(gold, Named) else (said, gold)
    if named.name in ("c", "p") and isinstance(named.value, Items) and isinstance(other, Quantity):
        return None  # C(5,2) may be a number of combinations
    return same(named.value, said, ask) if named is gold else same(gold, named.value, ask)


def _is_indexed(one: str, other: str) -> bool:
    """Return whether one name is the other with an index: x and x1."""
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and long[len(short) :].isdecimal()


def _sides(equation: Named) -> list[str]:
    return sorted(fold_expression(side) for side in equation.text.split("="))


def _items(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    if not (isinstance(gold, Items) and isinstance(said, Items)):
        return _one_of_several(gold, said, ask)
    verdict = _listed(gold, said, ask)
    if gold.decimal and said.decimal:
        as_decimals = same_quantity(gold.decimal, said.decimal)
        return verdict if verdict == as_decimals else None
    return verdict


def _one_of_several(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    items, other = (gold, said) if isinstance(gold, Items) else (said, gold)
    if items.decimal:
        return same(items.decimal, said, ask) if items is gold else same(gold, items.decimal, ask)
    if isinstance(other, Expression):
        vector = _column(other)
        if vector:
            return _listed(gold, vector, ask) if items is gold else _listed(vector, said, ask)
        if any(isinstance(item, Words | Figure | Parts) for item in items.items):
            return False
        alternatives = any(isinstance(item, Expression) and _RELATION.search(item.text) for item in items.items)
        return ask_about(gold, said, ask) or (
            None if alternatives and (r"\cup" in other.text or _RELATION.search(other.text)) else False
        )
    if isinstance(other, Words) and other.folded in _YES_NO:  # Yes, it is red
        first, *rest = (item.folded if isinstance(item, Words) else "" for item in items.items)
        return first == other.folded and not _YES_NO & set(rest)
    letters = [item.letter for item in items.items if isinstance(item, Choice)]
    if isinstance(other, Words) and len(letters) == len(items.items):  # A, B is AB
        if "".join(letters).casefold() == other.folded:
            return True
        return None if sorted("".join(letters).casefold()) == sorted(other.folded) else False
    return False


def _column(expression: Expression) -> Items | None:
    """Return a column vector as a tuple; None for all other expressions."""
    column = _COLUMN.fullmatch(expression.text)
    vector = read("(" + column["lines"].replace(r"\\", ", ") + ")") if column else None
    return vector if isinstance(vector, Items) else None


def _listed(gold: Items, said: Items, ask: Ask) -> Verdict:
    """Compare item by item. Tuples and intervals have an order, also beside a list; sets and lists have none."""
    if len(gold.items) != len(said.items):
        return False
    if _have_the_same_names(gold, said):
        said = Items("", tuple(sorted(said.items, key=lambda item: item.name)), said.text)
        return _in_order(Items("", tuple(sorted(gold.items, key=lambda item: item.name)), gold.text), said, ask)
    if _needs_names(gold, said):
        return _in_order(gold, said, ask)
    kinds = {gold.brackets, said.brackets}
    if kinds <= {"", "{}"}:
        return _in_any_order(gold, said, ask)
    verdict = _in_order(gold, said, ask)
    if len(kinds) == 1 or "" in kinds or kinds == {"()", r"langlerangle"}:
        return verdict
    if "{}" in kinds:
        return None if verdict or _in_any_order(gold, said, ask) else False
    return False  # an open interval is no closed one


def _have_the_same_names(gold: Items, said: Items) -> bool:
    """Return whether both sides name all their values, and alike; the indices of roots may be given in any order."""
    if not all(isinstance(item, Named) for item in gold.items + said.items):
        return False
    names = sorted(item.name for item in gold.items)
    several = len(set(names)) == len(names) == len({name.rstrip("0123456789") for name in names})
    return several and names == sorted(item.name for item in said.items)


def _needs_names(gold: Items, said: Items) -> bool:
    """Return whether one side names its values, x = 1, y = 2, and the other gives them in that order."""
    for one, other in ((gold, said), (said, gold)):
        names = {item.name for item in one.items if isinstance(item, Named)}
        if len(names) == len(one.items) and not any(isinstance(item, Named) for item in other.items):
            return True
    return False


def _in_order(gold: Items, said: Items, ask: Ask) -> Verdict:
    verdicts = [same(one, other, ask) for one, other in zip(gold.items, said.items, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _in_any_order(gold: Items, said: Items, ask: Ask) -> Verdict:
    """Match each item with one of the others. All pairs are compared, so that their expressions are one request."""
    verdicts = [[_of_a_list(one, other, gold, said, ask) for other in said.items] for one in gold.items]
    left, doubtful = set(range(len(said.items))), False
    for row in verdicts:
        match = next((index for wanted in (True, None) for index in sorted(left) if row[index] is wanted), None)
        if match is None:
            return False
        left.remove(match)
        doubtful |= row[match] is None
    return None if doubtful else True


def _of_a_list(one: Reading, other: Reading, gold: Items, said: Items, ask: Ask) -> Verdict:
    """Compare two items of lists. Where both lists have chickens, chickens are compared with chickens alone."""
    nouns = (_noun(one), _noun(other))
    if nouns[0] != nouns[1]:
        shared = {_noun(item) for item in gold.items} & {_noun(item) for item in said.items} - {()}
        if shared & set(nouns):
            return False
    return same(one, other, ask)


def _noun(item: Reading) -> tuple[str, ...]:
    return item.noun if isinstance(item, Quantity) else ()


def _figures(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    """A figure by its letters alone is that figure: ABC beside angle ABC."""
    if isinstance(gold, Figure) and isinstance(said, Figure):
        return False
    figure, other = (gold, said) if isinstance(gold, Figure) else (said, gold)
    name = "".join(figure.name).casefold()
    if isinstance(other, Choice) and not other.text:
        return other.letter.casefold() == name
    if not isinstance(other, Words):
        return False
    return other.folded in (name, name[::-1])


def _dates(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    if isinstance(gold, Date) and isinstance(said, Date):
        return same_date(gold, said)
    date, other = (gold, said) if isinstance(gold, Date) else (said, gold)
    return same_numeric_date(date, other.numbers) if isinstance(other, Parts) and other.kind in ("/", "-") else False


def _parts(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    one, other = gold, said
    if isinstance(one, Parts) and isinstance(other, Parts):
        return _same_parts(one, other)
    parts, other = (gold, said) if isinstance(gold, Parts) else (said, gold)
    if not isinstance(other, Quantity | Expression) or len(parts.numbers) > 2 or parts.kind in ("/", "to"):
        return False
    first, second = parts.numbers
    if parts.kind == ":":
        if not second or parts.suffix or other.unit or other.noun:
            return False
        value = Quantity(Number(Fraction(first, second)))
    else:
        value = Quantity(Number(Fraction(first - second)))
    verdict = same(value, said, ask) if parts is gold else same(gold, value, ask)
    if not verdict:
        return verdict
    if parts.kind == ":":
        return None if first % second == 0 or _is_time(parts) else True  # 5 may be no ratio
    return True if " - " in parts.text and not parts.ambiguous else None  # 3-1 may be a score


def _same_parts(one: Parts, other: Parts) -> Verdict:
    if one.kind != other.kind:
        if one.numbers != other.numbers:
            return False
        return True if "to" in (one.kind, other.kind) else None
    if one.kind == ":":
        return _same_ratio_or_time(one, other)
    if one.numbers == other.numbers:
        return True
    return None if len(one.numbers) == 3 and sorted(one.numbers) == sorted(other.numbers) else False  # 3/4/2020


def _same_ratio_or_time(one: Parts, other: Parts) -> Verdict:
    if one.suffix or other.suffix:
        if one.suffix and other.suffix:
            return _hours(one) == _hours(other)
        return _hours(one) == _hours(other) or one.numbers == other.numbers and 0 < one.numbers[0] <= _DAY // 2
    if one.numbers == other.numbers:
        return True
    if len(one.numbers) != len(other.numbers):
        return False
    a, b = one.numbers, other.numbers
    proportional = any(a) and any(b) and all(x * b[0] == y * a[0] for x, y in zip(a, b, strict=True))
    if not proportional:
        return False
    return None if _is_time(one) and _is_time(other) else True


def _is_time(parts: Parts) -> bool:
    """Return whether numbers look like a time of day: 3:45, with two digits for the minutes."""
    first, _, rest = parts.text.partition(":")
    minutes = rest.strip().split(":")
    return int(first) < _DAY and all(len(each.strip()) == 2 and int(each) < 60 for each in minutes)


def _hours(parts: Parts) -> tuple[int, ...]:
    hour, *rest = parts.numbers
    if parts.suffix:
        hour = hour % (_DAY // 2) + (_DAY // 2 if parts.suffix == "pm" else 0)
    while rest and not rest[-1] and len(rest) > 1:
        rest.pop()
    return (hour, *rest)


def _quantities(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    if isinstance(gold, Quantity) and isinstance(said, Quantity):
        verdict = same_quantity(gold, said)
        return None if verdict is False and (_is_abbreviated(gold, said) or _is_abbreviated(said, gold)) else verdict
    if _is_abbreviated(gold, said) or _is_abbreviated(said, gold):
        return None
    return ask_about(gold, said, ask) if isinstance(gold, Expression) or isinstance(said, Expression) else False


def _is_abbreviated(short: Reading, full: Reading) -> bool:
    """Return whether 10k or 2.3M may be the other number in full: k may also be a symbol, and K a temperature."""
    if not isinstance(full, Quantity) or full.number.huge:
        return False
    if isinstance(short, Quantity):
        return short.doubtful and short.number.value * _UNIT_OR_SCALE.get(short.unit, 1) == full.number.value
    match = _SHORT_SCALE.fullmatch(short.text) if isinstance(short, Expression) else None
    return bool(match) and Fraction(match["digits"]) * (10**6 if match["scale"] == "M" else 1000) == full.number.value


def _words(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    if isinstance(gold, Words) and isinstance(said, Words):
        if gold.folded == said.folded or without_preposition(gold.folded) == said.folded:
            return True
        if gold.folded == without_preposition(said.folded):
            return True
        if set(gold.folded + said.folded) <= set("xyz"):
            return sorted(gold.folded) == sorted(said.folded)  # a product: xy is yx
        if _singular(gold) == _singular(said) or _stem(gold) == _stem(said):  # cubes and cube
            return None
        return None if bare_letters(gold.folded) == bare_letters(said.folded) else False  # café and cafe
    word, other = (gold, said) if isinstance(gold, Words) else (said, gold)
    if isinstance(other, Quantity) and word.folded in _NOTHING and not other.number.value and not other.number.huge:
        return None
    if isinstance(other, Expression) and other.text == r"\emptyset" and word.folded in _NO_SOLUTION:
        return None
    if isinstance(other, Expression) and bare_letters(other.text) == bare_letters(word.folded):  # B-12 and B12
        return None
    product = word.folded.isascii() and word.folded.isalpha() and len(word.folded) <= _PRODUCT
    return ask_about(gold, said, ask) if product else False


def _singular(words: Words) -> list[str]:
    return [singular(word) for word in words.folded.split()]


def _stem(words: Words) -> str:
    """Return Chinese words without a character that tells their kind: 红色 as 红, 左边 and 左侧 as 左."""
    return words.folded[:-1] if len(words.folded) > 1 and words.folded[-1] in _KINDS else words.folded


def _expressions(gold: Reading, said: Reading, ask: Ask) -> Verdict:
    if fold_expression(gold.text) == fold_expression(said.text) and gold.unit == said.unit:
        return True
    return ask_about(gold, said, ask)


# The first kind that either side is of decides how both are compared.
_COMPARED: tuple[tuple[type, Callable[[Reading, Reading, Ask], Verdict]], ...] = (
    (Unreadable, _unreadable),
    (Choice, _choices),
    (Named, _named),
    (Items, _items),
    (Figure, _figures),
    (Date, _dates),
    (Parts, _parts),
    (Words, _words),
    (Quantity, _quantities),
    (Expression, _expressions),
)
