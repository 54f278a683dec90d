"""Thousands of generated pairs, whose verdict is known by construction, without a wrong verdict."""

import sys
from itertools import islice
from pathlib import Path

import pytest

from m2io_jax.verification.answers import equal
from m2io_jax.verification.pool import Unverified

sys.path.insert(0, str(Path(__file__).parent))
from differential import Pair, pairs  # noqa: E402


def wrong_and_unverified(seed: int, count: int) -> tuple[list[Pair], list[Pair], int]:
    """Return the pairs with a wrong verdict, those without one, and how many are equal."""
    wrong, unverified, right = [], [], 0
    for pair in islice(pairs(seed), count):
        right += pair.equal
        try:
            if equal(pair.gold, pair.said) != pair.equal:
                wrong.append(pair)
        except Unverified:
            unverified.append(pair)
    return wrong, unverified, right


def check(seed: int, count: int) -> None:
    wrong, unverified, right = wrong_and_unverified(seed, count)
    assert wrong == [] and unverified == []
    assert 0.35 * count < right < 0.65 * count


def test_four_hundred_generated_pairs_have_their_verdicts():
    check(seed=20, count=400)


@pytest.mark.slow
def test_five_thousand_generated_pairs_have_their_verdicts():
    check(seed=7, count=5_000)
