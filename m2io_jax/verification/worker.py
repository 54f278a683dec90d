"""The program of a verifier's worker: compares expressions by math-verify until its input ends. WORKER CPU_SECONDS

{"gold": "\\\\frac{1}{2}", "said": "0.5"}   ->   {"equal": true}
{"gold": "\\\\frac{1}{2}"}                  ->   {"readable": true}
what math-verify fails at                   ->   {"error": "..."}
"""

import contextlib
import json
import os
import resource
import signal
import sys
from typing import Any

MEMORY = 4 * 2**30  # bytes; a tower of powers would take all there is


def compare(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request; time is limited by whoever waits for it."""
    from math_verify import verify

    try:
        gold = read(request["gold"])
        if "said" not in request:
            return {"readable": bool(gold)}
        if not gold:
            return {"error": "the gold answer cannot be read"}
        return {"equal": bool(verify(gold, read(request["said"]), timeout_seconds=None, raise_on_error=True))}
    except Exception as error:  # whatever a library for algebra raises at what a language model writes
        return {"error": type(error).__name__}


def read(text: str) -> list:
    """The expressions that math-verify finds in an answer; none where it cannot be read."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    marked = text if any(mark in text for mark in ("$", r"\boxed", r"\(", r"\[")) else f"${text}$"
    ways = (LatexExtractionConfig(), ExprExtractionConfig())
    return parse(marked, ways, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)


def main(cpu_seconds: float) -> None:
    """Answers requests. The system itself ends the process where one takes more than `cpu_seconds`, with SIGPROF:
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
