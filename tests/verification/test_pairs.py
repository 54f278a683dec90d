"""The table of pairs: one verdict whatever the notation, in both directions; and what needs no worker takes no time.

pairs.tsv has a kind, a verdict (= right, ! wrong, ? nobody can say) and two answers a line; \\uXXXX is a character that
cannot be seen.
"""

import csv
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from m2io_jax.verification import answers
from m2io_jax.verification.answers import equal, readable
from m2io_jax.verification.pool import Unverified

SECONDS = 0.05  # that a pair may take which goes to no worker


def shown(text: str) -> str:
    return re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text)


def table() -> list[tuple[str, str, str, str]]:
    with open(Path(__file__).parent / "pairs.tsv", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [(kind, verdict, shown(gold), shown(said)) for kind, verdict, gold, said in rows]


PAIRS = table()


def verdict(gold: str, said: str) -> str:
    try:
        return "=" if equal(gold, said) else "!"
    except Unverified as error:
        assert error.kind == "error" and "equal and as different" in str(error)
        return "?"


@pytest.fixture
def questions(monkeypatch):
    """The requests that went to a worker."""
    asked, ask = [], answers._POOL.ask
    monkeypatch.setattr(answers._POOL, "ask", lambda request: asked.append(request) or ask(request))
    return asked


@pytest.mark.parametrize(("kind", "right", "gold", "said"), PAIRS, ids=[f"{p[0]}: {p[2]} | {p[3]}" for p in PAIRS])
def test_a_pair_has_its_verdict_in_both_directions(kind, right, gold, said, questions):
    for one, other in ((gold, said), (said, gold)):
        seconds = []
        while not seconds or min(seconds) >= SECONDS and len(seconds) < 3:  # a garbage collection may fall into one
            began, before = time.thread_time(), len(questions)
            found = verdict(one, other)
            seconds.append(time.thread_time() - began)
            assert found == right
            if len(questions) > before:
                break
        else:
            assert min(seconds) < SECONDS


def test_every_kind_has_many_pairs_of_either_verdict():
    counts = Counter((kind, verdict) for kind, verdict, _, _ in PAIRS)
    kinds = {kind for kind, _ in counts}
    assert len(PAIRS) >= 300 and len(kinds) >= 15
    assert all(counts[kind, verdict] >= 9 for kind in kinds for verdict in "=!")


def test_every_gold_answer_of_the_table_is_readable():
    assert [gold for _, _, gold, _ in PAIRS if not readable(gold)] == []
