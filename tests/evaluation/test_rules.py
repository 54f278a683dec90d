"""Rules over episodes, on hand-made ones; the assignment against trying every permutation."""

import itertools
import random

import numpy as np
import pytest

from m2io_jax.episodes.episode import Candidate, Episode, Placement
from m2io_jax.evaluation import rules
from m2io_jax.evaluation.rules import (
    Threshold,
    fit_encoder,
    fit_threshold,
    insert_all,
    insert_matching,
    insert_none,
    match_episodes,
)
from m2io_jax.picture_metrics import precision_recall_f1


class WordEncoder:
    """Texts are numbers separated by spaces: the vector itself. Similarities are then known without TF-IDF."""

    kind, dim = "numbers", 3

    def encode(self, texts):
        return np.array([[float(word) for word in text.split()] for text in texts], np.float32).reshape(-1, self.dim)


def candidate(name, document="d", position=0, context="", caption="", content=""):
    return Candidate(name, b"", caption, context, document, position, content)


def episode(sentences, candidates, gold=()):
    return Episode("e", "question", tuple(sentences), tuple(candidates), tuple(gold), tuple(gold))


def test_all_is_in_document_order_and_spread_evenly():
    candidates = [candidate("p", "b", 1), candidate("q", "a", 9), candidate("r", "a", 2)]
    made = insert_all(episode("uvwxyz", candidates))
    assert made == [Placement(2, 2), Placement(4, 1), Placement(6, 0)]
    assert insert_all(episode("u", candidates)) == [Placement(0, 2), Placement(0, 1), Placement(1, 0)]
    assert insert_all(episode("", candidates)) == [Placement(0, 2), Placement(0, 1), Placement(0, 0)]
    assert insert_all(episode("uv", [])) == []


def test_a_repeated_picture_is_inserted_once():
    assert insert_all(episode("uv", [candidate("p"), candidate("p")])) == [Placement(2, 0)]


def test_none_inserts_nothing():
    assert insert_none(episode("uv", [candidate("p")])) == []


def test_matching_takes_the_best_total_not_the_best_pair():
    # Greedy would give the first picture to the first sentence (0.9) and leave 0.1; the best total is 0.8 + 0.8.
    made = episode(["1 0 0", "0 1 0"], [candidate("p", context="0.9 0.8 0"), candidate("q", context="0.8 0.1 0")])
    assert insert_matching(made, WordEncoder()) == [Placement(1, 1), Placement(2, 0)]


def test_matching_drops_pairs_below_a_share_of_the_best_or_the_floor():
    made = episode(["1 0 0", "0 1 0"], [candidate("p", context="0.8 0 0"), candidate("q", context="0 0.3 0")])
    for threshold, slots in [
        (Threshold(0.0), [1, 2]),
        (Threshold(0.375), [1, 2]),
        (Threshold(0.4), [1]),
        (Threshold(1.0), [1]),
        (Threshold(0.0, 0.5), [1]),
        (Threshold(0.0, 0.9), []),
    ]:
        assert [each.slot for each in insert_matching(made, WordEncoder(), threshold)] == slots, threshold


def test_matching_has_nothing_to_go_by():
    encoder = WordEncoder()
    for made in (
        episode([], [candidate("p", context="1 0 0")]),
        episode(["1 0 0"], []),
        episode(["1 0 0"], [candidate("p")]),
        episode(["1 0 0"], [candidate("p", context="-1 0 0")]),
        episode([" "], [candidate("p", context="1 0 0")]),
        episode([], []),
    ):
        assert insert_matching(made, encoder, Threshold(0.0)) == []
    assert match_episodes([], encoder) == []


def test_matching_agrees_with_trying_everything():
    rng = np.random.default_rng(0)
    for _ in range(60):
        sentences, pictures = rng.uniform(0.1, 1, (rng.integers(1, 5), 3)), rng.uniform(0.1, 1, (rng.integers(1, 5), 3))
        texts = [[" ".join(map(str, row)) for row in rows] for rows in (sentences, pictures)]
        made = episode(texts[0], [candidate(str(i), context=text) for i, text in enumerate(texts[1])])
        placed = insert_matching(made, WordEncoder(), Threshold(0.0))
        similarity = sentences @ pictures.T
        total = sum(similarity[each.slot - 1, each.picture] for each in placed)
        wide = similarity if similarity.shape[0] <= similarity.shape[1] else similarity.T
        orders = itertools.permutations(range(wide.shape[1]), wide.shape[0])
        assert total == pytest.approx(max(sum(wide[i, j] for i, j in enumerate(order)) for order in orders), abs=1e-5)


def test_rules_never_look_at_gold_or_content():
    words = ["boil water", "chop onions", "fry onions in oil"]
    pictures = [candidate(f"p{i}", position=i, context=word) for i, word in enumerate(words)]
    secret = [Candidate(**(vars(each) | {"content": "onion"})) for each in pictures]
    plain = episode(words, pictures)
    told = episode(words, secret, [Placement(1, 2)])
    encoder = fit_encoder([plain])
    for rule in (insert_all, insert_none, lambda each: insert_matching(each, encoder)):
        assert rule(plain) == rule(told)


def test_the_embedded_encoder_matches_words():
    words = ["boil the water", "chop two onions", "fry them in oil"]
    pictures = [candidate("oil", context="a pan with hot oil"), candidate("onion", caption="two onions on a board")]
    made = episode(words, pictures)
    assert insert_matching(made, fit_encoder([made]), Threshold(0.0)) == [Placement(2, 1), Placement(3, 0)]
    assert fit_encoder([]).encode(["x"]).shape[0] == 1


def random_episode(rng):
    sentences = [" ".join(f"{rng.uniform(0, 1):.3f}" for _ in range(3)) for _ in range(rng.randint(1, 5))]
    contexts = [" ".join(f"{rng.uniform(0, 1):.3f}" for _ in range(3)) for _ in range(rng.randint(0, 5))]
    gold = [Placement(1, i) for i in range(len(contexts)) if rng.random() < 0.4]
    return episode(sentences, [candidate(str(i), context=text) for i, text in enumerate(contexts)], gold)


def mean_f1(episodes, encoder, threshold):
    placed = match_episodes(episodes, encoder, threshold)
    scores = [
        precision_recall_f1({each.picture for each in made}, {each.picture for each in episode.gold})[2]
        for made, episode in zip(placed, episodes, strict=True)
    ]
    return sum(scores) / len(scores)


def test_the_fitted_threshold_is_the_best_of_those_tried(monkeypatch):
    monkeypatch.setattr(rules, "SHARES", np.array([0.0, 0.5, 0.9, 1.0]))
    rng = random.Random(0)
    encoder, episodes = WordEncoder(), [random_episode(rng) for _ in range(60)]
    fitted = fit_threshold(episodes, encoder)
    best = mean_f1(episodes, encoder, fitted)
    for share in (0.0, 0.5, 0.9, 1.0):
        for floor in (0.0, 0.3, 0.6, 0.9):
            # Floors are tried at quantiles only, so a floor between two of them may do a little better.
            assert best >= mean_f1(episodes, encoder, Threshold(share, floor)) - (0.02 if floor else 1e-9)


def test_fitting_learns_to_abstain_and_to_insert():
    encoder = WordEncoder()
    good = episode(["1 0 0"], [candidate("p", context="0.9 0 0")], [Placement(1, 0)])
    bad = episode(["1 0 0"], [candidate("p", context="0.2 0 0")])
    fitted = fit_threshold([good, bad, bad], encoder)
    assert [len(placed) for placed in match_episodes([good, bad], encoder, fitted)] == [1, 0]
    assert fit_threshold([], encoder) == Threshold()
    assert fit_threshold([episode([], [])], encoder).floor == 0
