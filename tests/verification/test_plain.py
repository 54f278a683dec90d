"""Numbers and words that need no library, worked by hand."""

from fractions import Fraction

import numpy as np
import pytest

from m2io_jax.verification.plain import bare, is_words, read_number, same_number


def same(one: str, other: str) -> bool:
    return same_number(read_number(bare(one)), read_number(bare(other)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("007", 7),
        ("-7", -7),
        ("+7", 7),
        ("\N{MINUS SIGN}7", -7),
        ("1,234,567", 1234567),
        ("3.25", Fraction(13, 4)),
        (".5", Fraction(1, 2)),
        ("3.", 3),
        ("3/4", Fraction(3, 4)),
        ("-3 / 4", Fraction(-3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        ("25%", Fraction(1, 4)),
        (r"12.5 \%", Fraction(1, 8)),
        ("145°", 145),
        (r"$145^\circ$", 145),
        (r"\boxed{145^{\circ}}", 145),
        (r"$$ \boxed{42} $$.", 42),
        (r"\( 5 \)", 5),
        ("  12\n", 12),
    ],
)
def test_numbers_by_hand(text, value):
    assert read_number(bare(text)).value == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "3x", "1,23", "1,2345", "3/0", "3.1.4", "--3", "1e5", "٣", "²", "3 4", "3/4/5", "%", r"\frac{1}{x}", "."],
)
def test_what_is_no_plain_number(text):
    assert read_number(bare(text)) is None


def test_equality_by_hand():
    assert same("3", "3.0") and same("1/2", "0.5") and same("6/8", r"\frac{3}{4}") and same("1,000", "1000")
    assert same("1/3", "0.333333") and same("0.3333334", "1/3") and not same("1/3", "0.33333")
    assert not same("3", "3.00001") and not same("2", "-2") and not same("1/3", "333333/1000000")
    assert same("50%", "1/2") and same("50%", "50") and same("50", "50%") and not same("50%", "5")
    assert not same("0.5%", "50%") and same("12.5%", "0.125")


def test_numbers_survive_being_written_and_read():
    random = np.random.default_rng(0)
    for top, bottom in random.integers(1, 10_000, (300, 2)).tolist():
        value = Fraction(top, bottom)
        assert read_number(f"{top}/{bottom}").value == value
        assert read_number(f"-{top:,}").value == -top
        assert same(f"{top / 1000:.3f}", f"{top}/1000")
        assert same(f"{top}/{bottom}", f"{top + 1}/{bottom}") is False


def test_huge_numbers_are_exact():
    digits = "9" * 400
    assert read_number(digits).value == int(digits)
    assert not same(digits, digits[:-1] + "8")


def test_what_stands_around_an_answer_is_taken_off():
    assert bare("(B)") == bare("B.") == bare("B:") == bare(" B ") == "B"
    assert bare("$1$ or $2$") == "$1$ or $2$"
    assert bare(r"\boxed{1} + \boxed{2}") == r"\boxed{1} + \boxed{2}"
    assert bare(r"\boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert bare("$$") == "$$" and bare(r"\boxed{}") == r"\boxed{}"


def test_words_and_letters_of_choices_are_no_expressions():
    assert all(map(is_words, ("B", "yes", "New York", "élan")))
    assert not any(map(is_words, ("x", "pi", "ab", "sin(x)", "3 apples", "x + y", "")))
