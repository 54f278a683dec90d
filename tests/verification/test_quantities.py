"""Units, currencies, nouns and numbers in words."""

from fractions import Fraction

import pytest

from m2io_jax.verification.number_words import match_number_words
from m2io_jax.verification.quantities import read_quantity, same_quantity
from m2io_jax.verification.units import read_unit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("km per hour", "km/h"),
        ("metres per second squared", "m/s^2"),
        ("m s^{-2}", r"m/s^{2}"),
        ("square centimetres", "cm^{2}"),
        ("sq cm", "cm2"),
        ("L", "dm^3"),
        ("kg m/s^2", "N"),
        (r"N\cdot m", "J"),
        ("kW h", "kWh"),
        ("平方厘米", "cm^2"),
        ("KM", "km"),
        ("dollars", "$"),
    ],
)
def test_units_that_are_the_same(one, other):
    assert read_unit(one) == read_unit(other) is not None


def test_what_is_no_unit():
    for text in ("", "x", "cubes", "of", "a" * 500, "m^99", "/", "per", "squared", "m+s"):
        assert read_unit(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("six", 6),
        ("Twenty-one", 21),
        ("nine hundred and ninety nine", 999),
        ("two thousand five hundred", 2500),
        ("one million", 10**6),
        ("three and three quarters", Fraction(15, 4)),
        ("minus two point five", Fraction(-5, 2)),
        ("a hundred", 100),
        ("两百零五", 205),
        ("三万二千", 32_000),
        ("二〇二四", 2024),
        ("零点五", Fraction(1, 2)),
    ],
)
def test_numbers_in_words(text, value):
    found = match_number_words(text)
    assert found.value == value and found.rest == ""


@pytest.mark.parametrize("text", ["", "a cat", "seven eleven", "and", "point five", "hundreds", "红色", "亿"])
def test_words_that_are_no_number(text):
    assert match_number_words(text) is None


@pytest.mark.parametrize(
    "text",
    ["6 plus 2", "6 squared", "6 or 7", "6 x", "6 sin", "6ab", "more than 6", "6 less than 7", "6 cats and a dog",
     "6 pi", "six seven", "6 and 7", "five minus two", "3\\pi"],
)  # fmt: skip
def test_what_follows_a_number_and_is_no_noun(text):
    assert read_quantity(text) is None


def test_a_sum_of_units_goes_down():
    assert same_quantity(read_quantity("1 h 30 min"), read_quantity("5400 s"))
    assert same_quantity(read_quantity("5 ft 3 in"), read_quantity("63 inches"))
    assert read_quantity("30 min 1 h") is None and read_quantity("5 ft 3 kg") is None


def test_temperatures_have_their_own_zero():
    assert same_quantity(read_quantity("0 °C"), read_quantity("32 °F"))
    assert same_quantity(read_quantity("-40°C"), read_quantity("-40°F"))
    assert same_quantity(read_quantity("0 °C"), read_quantity("273.15 K"))
    assert not same_quantity(read_quantity("0 °C"), read_quantity("0 K"))


def test_what_nobody_can_say():
    for one, other in (("6 cubes", "6 spheres"), ("1 year", "365 days"), ("2h", "2")):
        assert same_quantity(read_quantity(one), read_quantity(other)) is None
        assert same_quantity(read_quantity(other), read_quantity(one)) is None
    assert same_quantity(read_quantity("6 cubes"), read_quantity("7 spheres")) is False
