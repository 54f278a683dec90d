"""Tasks with verified answers: what they ask, what is read from completions, and what these earn."""

from dataclasses import replace

import pytest

from m2io_jax.episodes.episode import Candidate, Episode, QuestionImage
from m2io_jax.episodes.prompt import Picture
from m2io_jax.errors import RowError
from m2io_jax.tasks import find_task
from m2io_jax.tasks.task import labelled_question
from m2io_jax.tasks.verifiable import is_formatted, said, write
from m2io_jax.verification import answers
from m2io_jax.verification.pool import Unverified

NAMES = ("counting", "geometry", "arithmetic")
RIGHT, WRONG = 1.0, 0.0


def asked(answer: str, *, pictures: int = 1, reasoning: str = "") -> Episode:
    candidates = tuple(Candidate(str(index), b"", caption="SECRET") for index in range(pictures))
    return Episode("e", "How many?", (), candidates, (), (), answer=answer, reasoning=reasoning)


def parts(accuracy: float, format: float) -> dict[str, float]:
    return {"accuracy": accuracy, "format": format}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("completion", "accuracy", "format"),
    [
        ("<think>\na 1\nb 2\n</think>\n<answer>\n2\n</answer>", RIGHT, 1),
        ("<think></think><answer>2</answer>", RIGHT, 1),
        (" <think> 1 + 1 </think> \n\n <answer> 2.0 </answer>\n", RIGHT, 1),
        ("<think>a</think><answer>3</answer>", WRONG, 1),
        ("<think>a</think><answer>two</answer>", RIGHT, 1),
        ("<think>a</think><answer>Two cubes.</answer>", RIGHT, 1),
        ("<think>a</think><answer>2 objects</answer>", RIGHT, 1),
        ("<think>a</think><answer>three objects</answer>", WRONG, 1),
        ("<think>a</think><answer>many</answer>", WRONG, 1),
        ("<answer>2</answer>", RIGHT, 0),
        ("It is <answer>2</answer>, I think.", RIGHT, 0),
        ("<think>a</think><answer>2</answer> indeed", RIGHT, 0),
        ("<answer>2</answer><think>a</think>", RIGHT, 0),
        ("<think>a<think>b</think></think><answer>2</answer>", RIGHT, 0),
        ("<think>a</think>so<answer>2</answer>", RIGHT, 0),
        ("<think>a</think><answer></answer>", WRONG, 0),
        ("<think>a</think><answer> \n </answer>", WRONG, 0),
        ("<think>a</think><answer>1</answer><answer>2</answer>", WRONG, 0),
        ("<think><answer>1</answer></think><answer>2</answer>", WRONG, 0),
        ("<think>2</think>", WRONG, 0),
        ("<think>a</think><answer>2", WRONG, 0),
        ("2", WRONG, 0),
        ("", WRONG, 0),
    ],
)
def test_scores_by_hand(name, completion, accuracy, format):
    assert find_task(name).score(completion, asked("2")) == parts(accuracy, format)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        *(("0", True), ("0.0", True), ("-0", True), ("1", False), ("none", False), ("0%", False), ("0/1", True)),
        *(("zero", True), ("0 cubes", True), ("0.5 cubes", False), ("minus one", False), ("first", False)),
    ],
)
def test_a_count_is_a_whole_number(answer, right):
    assert find_task("counting").score(write("", answer), asked("0")) == parts(float(right), 1)


def test_a_count_that_is_none_makes_no_row():
    for answer in ("", "many", "1.5", "-1", "3%"):
        with pytest.raises(RowError, match="counting"):
            find_task("counting").prompt(asked(answer))
    with pytest.raises(RowError):
        find_task("arithmetic").prompt(asked(""))


@pytest.mark.parametrize("name", NAMES)
def test_a_gold_answer_that_cannot_be_read_makes_nothing_right(name):
    for answer in ("", "&&&", "many"):
        if name == "counting" or answer != "many":  # a word is a good answer elsewhere
            with pytest.raises(Unverified, match="gold"):
                find_task(name).score(write("", "2"), asked(answer))


def test_a_prompt_shows_pictures_and_question_and_nothing_that_tells_the_answer():
    prompt = find_task("geometry").prompt(asked("70", pictures=2, reasoning="1+69=70"))
    assert prompt.user == (Picture(0), "\n", Picture(1), "\n", "How many?")
    assert find_task("arithmetic").prompt(asked("70", pictures=0)).user == ("How many?",)


def test_images_stand_inside_the_question_where_the_episode_says_so():
    asked_of_two = replace(
        asked("70", pictures=2), question="Is  like ?", question_images=(QuestionImage(3, 1), QuestionImage(9, 0))
    )
    assert find_task("geometry").prompt(asked_of_two).user == ("Is ", Picture(1), " like ", Picture(0), "?")
    assert labelled_question(asked_of_two) == "Is [B] like [A]?"
    ends = replace(asked_of_two, question="x", question_images=tuple(QuestionImage(at, 0) for at in (0, 1, 1)))
    assert find_task("counting").prompt(ends).user == (Picture(0), "x", Picture(0), Picture(0))
    assert labelled_question(asked("70", pictures=2)) == "How many?"


@pytest.mark.parametrize("name", NAMES)
def test_targets_earn_everything_with_reasoning_and_without(name):
    for reasoning in ("", "red cube 1\nball"):
        episode = asked("12", reasoning=reasoning)
        target = find_task(name).target(episode)
        assert find_task(name).score(target, episode) == parts(RIGHT, 1)
        assert target == f"<think>\n{reasoning}{chr(10) if reasoning else ''}</think>\n<answer>\n12\n</answer>"


@pytest.mark.parametrize(("name", "answer"), [("counting", "2"), ("geometry", "70"), ("arithmetic", "7")])
def test_the_manual_shows_a_completion_that_earns_everything(name, answer):
    manual = find_task(name).prompt(asked(answer)).manual
    example = manual[manual.index("For example:\n") + len("For example:\n") :]
    assert find_task(name).score(example, asked(answer)) == parts(RIGHT, 1)


def test_what_cannot_be_verified_has_no_score(monkeypatch):
    class Hanging:
        def ask(self, request):
            raise Unverified("timeout", "took too long")

    monkeypatch.setattr(answers, "_POOL", Hanging())
    task, episode = find_task("geometry"), asked(r"2\sqrt{3}")
    with pytest.raises(Unverified):
        task.score(write("", r"\sqrt{12}"), episode)
    with pytest.raises(RowError, match="timeout"):
        task.prompt(replace(episode, answer=r"3\sqrt{7}"))
    # nothing was said, so nothing has to be verified
    assert task.score("no tags", episode) == parts(WRONG, 0)


@pytest.mark.parametrize(
    "completion",
    [
        "<think>" * 20_000,
        "<answer>" * 20_000,
        "<think>" + "x" * 100_000,
        "<think></think>" + " \n" * 50_000,
        "<answer>" + "<" * 100_000,
        "<think></think><answer>" + "9" * 100_000 + "</answer>",
        "\ud7ff\0</answer><answer>",
    ],
    ids=range(7),
)
def test_hostile_completions_are_read_in_no_time(completion):
    assert all(find_task(name).score(completion, asked("2"))["accuracy"] == WRONG for name in NAMES)


def test_reading_by_hand():
    assert said("a<answer> 1 \n</answer>b") == "1" and said("<answer>1") is None
    assert said("<answer>1<answer>2</answer>") == "2"  # the first is no block
    assert is_formatted("<think>\n</think>\t<answer>x</answer>") and not is_formatted("<think>\n</think><answer>x")
