"""The choices that a question lists make a letter and its text one answer."""

import pytest

from m2io_jax.episodes.episode import Episode
from m2io_jax.tasks import find_task
from m2io_jax.verification.choices import read_choices, with_choices
from m2io_jax.verification.pool import Unverified

ONE_A_LINE = "How long is AB?\nA. 25 cm\nB. 30 cm\nC. 35 cm"
IN_A_LINE = "How long is AB? (A) 25 cm (B) 30 cm (C) 35 cm"


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        (ONE_A_LINE, ["25 cm", "30 cm", "35 cm"]),
        (IN_A_LINE, ["25 cm", "30 cm", "35 cm"]),
        ("Which?\nChoices: A: red, B: blue", ["red", "blue"]),
        ("Which?\nA) red\nB) blue\nAnswer with a letter.", ["red", "blue"]),
        ("∠A等于多少？A．30° B．60° C．90°", ["30°", "60°", "90°"]),
        ("How many?\n**A.** 1\n**B.** 2", ["1", "2"]),
        ("In triangle ABC, what is angle A? A. 2, B. 3; C. 4", ["2", "3", "4"]),
        ("How long is AB?", []),
        ("A. alone is no list", []),
        ("B. 3 and C. 4 begin with no A", []),
        ("A. 3\nC. 4", []),
        ("A.\nB. 4", []),
    ],
)
def test_choices_are_read_by_their_letters(question, texts):
    assert read_choices(question) == dict(zip("ABCDEFGH", texts, strict=False))


def test_what_is_compared_has_the_text_on_both_sides():
    assert with_choices(ONE_A_LINE, "B", "30 cm") == ("B. 30 cm", "30 cm")
    assert with_choices(ONE_A_LINE, "30 cm", "(B)") == ("30 cm", "30 cm")
    assert with_choices(ONE_A_LINE, "B", "A") == ("B", "A")
    assert with_choices(ONE_A_LINE, "30 cm", "25 cm") == ("30 cm", "25 cm")
    assert with_choices(ONE_A_LINE, "30 cm", "H") == ("30 cm", "H")


@pytest.mark.parametrize(
    ("question", "gold", "said", "right"),
    [
        (ONE_A_LINE, "B", "30 cm", True),
        (ONE_A_LINE, "B", "0.3 m", True),
        (ONE_A_LINE, "B", "30", True),
        (ONE_A_LINE, "B", "25 cm", False),
        (ONE_A_LINE, "B", "red", False),
        (ONE_A_LINE, "B", "b", True),
        (ONE_A_LINE, "B", "B. 30 cm", True),
        (ONE_A_LINE, "B", "C", False),
        (IN_A_LINE, "30 cm", "B", True),
        (IN_A_LINE, "30 cm", "A", False),
        (IN_A_LINE, "30 cm", "(B) 30 cm", True),
        ("How long is AB?", "30 cm", "B", False),
    ],
)
def test_a_task_knows_the_choices_of_its_question(question, gold, said, right):
    episode = Episode("e", question, (), (), (), (), answer=gold)
    scores = find_task("geometry").score(f"<think>\n</think>\n<answer>{said}</answer>", episode)
    assert scores["accuracy"] == right


def test_a_text_is_unverified_where_the_question_lists_no_choices():
    episode = Episode("e", "Which one is it in the image?", (), (), (), (), answer="B")
    with pytest.raises(Unverified):
        find_task("geometry").score("<think>\n</think>\n<answer>30 cm</answer>", episode)


def test_counting_takes_the_letter_of_the_right_count():
    episode = Episode("e", "How many cubes?\nA. 4\nB. 6", (), (), (), (), answer="6")
    scores = [
        find_task("counting").score(f"<think>\n</think>\n<answer>{said}</answer>", episode)["accuracy"]
        for said in ("B", "A", "6 cubes")
    ]
    assert scores == [1.0, 0.0, 1.0]
