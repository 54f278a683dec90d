"""The matching rule's floors, calibrated on episodes whose images are known."""

import numpy as np
import pytest

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.retrieval.encoder import TfidfEncoder
from m2io_jax.serving.matching import Floors, Match, description, fit_floors, match_captions

OWN = (True, True)


def episode(sentences, captions, gold=(), context=""):
    candidates = tuple(Candidate(c or f"no caption {i}", b"", c, context, "d", i) for i, c in enumerate(captions))
    return Episode("e", "Why?", tuple(sentences), candidates, tuple(gold), (), "d")


def fitted(values):
    """Floors of one-candidate episodes, from (similarity, is right)."""
    episodes = [episode(["S."], ["c"], [Placement(1, 0)] if right else []) for _, right in values]
    return fit_floors(episodes, [[Match(1, 0, OWN, similarity)] for similarity, _ in values])


@pytest.mark.parametrize(
    ("values", "floor"),
    [
        ([(0.9, True)] * 3, 0.9),
        ([(0.9, True)] * 8 + [(0.5, True), (0.4, False), (0.3, False), (0.2, False), (0.1, False)], 0.1),
        ([(0.9, True)] * 8 + [(0.5, False)] * 4 + [(0.4, False), (0.3, True), (0.2, False)], 0.3),
        ([(0.9, True)] * 8 + [(0.5, False)] * 4 + [(0.4, False), (0.3, False), (0.2, False)], 0.5),
        ([(0.9, True)], np.inf),  # one right image proves nothing, and no wrong one says where to begin
        ([(0.8, False), (0.7, True), (0.6, False)], 0.9),
        ([(0.5, False)] * 9, 0.75),
        ([], None),
    ],
)
def test_the_floor_is_the_lowest_at_which_most_placed_images_are_right(values, floor):
    assert fitted(values).by_kind.get(OWN) == floor


def test_a_kind_of_which_nothing_is_known_is_never_placed():
    assert not Floors().keeps(Match(1, 0, OWN, 1.0))
    assert not Floors({(False, True): 0.1}).keeps(Match(1, 0, OWN, 1.0))
    assert Floors({OWN: 0.5}).keeps(Match(1, 0, OWN, 0.5))


@pytest.fixture(scope="module")
def encoder():
    return TfidfEncoder.fit(
        ["open the lid", "grease the new seal", "press it into the housing", "a box of screws", "old"]
    )


def test_captions_go_to_the_sentences_that_say_them(encoder):
    said = episode(["Open the lid.", "Grease the seal.", "It is done."], ["Grease on the seal", "The lid", "A box"])
    (matches,) = match_captions([said], encoder)
    assert {(match.slot, match.candidate) for match in matches} == {(2, 0), (1, 1)}


@pytest.mark.parametrize("captions", [["", ""], ["of the", "it is"], ["qwertz", "xyzzy"], []])
def test_candidates_without_telling_words_are_placed_nowhere(encoder, captions):
    assert match_captions([episode(["Open the lid of the box.", "It is the end of the line."], captions)], encoder) == [
        []
    ]


def test_stop_words_are_no_likeness(encoder):
    assert match_captions([episode(["Put it into the oven."], ["Press it into the housing"])], encoder) == [[]]


def test_the_context_counts_without_what_the_answer_says():
    sentences = ["Open the lid and wait.", "Keep all the screws in a box."]
    context = "lid and wait. […] Keep all the screws in a box. A photo of rusty bolts."
    assert description(Candidate("p", b"", "", context), sentences) == "photo rusty bolts"
    assert description(Candidate("p", b"", "A box", context), sentences) == "box"
    cut_off = "the lid and wait. […] Keep all the screws"
    assert description(Candidate("p", b"", "", cut_off), sentences) == ""
    items = "two rusty bolts Open the lid and wait. Keep all the screws in a box."
    assert description(Candidate("p", b"", "", items), sentences) == "two rusty bolts"
