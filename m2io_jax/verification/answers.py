"""Whether an answer is right: numbers and words at once, all other expressions in worker processes."""

import atexit
from functools import lru_cache

from m2io_jax.verification.plain import bare, is_words, read_number, same_number
from m2io_jax.verification.pool import Pool

_POOL = Pool()
atexit.register(_POOL.close)


def equal(gold: str, said: str) -> bool:
    """Whether `said` is the number, the words or the expression that `gold` is (by math-verify).

    Raises:
        Unverified: it took too long, or math-verify failed; or the gold answer is not `readable`.
    """
    gold, said = bare(gold), bare(said)
    if not said:
        return False
    truth, number = read_number(gold), read_number(said)
    if truth and number:
        return same_number(truth, number)
    if gold.casefold() == said.casefold():
        return True
    return False if is_words(gold) else _POOL.ask({"gold": gold, "said": said})["equal"]


@lru_cache(maxsize=65_536)
def readable(gold: str) -> bool:
    """Whether answers can be compared with `gold`.

    Raises:
        Unverified: it took too long, or math-verify failed.
    """
    gold = bare(gold)
    if not gold or read_number(gold) or is_words(gold):
        return bool(gold)
    return _POOL.ask({"gold": gold})["readable"]
