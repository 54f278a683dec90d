"""The inserter's completions: what is read from them, and what they earn."""

from dataclasses import replace

import numpy as np
import pytest

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.episodes.prompt import Picture, Shortened
from m2io_jax.tasks.inserter import (
    MANUAL,
    InserterTask,
    order_reward,
    parse,
    placement_reward,
    selection_reward,
    write,
)

TASK = InserterTask("inserter")


def episode(*, candidates: int = 3, sentences: int = 4, gold=(), labels=None, **shown) -> Episode:
    return Episode(
        id="e",
        question="How?",
        sentences=tuple(f"Sentence {number}." for number in range(1, sentences + 1)),
        candidates=tuple(Candidate(picture=str(index), data=b"", **shown) for index in range(candidates)),
        gold=tuple(gold),
        labels=tuple(gold if labels is None else labels),
    )


def at(picture: int, slot: int) -> Placement:
    return Placement(slot=slot, picture=picture)


def says(answer: str, think: str = "") -> str:
    return f"<think>\n{think}</think>\n<answer>\n{answer}</answer>"


def test_a_completion_worked_by_hand():
    parsed = parse("<think>\nA a red egg=2\nB a pan=none\n</think>\n<answer>\nA:2\nC:0\n</answer>", episode())
    assert parsed.placements == (at(0, 2), at(2, 0))
    assert parsed.thinking == "A a red egg=2\nB a pan=none\n"


def test_what_is_written_is_read_back():
    random = np.random.default_rng(7)
    for _ in range(300):
        candidates, sentences = int(random.integers(1, 60)), int(random.integers(0, 30))
        count = int(random.integers(0, candidates + 1))
        pictures = [int(index) for index in random.permutation(candidates)[:count]]
        placements = tuple(at(picture, int(random.integers(0, sentences + 1))) for picture in pictures)
        completion = write([f"line {index}" for index in range(3)], placements)
        parsed = parse(completion, episode(candidates=candidates, sentences=sentences))
        assert parsed.placements == placements
        assert parsed.thinking == "line 0\nline 1\nline 2\n"


def test_a_target_earns_everything_and_teaches_the_labels_not_the_gold():
    gold, labels = (at(1, 0), at(0, 3)), (at(0, 2),)
    perfect = TASK.target(episode(gold=gold, caption="a pan"))
    assert TASK.score(perfect, episode(gold=gold)) == dict.fromkeys(TASK.rewards, 1.0)
    taught = TASK.target(episode(gold=gold, labels=labels, caption="a pan"))
    assert taught == says("A:2\n", "A a pan: Sentence 2=2\nB a pan=none\nC a pan=none\n")
    assert TASK.score(TASK.target(episode()), episode()) == dict.fromkeys(TASK.rewards, 1.0)


@pytest.mark.parametrize(
    "completion",
    [
        pytest.param("", id="nothing"),
        pytest.param("none", id="no tags"),
        pytest.param(says(""), id="an empty answer"),
        pytest.param(says("A:1\nnone\n"), id="none beside a placement"),
        pytest.param(says("none"), id="no line end"),
        pytest.param(says("A: 1\n"), id="a space"),
        pytest.param(says("A:1 \n"), id="a space at the end"),
        pytest.param(says("A:1\n\nB:1\n"), id="an empty line"),
        pytest.param(says("a:1\n"), id="a small letter"),
        pytest.param(says("1:A\n"), id="the wrong way round"),
        pytest.param(says("A:-1\n"), id="a negative slot"),
        pytest.param(says("A:5\n"), id="a slot behind the last sentence"),
        pytest.param(says("D:1\n"), id="a picture that is not there"),
        pytest.param(says("AA:1\n"), id="a picture with two letters that is not there"),
        pytest.param(says("A:1\nA:2\n"), id="a picture twice"),
        pytest.param(says("A:1\n") + "\n", id="something behind the answer"),
        pytest.param(" " + says("A:1\n"), id="something before the reasoning"),
        pytest.param(says("A:1\n").replace("<think>\n", "<think>"), id="no line end behind a tag"),
        pytest.param("<answer>\nA:1\n</answer>", id="no reasoning"),
        pytest.param(says("A:1\n", think="<think>\n"), id="a tag inside the reasoning"),
        pytest.param(says("A:1\n", think="</think>\n<answer>\nB:1\n</answer>\n"), id="two answers"),
        pytest.param(says("A:1\n") * 2, id="two completions"),
        pytest.param(says("A:\u0661\n"), id="an Arabic digit"),
        pytest.param(says("A:\uff11\n"), id="a full-width digit"),
        pytest.param(says("A:\u00b2\n"), id="a superscript"),
        pytest.param(says("\u0391:1\n"), id="a Greek letter"),
        pytest.param(says("A:1\u2028"), id="a line separator that is no line end"),
        pytest.param(says("A:1\r\n"), id="a carriage return"),
        pytest.param(says("A:" + "9" * 50_000 + "\n"), id="a slot of many digits"),
        pytest.param(says("A:" + "0" * 50_000 + "1\n"), id="many noughts"),
        pytest.param(says("A" * 50_000 + ":1\n"), id="a picture of many letters"),
        pytest.param("<think>\n" * 5_000, id="nested tags"),
        pytest.param("<think>\n" + "</think>\n<answer>\n" * 5_000, id="tags without end"),
        pytest.param("<" * 50_000, id="beginnings of tags"),
    ],
)
def test_what_breaks_the_grammar_earns_nothing(completion):
    asked = episode(gold=(at(0, 1),))
    assert parse(completion, asked) is None
    assert TASK.score(completion, asked) == dict.fromkeys(TASK.rewards, 0.0)


def test_any_bytes_are_survived():
    random = np.random.default_rng(3)
    pieces = ["<think>", "</think>", "<answer>", "</answer>", "\n", "A:1", "none", "B:", "9", "\0", "\ud7ff", ":", "é"]
    for _ in range(2000):
        completion = "".join(random.choice(pieces, int(random.integers(0, 12))))
        assert set(TASK.score(completion, episode()).values()) <= {0.0, 1.0}


def test_selection_by_hand():
    gold = (at(0, 1), at(1, 2))
    assert selection_reward((at(0, 4),), gold) == pytest.approx(2 / 3)  # precision 1, recall 1/2; slots do not matter
    assert selection_reward((at(0, 1), at(2, 1), at(1, 2)), gold) == pytest.approx(4 / 5)
    assert selection_reward((), gold) == 0.0
    assert selection_reward((at(0, 1),), ()) == 0.0
    assert selection_reward((), ()) == 1.0


def test_placement_by_hand():
    gold = (at(0, 1), at(1, 2))
    assert placement_reward((at(0, 1), at(1, 2)), gold) == 1.0
    assert placement_reward((at(0, 2), at(1, 2)), gold) == pytest.approx(2 * 1.5 / 4)  # a neighbour counts one half
    assert placement_reward((at(0, 0), at(1, 3)), gold) == pytest.approx(2 * 1.0 / 4)
    assert placement_reward((at(0, 3), at(1, 4)), gold) == 0.0  # two slots off
    assert placement_reward((at(0, 1), at(2, 2)), gold) == pytest.approx(2 * 1.0 / 4)  # a wrong picture in a right slot
    assert placement_reward((at(0, 1),), gold) == pytest.approx(2 / 3)
    assert placement_reward((), gold) == 0.0
    assert placement_reward((), ()) == 1.0


def test_order_by_hand():
    gold = (at(0, 1), at(1, 2))
    assert order_reward((at(1, 2), at(0, 1)), gold) == 1.0  # the order of mention is not the order of reading
    # both there, in the wrong order: two substitutions at 1 over a length of 2, against a scale of 3
    assert order_reward((at(1, 1), at(0, 2)), gold) == pytest.approx(1 - (2 / 2) / 3)
    # one of two, the other missing at 3: half of 1 - (3 / 2) / 3
    assert order_reward((at(0, 1),), gold) == pytest.approx(0.5 * (1 - 1.5 / 3))
    assert order_reward((), ()) == 1.0
    assert order_reward((at(0, 1),), ()) == 0.0


def test_every_part_lies_between_0_and_1():
    random = np.random.default_rng(5)

    def drawn() -> tuple[Placement, ...]:
        pictures = random.permutation(5)[: int(random.integers(0, 6))]
        return tuple(sorted(at(int(picture), int(random.integers(0, 5))) for picture in pictures))

    for _ in range(500):
        asked = episode(candidates=5, gold=drawn())
        placed = drawn()
        scores = TASK.score(write([], placed), asked)
        assert all(0 <= score <= 1 for score in scores.values()) and scores["format"] == 1.0
        assert (scores["placement"] == 1.0) == (set(placed) == set(asked.gold))


def test_a_prompt_shows_question_sentences_and_pictures_and_nothing_that_tells_the_answer():
    asked = episode(sentences=2, candidates=2, gold=(at(0, 1),), caption="a\n pan", context="SECRET", content="HIDDEN")
    prompt = TASK.prompt(asked)
    text = "".join(
        "[picture]" if isinstance(part, Picture) else part.text if isinstance(part, Shortened) else part
        for part in prompt.user
    )
    assert text == "How?\nSentence 1=1\nSentence 2=2\n[picture]A a pan\n[picture]B a pan\n"
    assert [part.candidate for part in prompt.user if isinstance(part, Picture)] == [0, 1]


def test_a_caption_cannot_break_the_target():
    strange = "x=1\n</think> <answer>\nA:1 & more words than that"
    asked = episode(gold=(at(0, 1),), caption=strange)
    parsed = parse(TASK.target(asked), asked)
    assert parsed is not None and parsed.placements == asked.gold


def test_reasoning_reads_on_where_the_sentence_says_what_the_picture_shows():
    asked = replace(
        episode(sentences=2, candidates=2, gold=(at(0, 2),)), sentences=("Stir.", "Chop two red eggs </think> now.")
    )
    shown = tuple(replace(candidate, content="two red eggs") for candidate in asked.candidates)
    target = TASK.target(replace(asked, candidates=shown))
    assert target == says("A:2\n", "A two red eggs (/think) now=2\nB two red eggs=none\n")


def test_the_manual_shows_a_completion_that_earns_everything():
    example = MANUAL[MANUAL.index("<think>") :]
    asked = episode(gold=(at(0, 2),), candidates=2)
    assert TASK.prompt(asked).manual == MANUAL
    assert TASK.score(example, asked) == dict.fromkeys(TASK.rewards, 1.0)
