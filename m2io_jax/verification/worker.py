"""The program of a verifier's worker: compares expressions by math-verify until its input ends. WORKER CPU_SECONDS

{"gold": "\\\\frac{1}{2}", "said": "0.5"}   ->   {"equal": true}
{"pairs": [["x+1", "1+x"], ["2", "3"]]}     ->   {"equal": [true, false]}
{"gold": "\\\\frac{1}{2}"}                  ->   {"readable": true}
what math-verify fails at                   ->   {"error": "..."}
"""

import contextlib
import resource
import sys
from functools import cache
from itertools import product
from typing import Any

from m2io_jax.verification.requests import answer_requests

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
    """Answer requests, with bounds on memory and CPU time."""
    with contextlib.suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answer_requests(compare, cpu_seconds, prepare=lambda: compare({"gold": "1", "said": "1"}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
