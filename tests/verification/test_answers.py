"""Answers compared by math-verify in the real workers."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from m2io_jax.verification import answers
from m2io_jax.verification.answers import equal, readable
from m2io_jax.verification.canonical import LONGEST
from m2io_jax.verification.pool import Pool, Unverified


@pytest.mark.parametrize(
    ("gold", "said", "right"),
    [
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        (r"2\sqrt{3}", r"\sqrt{13}", False),
        (r"$x^2+2x+1$", "(x+1)^2", True),
        (r"\frac{\pi}{2}", r"\pi/2", True),
        (r"\sqrt{2}", "1.414214", True),
        (r"\sqrt{2}", "1.414", False),
        ("7", "x=7", True),
        ("7", r"\sqrt{49}", True),
        ("7", "about seven", False),
        ("(1,2)", "(1, 2)", True),
        ("(1,2)", "(2, 1)", False),
        (r"2\sqrt{3}", r"&&& \frac{", False),
        (r"2\sqrt{3}", "", False),
        ("B", "(B)", True),
        ("B", "b", True),
        ("B", "C", False),
        ("yes", "Yes.", True),
        ("yes", "no", False),
        ("1/2", "0.5", True),
    ],
)
def test_verdicts_by_hand(gold, said, right):
    assert equal(gold, said) is right


def test_numbers_and_words_need_no_worker(monkeypatch):
    class NoPool:
        def ask(self, request):
            raise AssertionError("a worker was asked")

    monkeypatch.setattr(answers, "_POOL", NoPool())
    assert equal("12", "12.0") and not equal("12", "13") and equal("yes", "yes") and not equal(r"\frac{1}{2}", "B")
    assert not equal(r"\sqrt{2}", "1" * (LONGEST + 1)) and equal(r"\sqrt{2}", r"$\sqrt{2}$")
    assert readable("12") and readable("(C)") and not readable("  ") and not readable("1 + " * LONGEST)


def test_a_tower_of_powers_is_no_wrong_answer_but_none(monkeypatch):
    pool = Pool(cpu_seconds=2.0, workers=1)
    monkeypatch.setattr(answers, "_POOL", pool)
    with pytest.raises(Unverified) as raised:
        equal(r"2\sqrt{3}", "9^{9^{9^{9}}}")
    assert raised.value.kind == "timeout"
    assert equal(r"2\sqrt{3}", r"\sqrt{12}")  # by another worker
    pool.close()


def test_gold_that_nobody_can_read_is_told_before_it_is_compared():
    assert readable(r"\frac{1}{2}x") and readable("x")
    assert not readable("&&&") and not readable(r"\frac{")
    with pytest.raises(Unverified, match="gold"):
        equal(r"\frac{", r"\frac{1}{2}")


def test_many_threads_get_each_its_own_verdict():
    pairs = [(rf"{n}\sqrt{{2}}", rf"\sqrt{{{2 * m * m}}}") for n in range(1, 6) for m in range(1, 6)]
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda pair: equal(*pair), pairs))
    assert verdicts == [n == m for n in range(1, 6) for m in range(1, 6)]


def test_whoever_asks_loads_neither_jax_nor_algebra():
    program = (
        "import sys\n"
        "from m2io_jax.verification.answers import equal\n"
        "assert equal('\\\\sqrt{4}', '2') and not equal('\\\\sqrt{4}', '3')\n"
        "assert not {'jax', 'sympy', 'math_verify', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_worker_itself_loads_no_jax():
    program = (
        "import sys\n"
        "from m2io_jax.verification.worker import compare\n"
        "assert compare({'gold': '2', 'said': 'x=2'}) == {'equal': True}\n"
        "assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("gold", "said", "right"),
    [
        (r"\frac{1}{7^{60}}", r"\frac{1}{7^{61}}", False),
        (r"\sqrt{2}\cdot 10^{-20}", r"\sqrt{3}\cdot 10^{-20}", False),
        (r"\sqrt{2}\cdot 10^{-20}", "1.41421e-20", True),
        (r"\sqrt{2}\cdot 10^{-20}", "1.414e-20", False),
        ("e^{-100}", "0", False),
        ("10^{-8}x", "10^{-9}x", False),
        ("x > 10^{-20}", "x > 10^{-21}", False),
        ("[0,10^{-20}]", "[0,10^{-21}]", False),
        (r"\begin{pmatrix}10^{-20}\\1\end{pmatrix}", r"\begin{pmatrix}10^{-21}\\1\end{pmatrix}", False),
        ("3^{200}", "3^{200}+1", False),
        ("0", r"\sqrt{2}+\sqrt{3}-\sqrt{5+2\sqrt{6}}", True),
        ("0", r"\sqrt{2}+\sqrt{3}-\sqrt{5+2\sqrt{7}}", False),
        (r"2\pi", "6.283185", True),
        ("5", r"\frac{5}{0}", False),
        (r"\sin 30°", "1/2", True),
        ("-1", "i^2", True),
    ],
)
def test_expressions_are_compared_relatively(gold, said, right):
    assert equal(gold, said) is right


def test_a_list_of_expressions_is_one_request(monkeypatch):
    requests, ask = [], answers._POOL.ask
    monkeypatch.setattr(answers._POOL, "ask", lambda request: requests.append(request) or ask(request))
    assert equal(r"\sqrt{2}, \sqrt{3}, \sqrt{5}", r"5^{1/2}, 2^{1/2}, 3^{1/2}")
    assert len(requests) == 1


def test_towers_in_a_list_take_the_time_of_one(monkeypatch):
    pool = Pool(cpu_seconds=1.0, workers=1)
    monkeypatch.setattr(answers, "_POOL", pool)
    with pytest.raises(Unverified) as raised:
        equal("1, 2, 3", "9^{9^{9^9}}, 8^{9^{9^9}}, 7^{9^{9^9}}")
    assert raised.value.kind == "timeout"
    pool.close()


def test_words_of_any_script_are_good_gold_answers():
    assert all(map(readable, ("红色", "是", "да", "左边", "नहीं", "نعم", "はい", "ab", "no", "B12", "6 objects", "six")))
    with pytest.raises(Unverified, match="equal and as different"):
        equal("6 cubes", "6 spheres")


@pytest.mark.parametrize("text", ["25 cm", "5", "blue", r"\frac{1}{2}", "a cat", "All", "1, 2", "3:4"])
def test_a_text_for_a_letter_is_unverified_and_a_letter_for_a_text_is_wrong(text):
    with pytest.raises(Unverified, match="equal and as different"):
        equal("A", text)
    assert not equal(text, "A")


@pytest.mark.parametrize("said", ["B", "B. 25 cm", "not A", "A or B", "A/B", "AB", "neither A nor B", "", "&&&"])
def test_other_letters_are_wrong_for_a_letter(said):
    assert not equal("A", said)


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("5", "5 because there are five cubes"),
        ("5", "5 (since 2+3=5)"),
        ("5 cm", "5 cm, because the sides are equal"),
        ("A", "A because the angle is right"),
        ("red", "Red\n\n**Explanation:** the cube is red"),
        ("x=2", "2\nReason: 4/2"),
    ],
)
def test_a_reason_after_an_answer_is_no_part_of_it(gold, said):
    assert equal(gold, said)
    assert not equal("7 of 9", said)


def test_a_reason_counts_where_the_gold_answer_gives_one():
    assert equal("because it is hot", "Because it is hot.")
    assert not equal("red because of rust", "red because of paint")
