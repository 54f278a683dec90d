"""Units of measure and currencies: their dimensions and conversion factors.

Read are products, powers and quotients: cm^2, m/s, km per hour, square metres. A unit is read after a number alone.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

F = Fraction


@dataclass(frozen=True)
class Unit:
    """A unit: `factor` basic units of the kind that `dimensions` says, each basic quantity with its power.

    Attributes:
        currencies: of an amount of money; a dollar sign stands for several, and a pound is also a mass.
        zero: what 0 of it is in the basic unit; of temperatures alone.
    """

    factor: Fraction
    dimensions: tuple[tuple[str, int], ...]
    currencies: frozenset[str] = frozenset()
    zero: Fraction = Fraction(0)


_PREFIXES = {"k": F(10**3), "c": F(1, 10**2), "m": F(1, 10**3), "d": F(1, 10), "μ": F(1, 10**6), "u": F(1, 10**6),
             "n": F(1, 10**9), "p": F(1, 10**12), "h": F(10**2), "M": F(10**6), "G": F(10**9),
             "T": F(10**12)}  # fmt: skip
_POUND = F(45_359_237, 100_000)
_PREFIX_WORDS = {"kilo": "k", "centi": "c", "milli": "m", "deci": "d", "micro": "μ", "nano": "n", "pico": "p",
                 "hecto": "h", "mega": "M", "giga": "G", "tera": "T"}  # fmt: skip

# Quantity, prefixes, symbols, words in the singular.
_SI = (
    ("m", "kcmdμunpM", ("m",), ("metre", "meter")),
    ("g", "kmμunM", ("g", "gm"), ("gram", "gramme")),
    ("s", "mμunp", ("s",), ("second", "sec")),
    ("L", "mcdμuh", ("L", "l"), ("litre", "liter")),
    ("A", "mμuknp", ("A",), ("ampere", "amp")),
    ("V", "mkμuM", ("V",), ("volt",)),
    ("W", "mkMGTμu", ("W",), ("watt",)),
    ("J", "mkMG", ("J",), ("joule",)),
    ("N", "mkM", ("N",), ("newton",)),
    ("Pa", "khMG", ("Pa",), ("pascal",)),
    ("Hz", "kMGT", ("Hz",), ("hertz",)),
    ("Ω", "kMm", ("Ω",), ("ohm",)),
    ("eV", "kMGT", ("eV",), ()),
    ("cal", "k", ("cal",), ("calorie",)),
    ("mol", "mμuk", ("mol",), ("mole",)),
    ("coulomb", "mμunp", (), ("coulomb",)),
    ("farad", "mμunp", (), ("farad",)),
    ("tesla", "mμu", ("T",), ("tesla",)),
    ("B", "kMGT", ("B",), ("byte",)),
    ("bit", "kMGT", (), ("bit",)),
    ("lm", "k", ("lm",), ("lumen",)),
    ("px", "M", ("px",), ("pixel",)),
)
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_OTHERS = (
    ("m", F(254, 10_000), "in inch inches"),
    ("m", F(3048, 10_000), "ft foot feet"),
    ("m", F(9144, 10_000), "yd yds yard yards"),
    ("m", F(1_609_344, 1000), "mi mile miles"),
    ("m", F(1852), "nmi"),
    ("m", F(1, 10**10), "Å angstrom angstroms ångström"),
    ("g", F(10**6), "t tonne tonnes"),
    ("g", _POUND, "lb lbs"),
    ("g", _POUND / 16, "oz ounce ounces"),
    ("s", F(_MINUTE), "min mins minute minutes"),
    ("s", F(_HOUR), "h hr hrs hour hours"),
    ("s", F(_DAY), "d day days"),
    ("s", F(7 * _DAY), "wk wks week weeks"),
    ("s", F(1), "secs"),
    ("month", F(1), "month months mo"),
    ("month", F(12), "yr yrs year years"),
    ("month", F(120), "decade decades"),
    ("month", F(1200), "century centuries"),
    ("degree", F(1), "° deg degs degree degrees"),
    ("degree", F(1, 60), "arcmin arcminute arcminutes"),
    ("degree", F(1, 3600), "arcsec arcsecond arcseconds"),
    ("radian", F(1), "rad rads radian radians"),
    ("L", F(1), "ℓ"),
    ("L", F(3_785_411_784, 10**9), "gal gallon gallons"),
    ("L", F(3_785_411_784, 4 * 10**9), "qt quart quarts"),
    ("L", F(3_785_411_784, 8 * 10**9), "pt pint pints"),
    ("Pa", F(100_000), "bar bars"),
    ("Pa", F(101_325), "atm atmosphere atmospheres"),
    ("J", F(_HOUR), "Wh"),
    ("J", F(1000 * _HOUR), "kWh kwh"),
)
_DERIVED = {
    "ha": ("m", 2, F(10_000)), "hectare": ("m", 2, F(10_000)), "hectares": ("m", 2, F(10_000)),
    "acre": ("m", 2, F(40_468_564_224, 10**7)), "acres": ("m", 2, F(40_468_564_224, 10**7)),
    "cc": ("m", 3, F(1, 10**6)), "Nm": ("J", 1, F(1)), "K": ("temperature", 1, F(1)), "°C": ("temperature", 1, F(1)),
}  # fmt: skip
_SPEEDS = {"kmh": F(10, 36), "km/hr": F(10, 36), "kph": F(10, 36), "kmph": F(10, 36), "mph": F(44_704, 100_000),
           "knot": F(1852, 3600), "knots": F(1852, 3600)}  # fmt: skip
_TEMPERATURES = {"K": (F(1), F(0)), "kelvin": (F(1), F(0)), "kelvins": (F(1), F(0))}
_TEMPERATURES |= dict.fromkeys(("°C", "C", "celsius", "centigrade", "degrees celsius", "degree celsius", "degrees C",
                                "摄氏度"), (F(1), F(27_315, 100)))  # fmt: skip
_TEMPERATURES |= dict.fromkeys(("°F", "fahrenheit", "degrees fahrenheit", "degree fahrenheit", "degrees F", "华氏度"),
                               (F(5, 9), F(27_315, 100) - 32 * F(5, 9)))  # fmt: skip
_TRANSLATED_NAMES = (
    "米 m 厘米 cm 毫米 mm 千米 km 公里 km 分米 dm 克 g 千克 kg 公斤 kg 吨 t 升 L 毫升 mL 秒 s 分钟 min 小时 h 天 d 度 °"
    " 平方米 m^2 平方厘米 cm^2 平方千米 km^2 立方米 m^3 立方厘米 cm^3 元 yuan 年 year 个月 month"
    " км km м m см cm мм mm дм dm кг kg г g л L мл mL ч h мин min с s км/ч km/h м/с m/s"
).split()
_TRANSLATED = dict(zip(_TRANSLATED_NAMES[::2], _TRANSLATED_NAMES[1::2], strict=True))

_DOLLARS = frozenset({"USD", "AUD", "CAD", "NZD", "HKD", "SGD", "MXN"})
_CURRENCIES: dict[str, tuple[frozenset[str], Fraction]] = {
    **dict.fromkeys(("$", "\N{CURRENCY SIGN}", "dollar", "dollars", "buck", "bucks"), (_DOLLARS, F(1))),
    **dict.fromkeys(("cent", "cents", "¢"), (_DOLLARS | {"EUR"}, F(1, 100))),
    **dict.fromkeys(("£", "GBP", "quid"), (frozenset({"GBP"}), F(1))),
    **dict.fromkeys(("pence", "penny"), (frozenset({"GBP"}), F(1, 100))),
    **dict.fromkeys(("€", "EUR", "euro", "euros"), (frozenset({"EUR"}), F(1))),
    **dict.fromkeys(("¥", "￥"), (frozenset({"JPY", "CNY"}), F(1))),
    **dict.fromkeys(("JPY", "yen", "円"), (frozenset({"JPY"}), F(1))),
    **dict.fromkeys(("CNY", "RMB", "yuan"), (frozenset({"CNY"}), F(1))),
    **dict.fromkeys(("₹", "INR", "rupee", "rupees", "Rs.", "Rs"), (frozenset({"INR"}), F(1))),
    **dict.fromkeys(("₽", "RUB", "rouble", "roubles", "ruble", "rubles"), (frozenset({"RUB"}), F(1))),
    **dict.fromkeys(("₩", "KRW", "won"), (frozenset({"KRW"}), F(1))),
    **dict.fromkeys(("CHF", "franc", "francs"), (frozenset({"CHF"}), F(1))),
    **dict.fromkeys(("US$", "USD"), (frozenset({"USD"}), F(1))),
    **dict.fromkeys(("A$", "AUD"), (frozenset({"AUD"}), F(1))),
    **dict.fromkeys(("C$", "CAD"), (frozenset({"CAD"}), F(1))),
    **dict.fromkeys(("HK$", "HKD"), (frozenset({"HKD"}), F(1))),
    **dict.fromkeys(("₫", "VND"), (frozenset({"VND"}), F(1))),
    **dict.fromkeys(("₺", "TRY"), (frozenset({"TRY"}), F(1))),
    **dict.fromkeys(("₪", "ILS"), (frozenset({"ILS"}), F(1))),
    **dict.fromkeys(("R$", "BRL"), (frozenset({"BRL"}), F(1))),
}


def _atoms() -> dict[str, tuple[str, int, Fraction]]:
    """Return quantity, power and factor of every unit that has a name of its own."""
    found: dict[str, tuple[str, int, Fraction]] = {}
    for quantity, prefixes, symbols, words in _SI:
        for symbol in symbols:
            found[symbol] = (quantity, 1, F(1))
            for prefix in prefixes:
                found.setdefault(prefix + symbol, (quantity, 1, _PREFIXES[prefix]))
        for word in words:
            for long, prefix in {"": "", **_PREFIX_WORDS}.items():
                for plural in ("", "" if word.endswith("z") else "s"):
                    found[long + word + plural] = (quantity, 1, _PREFIXES.get(prefix, F(1)))
    for quantity, factor, names in _OTHERS:
        found |= dict.fromkeys(names.split(), (quantity, 1, factor))
    found |= {"KB": ("B", 1, F(1000)), "kgs": ("g", 1, F(1000)), "kms": ("m", 1, F(1000)), "kilos": ("g", 1, F(1000))}
    found["cms"] = ("m", 1, F(1, 100))
    return found | _DERIVED


_ATOMS = _atoms()


def _in_any_case() -> dict[str, tuple[str, int, Fraction] | None]:
    """Return units by their names in lower case; None where two units differ in their case alone: mW and MW."""
    found: dict[str, tuple[str, int, Fraction] | None] = {}
    for name, atom in _ATOMS.items():
        folded = name.casefold()
        found[folded] = atom if found.get(folded, atom) == atom else None
    return found


_IN_ANY_CASE = _in_any_case()
# What one basic unit is in others, so that a litre is a cubic decimetre and a newton metre a joule.
_BASIC: dict[str, tuple[Fraction, dict[str, int]]] = {
    "L": (F(1, 1000), {"m": 3}),
    "N": (F(1000), {"g": 1, "m": 1, "s": -2}),
    "J": (F(1000), {"g": 1, "m": 2, "s": -2}),
    "W": (F(1000), {"g": 1, "m": 2, "s": -3}),
    "Pa": (F(1000), {"g": 1, "m": -1, "s": -2}),
    "Hz": (F(1), {"s": -1}),
    "B": (F(8), {"bit": 1}),
}
_LONGEST_NAME = 60
_HIGHEST_POWER = 6
_TOKEN = re.compile(
    r" *(?P<name>°C|[^\W\d_]+|[°Å¢])(?: ?\^ ?\{? ?(?P<power>-?[0-9]) ?\}?|(?P<digit>[0-9]))?| *(?P<mark>[/*()·-])"
)
_MARKS = (("\\cdot", "*"), ("\\times", "*"), (" per ", "/"), ("\\Omega", "Ω"), ("\\mu ", "μ"), ("\\mu", "μ"))
_PER_SECOND = re.compile(r"(?<![^\W_])ms(?= ?\^ ?\{? ?-[12])")  # ms^{-1} is a metre per second
_BEFORE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}  # square metres
_AFTER = {"squared": 2, "cubed": 3}  # metres squared
_LETTERS = set("mgLVWJNKAC°dhslTtBFΩ")


@lru_cache(maxsize=4096)
def read_unit(text: str) -> Unit | None:
    """Read the name of a unit; None for all other text.

    Args:
        text: all that follows a number.
    """
    text = re.sub(r"\.(?= |$)", "", _TRANSLATED.get(text, text)).strip()
    if len(text) > _LONGEST_NAME:
        return None
    return _whole_name(text) or _whole_name(text.casefold()) or _composed(text)


def is_unit_symbol(text: str) -> bool:
    """Return whether a single letter after a number may be a unit; elsewhere it is a variable."""
    return text in _LETTERS


def _whole_name(name: str) -> Unit | None:
    """Read a name that is no product of others: a currency, a temperature, mph, pounds."""
    if name in ("pound", "pounds"):
        return Unit(_POUND, (("g", 1),), frozenset({"GBP"}))
    if name in _CURRENCIES:
        currencies, factor = _CURRENCIES[name]
        return Unit(factor, (("money", 1),), currencies)
    if name in _TEMPERATURES:
        factor, zero = _TEMPERATURES[name]
        return Unit(factor, (("temperature", 1),), zero=zero)
    return Unit(_SPEEDS[name], (("m", 1), ("s", -1))) if name in _SPEEDS else None


def _composed(text: str) -> Unit | None:
    """Read a product of units, each with its power: m/s^2, kg m s^{-2}, square metres, metres per second squared."""
    text = _PER_SECOND.sub("m s", text)
    for written, mark in _MARKS:
        text = text.replace(written, mark)
    found: list[tuple[tuple[str, int, Fraction], int]] = []  # units with their powers
    position, sign, before = 0, 1, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        if match["mark"]:
            sign = -1 if match["mark"] == "/" else sign
            continue
        name = match["name"]
        if name.casefold() in _AFTER:
            if not found:
                return None
            found[-1] = (found[-1][0], found[-1][1] * _AFTER[name.casefold()])
        elif name.casefold() in _BEFORE:
            before = _BEFORE[name.casefold()]
        else:
            atom = _ATOMS.get(name) or (_IN_ANY_CASE.get(name.casefold()) if len(name) > 1 else None)
            power = int(match["power"] or match["digit"] or 1)
            if atom is None or abs(power) > _HIGHEST_POWER:
                return None
            found.append((atom, power * sign * before))
            before = 1
    factor, powers = F(1), {}
    for (quantity, each, scale), power in found:
        factor *= scale**power
        powers[quantity] = powers.get(quantity, 0) + each * power
    return _unit(factor, powers) if found else None


def currency_signs() -> tuple[str, ...]:
    """Return what may stand before an amount of money, the longest first."""
    signs = [name for name in _CURRENCIES if not name.islower() and not name[0].islower()]
    return tuple(sorted(signs, key=len, reverse=True))


def _unit(factor: Fraction, powers: dict[str, int]) -> Unit:
    for quantity, (one, basic) in _BASIC.items():
        power = powers.pop(quantity, 0)
        factor *= one**power
        for name, each in basic.items():
            powers[name] = powers.get(name, 0) + each * power
    return Unit(factor, tuple(sorted((name, power) for name, power in powers.items() if power)))
