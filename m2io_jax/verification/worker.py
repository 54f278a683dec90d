"""The program of a verifier's worker: compares expressions by math-verify until its input ends. WORKER CPU_SECONDS

{"gold": "\\\\frac{1}{2}", "said": "0.5"}   ->   {"equal": true}
{"pairs": [["x+1", "1+x"], ["2", "3"]]}     ->   {"equal": [true, false]}
{"gold": "\\\\frac{1}{2}"}                  ->   {"readable": true}
what math-verify fails at                   ->   {"error": "..."}
"""

import contextlib
import json
import os
import resource
import signal
import sys
from functools import cache
from itertools import product
from typing import Any

MEMORY = 4 * 2**30  # bytes; a tower of powers would take all there is


class UnreadableGold(Exception):
    """The gold answer is no expression."""


def compare(request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to a request. Whoever waits for it limits its time."""
    try:
        if "pairs" in request:
            return {"equal": [equal(gold, said) for gold, said in request["pairs"]]}
        if "said" in request:
            return {"equal": equal(request["gold"], request["said"])}
        return {"readable": bool(read(request["gold"]))}
    except UnreadableGold:
        return {"error": "the gold answer cannot be read"}
    except Exception as error:  # whatever a library for algebra raises at what a language model writes
        return {"error": type(error).__name__}


def equal(gold: str, said: str) -> bool:
    """Return whether two expressions in LaTeX are equal."""
    from m2io_jax.verification.algebra import same_expression

    truths = read(gold)
    if not truths:
        raise UnreadableGold
    return any(same_expression(*pair) for pair in product(truths, read(said)))


def read(text: str) -> list:
    """Return the expressions that math-verify finds in a text; none where it cannot be read."""
    from math_verify import parse

    marked = text if any(mark in text for mark in ("$", r"\boxed", r"\(", r"\[")) else f"${text}$"
    return parse(marked, (_latex(),), fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)


@cache
def _latex() -> Any:
    """Return how math-verify reads LaTeX: units are no part of it, for its list of them takes letters for units."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig

    cleaning = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    return LatexExtractionConfig(normalization_config=cleaning)


def main(cpu_seconds: float) -> None:
    """Answer requests. The system itself ends the process where one takes more than `cpu_seconds`, with SIGPROF:
    nothing in Python could, amid a product of a billion digits, and whoever asked may be gone by then."""
    with contextlib.suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    compare({"gold": "1", "said": "1"})  # imports what there is to import
    print(json.dumps("ready"), file=replies)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        reply = compare(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main(float(sys.argv[1]))
