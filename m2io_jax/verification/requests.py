"""The loop of a worker process: a line of JSON in, a line of JSON out, each within a limit of CPU time."""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def answer_requests(reply: Callable[[dict[str, Any]], Any], cpu_seconds: float, *, prepare: Callable[[], Any]) -> None:
    """Answer requests from standard input until it ends; `pool.py` is the other side.

    The system itself ends the process, with SIGPROF, where a request takes more than `cpu_seconds`: nothing in Python
    could, amid a product of a billion digits, and whoever asked may be gone by then.

    Args:
        reply: returns the reply to a request.
        prepare: called before the worker says that it is ready, to import what there is to import.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    prepare()
    print(json.dumps("ready"), file=replies)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        answer = reply(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), file=replies)
