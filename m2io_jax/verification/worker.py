"""The program of a verifier's worker: compares expressions by math-verify until its input ends.

{"gold": "\\\\frac{1}{2}", "said": "0.5"}   ->   {"equal": true}
{"gold": "\\\\frac{1}{2}"}                  ->   {"readable": true}
what math-verify fails at                   ->   {"error": "..."}
"""

import contextlib
import json
import os
import queue
import resource
import sys
import threading
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


def main() -> None:
    with contextlib.suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    compare({"gold": "1", "said": "1"})  # imports what there is to import
    print(json.dumps("ready"), file=replies)
    while True:
        print(json.dumps(compare(json.loads(requests.get()))), file=replies)


def _listen(requests: queue.Queue[str]) -> None:
    """Ends the process with its input, even amid a calculation: whoever asked is gone."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
