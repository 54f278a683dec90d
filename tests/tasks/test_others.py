"""Labels, and the tasks that come before placing: look, describe, find, recite, place in words."""

from dataclasses import replace

import numpy as np
import pytest

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.episodes.prompt import Picture
from m2io_jax.errors import UserError
from m2io_jax.tasks import TASKS, find_task
from m2io_jax.tasks.task import choose, label, unlabel

EPISODE = Episode(
    id="e",
    question="How?",
    sentences=("Cut the egg.", "Wait.", "Boil it."),
    candidates=(
        Candidate("a", b"", content="one red egg"),
        Candidate("b", b"", content="two blue pans knife"),
        Candidate("c", b"", caption="a bowl"),
    ),
    gold=(Placement(1, 0), Placement(3, 1)),
    labels=(Placement(1, 0),),
)
NOTHING_KNOWN = Episode("n", "How?", ("Wait.",), (Candidate("a", b""),), (), ())


def said(prompt) -> str:
    return "".join(getattr(part, "text", part) for part in prompt.user)


def test_reciting_is_out_of_order_and_scored_by_the_sentence():
    task, lines = find_task("recite"), find_task("recite").target(EPISODE).split("\n")
    assert said(task.prompt(EPISODE)) == "Cut the egg=1\nWait=2\nBoil it=3\n"
    assert sorted(lines) == [" Boil it=3", " Cut the egg=1", " Wait=2"]
    assert task.score(task.target(EPISODE), EPISODE) == {"recited": 1.0}
    assert task.score(" the egg=1\n Wait=3", EPISODE) == {"recited": pytest.approx(1 / 3)}


def test_scrambled_sentences_hold_the_same_words_once_and_are_recited_as_they_stand():
    task, words = find_task("recite_scrambled"), {"Cut", "the", "egg", "Wait", "Boil", "it"}
    line, none = said(task.prompt(EPISODE)).split("\n")
    assert line.endswith("=1") and sorted(line.removesuffix("=1").split()) == sorted(words) and not none
    recited = task.target(EPISODE).strip()
    assert recited.endswith("=1") and line.endswith(recited)
    assert task.score(task.target(EPISODE), EPISODE) == {"recited": 1.0}


def test_told_pictures_are_the_inserters_task_in_words_with_exact_gold():
    known = replace(EPISODE, labels=(Placement(2, 2),))
    task, shown = find_task("inserter_told"), find_task("inserter")
    assert not any(isinstance(part, Picture) for part in task.prompt(known).user)
    assert said(task.prompt(known)).endswith("one red egg A\ntwo blue pans knife B\na bowl C\n")
    assert task.target(known) == shown.target(replace(EPISODE, labels=EPISODE.gold))
    assert task.score(task.target(known), known) == dict.fromkeys(shown.rewards, 1.0)
    assert task.target(NOTHING_KNOWN) is None


def test_labels():
    assert [label(index) for index in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == [
        "A", "B", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA",
    ]  # fmt: skip
    assert all(unlabel(label(index)) == index for index in range(2000))


def test_describe():
    task = find_task("describe")
    assert task.target(EPISODE) == "A one red egg\nB two blue pans knife\nC a bowl"
    assert task.score(task.target(EPISODE), EPISODE) == {"described": 1.0}
    # by hand: the labels count as words; 4 + 5 + 3 words; "green" for "red" and the last line missing
    assert task.score("A one green egg\nB two blue pans knife", EPISODE) == {"described": pytest.approx(8 / 12)}
    assert task.target(NOTHING_KNOWN) is None


def test_describing_some_is_describing_the_same_some_each_time():
    task, many = find_task("describe_three"), Episode("m", "", (), EPISODE.candidates * 2, (), ())
    shown = [part.candidate for part in task.prompt(many).user if isinstance(part, Picture)]
    assert len(shown) == 3 and task.prompt(many) == task.prompt(many)
    assert [line[0] for line in task.target(many).split("\n")] == [label(index) for index in shown]


def test_find():
    task = find_task("find")
    assert task.target(EPISODE) == "1:A\n2:none\n3:none"  # what supervision learns from: the labels
    assert task.score("1:A\n2:none\n3:B", EPISODE) == {"found": 1.0}  # what is scored: the gold
    assert task.score("1:A\n2:none\n3:none", EPISODE) == {"found": pytest.approx(2 / 3)}
    assert task.score("1:A\n2:none\n3:B\n4:C", EPISODE) == {"found": pytest.approx(3 / 4)}


def test_look():
    task = find_task("look")
    assert task.prompt(EPISODE).user == (Picture(0), "\n")
    assert task.target(EPISODE) == " one red egg"
    assert task.score(" one blue egg", EPISODE) == {"seen": pytest.approx(2 / 3)}
    assert task.score("one red egg egg", EPISODE) == {"seen": pytest.approx(3 / 4)}
    assert task.target(NOTHING_KNOWN) is None


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("episode", [EPISODE, NOTHING_KNOWN], ids=["rich", "poor"])
def test_hostile_completions_are_scored_between_0_and_1(name, episode):
    for completion in ("", "\n" * 10_000, "A " * 10_000, "1:" + "9" * 10_000, "\0\u2028\ud7ff", "<think>" * 1000):
        parts = find_task(name).score(completion, episode)
        assert set(parts) == set(find_task(name).rewards)
        assert all(0 <= part < 1 for part in parts.values())


def test_a_task_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(UserError, match="inserter"):
        find_task("inserte")


def test_tasks_are_drawn_by_weight():
    random = np.random.default_rng(0)
    drawn = [choose({"a": 3.0, "b": 1.0, "c": 0.0}, random) for _ in range(4000)]
    assert "c" not in drawn
    assert drawn.count("a") / len(drawn) == pytest.approx(0.75, abs=0.03)
