"""What stands around an answer, and how its characters are folded."""

import time

import pytest

from m2io_jax.verification.canonical import LONGEST, canonical
from m2io_jax.verification.readings import read


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("$1$ or $2$", "$1$ or $2$"),
        (r"\boxed{1} + \boxed{2}", r"\boxed{1} + \boxed{2}"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("$$", "$$"),
        (r"\boxed{}", r"\boxed{}"),
        ("**2**3**", "2^3"),
        ("***yes***", "yes"),
        ("**Answer:** `12`.", "12"),
        ("## The final answer is $\\boxed{\\text{B}}$.", "B"),
        ("* 5", "5"),
        ("6!", "6!"),
        ("n!", "n!"),
        ("Yes!", "Yes"),
        ("好！", "好"),
        ("√2", r"\sqrt{2}"),
        ("2√(x+1)", r"2\sqrt{x+1}"),
        ("∛27", r"\sqrt[3]{27}"),
        ("10⁻³", "10^{-3}"),
        ("2½", r"2\frac{1}{2}"),
        ("x₁₂", "x_{12}"),
        ("90º", "90°"),
        (r"90^{\circ}", "90°"),
        ("25℃", "25°C"),
        (r"5\text{ cm}", "5 cm"),
        (r"5\mathrm{cm}^2", "5 cm^2"),
        (r"\left(\dfrac12\right)", r"(\frac{1}{2})"),
        ("１，２３４", "1,234"),
    ],
)
def test_what_stands_around_an_answer_is_taken_off(text, inner):
    assert canonical(text) == inner


def test_what_is_too_long_is_no_answer():
    assert canonical("9" * LONGEST) and not canonical("9" * (LONGEST + 1))
    assert not canonical("\ufdfa" * LONGEST)  # a character that stands for eighteen


HOSTILE = [
    *("(", ")", "{", "[(", "9", "1,", "1, ", "1 ", "1'234", "0.", "- ", "√", "√(", "²", "½", "**", "$", "\\"),
    *("\\text{", "\\boxed{", "\\frac{1}{", "a1", "A. ", "1 and ", "one ", "hundred ", "万", "一万", "1e9999", "10^"),
    *("10^{", "1:", "1-", "x=", "x=1,", "the answer is ", "so ", "# ", "\u0301", "\ufdfa", "\u200b", "5 km ", "5 km/"),
    *("square ", "\\pm", "1\\pm", "\\angle ", "A \\parallel ", "f(x)=", "|", "=", "1=", "pi", "sqrt(", "^(", "{,}"),
    *("\\,", "length of ", "a=b,", "\\{", "答案是", "1 1/2 ", ";", "、", "\0", "\ud800", "1 or ", "a, ", "$5 ", "%"),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_answers_are_read_in_no_time(piece):
    for text in (piece * (LONGEST // len(piece)), "5 " + piece * (LONGEST // len(piece) - 2)):
        began = time.thread_time()
        read(text)
        assert time.thread_time() - began < 0.5
