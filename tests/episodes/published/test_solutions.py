"""The answer of a solution and its reasoning, which supervision teaches."""

import time

import pytest
from row_fakes import bad_row, read_row

from m2io_jax.episodes.published.draft import BadRow
from m2io_jax.episodes.published.solutions import is_sentence, read_solution
from m2io_jax.tasks import find_task


@pytest.mark.parametrize(
    ("solution", "answer", "reasoning"),
    [
        ("<think>I count 4.</think>\n<answer>4</answer>", "4", "I count 4."),
        ("<think>\nI count\n\n 4.\n</think>\n\n<answer> 4 </answer>\n", "4", "I count\n4."),
        ("<reasoning>I count 4.</reasoning><answer>4</answer>", "4", "I count 4."),
        ("I count 4.</think><answer>4</answer>", "4", "I count 4."),
        ("<think>I count 4.</think> 4", "4", "I count 4."),
        ("I count 4.\n<answer>4</answer>", "4", "I count 4."),
        ("<think>Half of 8.</think>So \\boxed{4}.", "4", "Half of 8.\nSo \\boxed{4}."),
        ("<CONCLUSION>4</CONCLUSION>", "4", ""),
        ("2 and 2 are <<2+2=4>>4.\n#### 4", "4", "2 and 2 are 4."),
        ("Then $x = \\boxed{\\frac{1}{2}}$ holds.", "\\frac{1}{2}", "Then $x = \\boxed{\\frac{1}{2}}$ holds."),
        ("It has 2 more. The answer is 4.", "4", "It has 2 more."),
        ("I see two cats.\nFinal answer: B", "B", "I see two cats."),
        ("$\\boxed{4}$", "$\\boxed{4}$", ""),
        ("<answer>4</answer>", "4", ""),
        ("4", "4", ""),
    ],
)
def test_answer_and_reasoning(solution, answer, reasoning):
    found = read_solution(solution)
    assert (found.answer, found.reasoning) == (answer, reasoning)


@pytest.mark.parametrize("answer", ["<think>I count 2 and 2.</think><answer>4</answer>", "2 and 2.\n#### 4"])
def test_supervision_teaches_the_reasoning_in_the_format(tmp_path, answer):
    episode = read_row(tmp_path, {"problem": "How many?", "solution": answer})
    target = find_task("counting").target(episode)
    assert target == f"<think>\n{episode.reasoning}\n</think>\n<answer>\n4\n</answer>" and "2 and 2." in target
    assert find_task("counting").score(target, episode) == {"accuracy": 1.0, "format": 1.0}


@pytest.mark.parametrize("column", ["reasoning", "rationale", "cot", "thinking", "explanation", "solution"])
def test_reasoning_in_a_column_of_its_own(tmp_path, column):
    episode = read_row(tmp_path, {"problem": "How many?", "answer": "4", column: "Two here and two there."})
    assert (episode.answer, episode.reasoning) == ("4", "Two here and two there.")


def test_steps_in_a_list_are_lines(tmp_path):
    row = {"problem": "How many?", "answer": "4", "rationale": ["Two here.", "Two there."]}
    assert read_row(tmp_path, row).reasoning == "Two here.\nTwo there."


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        ("<answer>1</answer><answer>2</answer>", "several answers"),
        ("<answer>1", "answer tags that do not match"),
        ("1</answer>", "answer tags that do not match"),
        ("<answer><answer>1</answer></answer>", "answer tags that do not match"),
        ("<answer><think>a</think>1</answer>", "answer tags that do not match"),
        ("First \\boxed{1}, then \\boxed{2}.", "several answers"),
        ("<think>Only this", "an answer with half a <think> tag"),
    ],
)
def test_tags_that_tell_no_one_answer_leave_the_row_out(tmp_path, solution, reason):
    assert bad_row(tmp_path, {"problem": "How many?", "solution": solution}) == reason


def test_reasoning_whose_tags_do_not_match_is_not_kept_and_told():
    found = read_solution("<think>one<think>two</think><answer>4</answer>")
    assert (found.answer, found.reasoning) == ("4", "") and len(found.notes) == 1
    assert read_solution("<answer>4</answer> as I said").notes == ("the text behind its answer",)


@pytest.mark.parametrize(
    ("answer", "solution", "agree"),
    [
        ("4", "So \\boxed{4}.", True),
        ("4", "So \\boxed{4.0}.", True),
        ("A", "<think>x</think><answer>a</answer>", True),
        ("A", "We get \\boxed{12}.", True),  # the choice A is 12
        ("4", "So \\boxed{5}.", False),
        ("B", "<answer>C</answer>", False),
        ("10", "#### 11", False),
    ],
)
def test_two_answers_that_surely_differ_leave_the_row_out(tmp_path, answer, solution, agree):
    row = {"problem": "How many?", "answer": answer, "solution": solution}
    if agree:
        assert read_row(tmp_path, row).answer == answer
    else:
        assert bad_row(tmp_path, row) == "two answers that differ"


def test_a_response_that_answers_otherwise_is_not_kept(tmp_path):
    row = {"problem": "How many?", "answer": "4", "response": "I see two and three, so \\boxed{5}."}
    episode = read_row(tmp_path, row)
    assert (episode.answer, episode.reasoning) == ("4", "")
    assert read_row(tmp_path, row | {"answer": "5"}).reasoning == "I see two and three, so \\boxed{5}."


@pytest.mark.parametrize(
    "text", ["<answer>" * 100_000, "\\boxed{" * 100_000, "####" + " " * 300_000 + "x", "<think>" * 100_000 + "4"]
)
def test_long_solutions_take_no_long_time(text):
    begun = time.perf_counter()
    try:
        read_solution(text)
    except BadRow:
        pass
    assert time.perf_counter() - begun < 3


@pytest.mark.parametrize(
    "turn",
    [
        {"content": "4", "reasoning_content": "Two here, two there."},
        {"content": "4", "thinking": "Two here, two there."},
        {"content": "<answer>4</answer>", "reasoning": "Two here, two there."},
        {"content": [{"type": "thinking", "thinking": "Two here, two there."}, {"type": "text", "text": "4"}]},
        {"content": [{"type": "reasoning", "text": "Two here, two there."}, "4"]},
    ],
)
def test_thoughts_beside_the_words_of_the_assistant(tmp_path, turn):
    chat = [{"role": "user", "content": "How many?"}, {"role": "assistant"} | turn]
    episode = read_row(tmp_path, {"messages": chat})
    assert (episode.answer, episode.reasoning) == ("4", "Two here, two there.")


@pytest.mark.parametrize(
    "said",
    [
        "The answer is 5, not 6.",
        "The answer is not 5.",
        "So the answer is between 5 and 6.",
        "The answer is (B) because the angle is right.",
        "To find x, we add 2 and 3.",
        "There are 3 cats",
        "The two lines meet at 3 points, and the circle has radius 5.",
    ],
)
def test_a_sentence_around_numbers_is_no_answer(tmp_path, said):
    chat = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": said}]
    assert bad_row(tmp_path, {"messages": chat}) == "an answer in a sentence, which cannot be compared"


@pytest.mark.parametrize(
    "answer",
    [
        "5 cubic metres per second",
        "x = 5 or x = 6",
        "3 hours 20 minutes",
        "$5 \\text{ if it is so}$",
        "dark red",
        "(3, 4)",
    ],
)
def test_answers_of_several_words_are_no_sentence(answer):
    assert not is_sentence(answer)
