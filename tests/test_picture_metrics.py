"""Picture metrics: cases worked by hand, and random ones against a slow second implementation of the definition."""

import functools
import random

import pytest

from m2io_jax.episodes.episode import Placement
from m2io_jax.picture_metrics import (
    abstention,
    edit_distance,
    order_score,
    picture_scores,
    placement_accuracy,
    precision_recall_f1,
    reading_order,
)


@pytest.mark.parametrize(
    ("inserted", "gold", "expected"),
    [
        ("", "", (1, 1, 1)),
        ("", "a", (0, 0, 0)),
        ("a", "", (0, 1, 0)),
        ("ab", "a", (1 / 2, 1, 2 / 3)),
        ("aab", "a", (1 / 2, 1, 2 / 3)),
        ("ax", "abc", (1 / 2, 1 / 3, 2 / 5)),
        ("x", "a", (0, 0, 0)),
        ("ba", "ab", (1, 1, 1)),
    ],
)
def test_precision_recall_f1_by_hand(inserted, gold, expected):
    assert precision_recall_f1(inserted, gold) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("inserted", "gold", "cost"),
    [
        ("", "ab", 6),  # two missing
        ("ab", "", 4),  # two too many
        ("a", "b", 1),
        ("ba", "ab", 2),  # two substitutions beat deleting and inserting
        ("bca", "abc", 3),  # three substitutions beat 2 + 3
        ("bcda", "abcd", 4),  # four substitutions beat 2 + 3
        ("bcdefa", "abcdef", 5),  # deleting "a" and inserting it beats six substitutions
        ("xab", "ab", 2),
        ("ab", "xab", 3),
    ],
)
def test_edit_distance_by_hand(inserted, gold, cost):
    assert edit_distance(inserted, gold) == cost


@pytest.mark.parametrize(
    ("inserted", "gold", "expected"),
    [
        ("", "", 1),
        ("", "a", 0),
        ("a", "", 0),
        ("abc", "abc", 1),
        ("ba", "ab", 1 - 2 / 2 / 3),
        ("ab", "a", 1 - 2 / 2 / 3),
        ("a", "ab", 1 / 2 * (1 - 3 / 2 / 3)),
        ("xa", "a", 1 - 2 / 2 / 3),
        ("x", "a", 0),
        ("aa", "a", 1 - 2 / 2 / 3),  # a repeat is one too many
        ("a" + "x" * 9, "a", 1 - 18 / 10 / 3),
    ],
)
def test_order_by_hand(inserted, gold, expected):
    assert order_score(inserted, gold) == pytest.approx(expected)


def slow_distance(inserted, gold):
    @functools.cache
    def cost(i, j):
        if i == len(inserted):
            return 3 * (len(gold) - j)
        if j == len(gold):
            return 2 * (len(inserted) - i)
        change = 0 if inserted[i] == gold[j] else 1
        return min(change + cost(i + 1, j + 1), 2 + cost(i + 1, j), 3 + cost(i, j + 1))

    return cost(0, 0)


def slow_scores(inserted, gold):
    tp = sum(1 for each in set(gold) if each in inserted)
    fp = sum(1 for each in set(inserted) if each not in gold)
    fn = sum(1 for each in set(gold) if each not in inserted)
    if not inserted and not gold:
        return 1, 1, 1, 1
    precision = tp / (tp + fp) if inserted else 0
    recall = tp / (tp + fn) if gold else 1
    f1 = 2 * precision * recall / (precision + recall) if tp else 0
    if not gold:
        return precision, recall, f1, 0
    relative = slow_distance(tuple(inserted), tuple(gold)) / max(len(inserted), len(gold))
    return precision, recall, f1, tp / len(gold) * (1 - 1 / 3 * min(relative, 3))


def test_random_cases_agree_with_the_definition():
    rng = random.Random(5)
    for _ in range(2000):
        pool = list(range(rng.randint(1, 12)))
        gold = rng.sample(pool, rng.randint(0, len(pool)))
        inserted = [rng.choice(pool) for _ in range(rng.randint(0, 14))]
        scores = picture_scores(inserted, gold)
        found = (scores.precision, scores.recall, scores.f1, scores.order)
        assert found == pytest.approx(slow_scores(inserted, gold)), (inserted, gold)


def test_properties_on_random_cases():
    rng = random.Random(6)
    for _ in range(500):
        gold = rng.sample(range(30), rng.randint(1, 10))
        inserted = rng.sample(range(30), rng.randint(0, 30))
        names = {number: f"picture-{number}" for number in range(30)}
        scores = picture_scores(inserted, gold)
        assert all(0 <= value <= 1 for value in vars(scores).values())
        assert scores.order <= scores.recall + 1e-12
        assert scores == picture_scores([names[i] for i in inserted], [names[i] for i in gold])
        assert (scores.order == 1) == (inserted == gold)
        shuffled = rng.sample(inserted, len(inserted))
        assert precision_recall_f1(shuffled, gold) == precision_recall_f1(inserted, gold)
        assert (edit_distance(inserted, gold) == 0) == (inserted == gold)
        # A distance: the way by a third sequence is never shorter.
        third = rng.sample(range(30), rng.randint(0, 10))
        assert edit_distance(inserted, gold) <= edit_distance(inserted, third) + edit_distance(third, gold)


def placements(*pairs):
    return [Placement(slot, picture) for slot, picture in pairs]


def test_placement_counts_exact_pairs():
    gold = placements((1, 0), (3, 2))
    assert placement_accuracy(gold, gold) == 1
    assert placement_accuracy(placements((1, 0), (2, 2)), gold) == 1 / 2
    assert placement_accuracy(placements((1, 0)), gold) == pytest.approx(2 / 3)
    assert placement_accuracy(placements((1, 2), (3, 0)), gold) == 0
    assert placement_accuracy([], []) == 1
    assert placement_accuracy([], gold) == placement_accuracy(gold, []) == 0


def test_placement_is_never_above_picture_f1():
    rng = random.Random(7)
    for _ in range(500):
        made = [
            placements(*((rng.randint(0, 4), picture) for picture in rng.sample(range(6), rng.randint(0, 6))))
            for _ in range(2)
        ]
        inserted, gold = made
        f1 = precision_recall_f1(reading_order(inserted), reading_order(gold))[2]
        assert placement_accuracy(inserted, gold) <= f1 + 1e-12


def test_abstention_is_about_empty_gold_only():
    assert abstention([], []) == 1
    assert abstention(["a"], []) == 0
    assert abstention([], ["a"]) is None and abstention(["a"], ["a"]) is None


def test_reading_order_is_by_slot_and_keeps_the_order_within_one():
    assert reading_order(placements((3, 0), (1, 5), (3, 2), (1, 4))) == [5, 4, 0, 2]
