"""Numbers that need no library, worked by hand."""

import time
from fractions import Fraction

import numpy as np
import pytest

from m2io_jax.verification.canonical import canonical
from m2io_jax.verification.numbers import read_number, same_number


def same(one: str, other: str) -> bool:
    return same_number(read_number(canonical(one)), read_number(canonical(other)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("007", 7),
        ("-7", -7),
        ("+7", 7),
        ("\N{MINUS SIGN}7", -7),
        ("\N{EN DASH}7", -7),
        ("1,234,567", 1234567),
        ("1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567", 1234567),
        ("12,34,567", 1234567),
        ("1.234.567,25", Fraction(4938269, 4)),
        ("3.25", Fraction(13, 4)),
        (".5", Fraction(1, 2)),
        ("3.", 3),
        ("3/4", Fraction(3, 4)),
        ("-3 / 4", Fraction(-3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"\frac34", Fraction(3, 4)),
        ("2 1/2", Fraction(5, 2)),
        ("-2½", Fraction(-5, 2)),
        (r"2\frac{1}{3}", Fraction(7, 3)),
        ("1e5", 100_000),
        ("-1.5E-3", Fraction(-3, 2000)),
        (r"1.5\times 10^{-3}", Fraction(3, 2000)),
        ("2×10³", 2000),
        ("10**4", 10_000),
        (r"0.1\overline{6}", Fraction(1, 6)),
        ("25%", Fraction(1, 4)),
        (r"12.5 \%", Fraction(1, 8)),
        ("٣", 3),
        ("१२.५", Fraction(25, 2)),
        ("４２", 42),
        (r"$$ \boxed{42} $$.", 42),
        (r"\( 5 \)", 5),
        ("  12\n", 12),
    ],
)
def test_numbers_by_hand(text, value):
    assert read_number(canonical(text)).value == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "3x", "1,23", "1,2345", "3/0", "3.1.4", "--3", "²", "3 4", "3/4/5", "%", r"\frac{1}{x}", ".", "1e", "e5",
     "5 10^2", "2^{10}", "10^{10^{10}}", "1e3x", "1,2,3", "(1,2)"],
)  # fmt: skip
def test_what_is_no_plain_number(text):
    assert read_number(canonical(text)) is None


def test_equality_by_hand():
    assert same("3", "3.0") and same("1/2", "0.5") and same("6/8", r"\frac{3}{4}") and same("1,000", "1000")
    assert same("1/3", "0.333333") and same("0.3333334", "1/3") and not same("1/3", "0.33333")
    assert not same("3", "3.00001") and not same("2", "-2") and not same("1/3", "333333/1000000")
    assert same("50%", "1/2") and same("50%", "50") and same("50", "50%") and not same("50%", "5")
    assert not same("0.5%", "50%") and same("12.5%", "0.125")


def test_closeness_is_relative():
    assert not same("1.2e-7", "3.4e-7") and not same("1.2e-7", "0") and not same("0.00000012", "0.0")
    assert not same("1.6e-19", "9.1e-31") and same("1.60e-19", "0.00000000000000000016")
    assert same(r"\frac{1}{3000000000}", "3.33333e-10") and not same(r"\frac{1}{3000000000}", "3.333e-10")
    assert same("100000/3", "33333.3333") and not same("100000/3", "33333")
    # from 1 on two written decimals agree to six places: amounts of money differ by cents
    assert not same("123456.70", "123456.79") and not same("1234567.5", "1234567") and same("3.0000004", "3")
    assert same("6.02214e23", "6.02214076e23") and not same("6.022e23", "6.02214076e23")


def test_numbers_survive_being_written_and_read():
    random = np.random.default_rng(0)
    for top, bottom in random.integers(1, 10_000, (300, 2)).tolist():
        value = Fraction(top, bottom)
        assert read_number(f"{top}/{bottom}").value == value
        assert read_number(f"-{top:,}").value == -top
        assert same(f"{top / 1000:.3f}", f"{top}/1000")
        assert same(f"{top / 1000:.3f}", f"{top}e-3")
        assert same(f"{top}/{bottom}", f"{top + 1}/{bottom}") is False


def test_huge_numbers_are_exact():
    digits = "9" * 400
    assert read_number(digits).value == int(digits)
    assert not same(digits, digits[:-1] + "8")
    assert same(digits + "e0", digits) and same("1e400", "1" + "0" * 400)


def test_a_huge_exponent_is_compared_without_the_number():
    began = time.thread_time()
    huge = "1e" + "9" * 300
    assert same(huge, huge) and same("1e999999999", "10e999999998") and same("1.50e-999999999", "15e-1000000000")
    assert not same("1e999999999", "1e999999998") and not same("1e999999999", "1") and not same("1e-999999999", "0")
    assert same("0e999999999", "0")
    assert time.thread_time() - began < 1
