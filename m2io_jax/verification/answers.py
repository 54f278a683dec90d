"""Verify answers: numbers, quantities and words in this process, expressions by math-verify in worker processes."""

import atexit
from functools import lru_cache

from m2io_jax.verification.canonical import canonical, without_reasons
from m2io_jax.verification.comparing import same
from m2io_jax.verification.expressions import to_latex
from m2io_jax.verification.pool import Pool, Unverified
from m2io_jax.verification.readings import Expression, Items, Named, Reading, Unreadable, read
from m2io_jax.verification.words import fold_expression

_POOL = Pool()
atexit.register(_POOL.close)


def equal(gold: str, said: str) -> bool:
    """Return whether `said` is the number, the quantity, the words or the expression that `gold` is.

    Raises:
        Unverified: it took too long, math-verify failed, the two can be read as equal and as different, or the gold
            answer is not readable.
    """
    gold, said = without_reasons(gold, said)
    truth, answer = read(gold), read(said)
    if truth is None or isinstance(truth, Unreadable):
        raise Unverified("error", "the gold answer cannot be read")
    if answer is None:
        return False
    if truth == answer or _as_written(gold) == _as_written(said):
        return True
    questions = _Questions()
    verdict = same(truth, answer, questions)
    while questions.are_open():
        questions.ask_workers()
        verdict = same(truth, answer, questions)
    if verdict is None:
        raise Unverified("error", "the answer can be read as equal and as different")
    return verdict


@lru_cache(maxsize=65_536)
def readable(gold: str) -> bool:
    """Return whether answers can be compared with `gold`.

    Raises:
        Unverified: it took too long, or math-verify failed.
    """
    reading = read(gold)
    if reading is None or isinstance(reading, Unreadable):
        return False
    return all(_POOL.ask({"gold": text})["readable"] for text in _expressions(reading))


class _Questions:
    """Pairs of expressions that only a worker can compare, gathered so that one request has them all.

    A request has one limit of time, however many pairs a list of answers makes. Called with a pair, it returns the
    verdict, or False as long as the pair is open.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], None] = {}
        self._known: dict[tuple[str, str], bool] = {}

    def __call__(self, gold: str, said: str) -> bool:
        if gold == said:
            return True
        if (gold, said) not in self._known:
            self._open[gold, said] = None
        return self._known.get((gold, said), False)

    def are_open(self) -> bool:
        """Return whether there is a pair to ask a worker about."""
        return bool(self._open)

    def ask_workers(self) -> None:
        """Compare all open pairs. Raises Unverified."""
        pairs = list(self._open)
        self._known |= zip(pairs, _POOL.ask({"pairs": pairs})["equal"], strict=True)
        self._open.clear()


def _as_written(text: str) -> str:
    return fold_expression(canonical(text))


def _expressions(reading: Reading) -> list[str]:
    """Return the expressions in a reading, as LaTeX."""
    if isinstance(reading, Expression):
        return [to_latex(reading.text)]
    if isinstance(reading, Named):
        return _expressions(reading.value)
    if isinstance(reading, Items):
        return [text for item in reading.items for text in _expressions(item)]
    return []
