"""Worker processes that can be killed: each request has a time limit, and a worker that hangs or dies is replaced.

A library's own time limit rests on signals, which work in the main thread alone and cannot interrupt C code. Workers
are programs of their own, not forks: JAX has threads, which a fork would not survive.

The limit that counts is of CPU time, so that a busy machine changes no verdict; a worker keeps to it by itself. By the
clock there is a wider one, for workers that wait for something.
"""

import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

MOST_WORKERS = 8
VERIFIER = (sys.executable, "-m", "m2io_jax.verification.worker")


class Unverified(Exception):
    """Nobody could say whether an answer is right. It is neither right nor wrong: leave it out, and count it.

    Attributes:
        kind: "timeout" where it took too long, else "error".
    """

    def __init__(self, kind: Literal["error", "timeout"], reason: str):
        self.kind, self.reason = kind, reason
        super().__init__(f"{kind}: {reason}")


class Pool:
    """Answers requests in worker processes, from any thread; the first are started when they are needed.

    A worker reads requests and writes replies as lines of JSON, and before them the line `"ready"`. It ends by SIGPROF
    where a request takes too much CPU time.

    Args:
        command: starts a worker; the CPU seconds that a request may take are its last argument.
        workers: how many at most; None: one a processor, and no more than `MOST_WORKERS`.
        cpu_seconds: that a request may take.
        seconds: that a request may take by the clock.
        start_seconds: that a worker may take until it is ready.
    """

    def __init__(
        self,
        command: Sequence[str] = VERIFIER,
        *,
        workers: int | None = None,
        cpu_seconds: float = 5.0,
        seconds: float = 60.0,
        start_seconds: float = 300.0,
    ):
        self.workers = workers or min(MOST_WORKERS, os.cpu_count() or 1)
        self._command = [*command, str(cpu_seconds)]
        self._seconds, self._start_seconds = seconds, start_seconds
        # Last in, first out: few requests at a time keep few workers busy and start no more.
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._idle.put(None)
        self._started: set[_Worker] = set()
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a request. Waits for a free worker first, however long the others are busy.

        Raises:
            Unverified: no reply in time, or the worker died, could not be started, or replied with an `error`.
        """
        worker = self._idle.get()
        try:
            if worker is None or not worker.alive:
                self._drop(worker)
                worker = self._start()
            try:
                reply = worker.ask(request, self._seconds)
            except BaseException:
                self._drop(worker)
                worker = None
                raise
        except _Failed as failed:
            raise Unverified(failed.kind, failed.reason) from None
        finally:
            self._idle.put(worker if worker is not None and worker.alive else None)
        if "error" in reply:
            raise Unverified("error", reply["error"])
        return reply

    def close(self) -> None:
        """Kills every worker. A request that comes later starts a new one."""
        with self._lock:
            workers = list(self._started)
        for worker in workers:
            self._drop(worker)

    def _start(self) -> "_Worker":
        worker = _Worker(self._command)
        with self._lock:
            self._started.add(worker)
        try:
            worker.wait_until_ready(self._start_seconds)
        except BaseException:
            self._drop(worker)
            raise
        return worker

    def _drop(self, worker: "_Worker | None") -> None:
        if worker is not None:
            worker.kill()
            with self._lock:
                self._started.discard(worker)


class _Failed(Exception):
    def __init__(self, kind: Literal["error", "timeout"], reason: str):
        self.kind, self.reason = kind, reason


class _Worker:
    """One process and the pipes to it. It is asked one thing at a time."""

    def __init__(self, command: list[str]):
        # Where this process finds its modules, the worker finds them too.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,  # an interrupt at the terminal is for this process to handle
        )
        self._replies = selectors.DefaultSelector()
        self._replies.register(self._process.stdout, selectors.EVENT_READ)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, seconds: float) -> None:
        if self._reply(seconds) != "ready":
            raise _Failed("error", "a verifier cannot be started")

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._died() from None
        return self._reply(seconds)

    def _reply(self, seconds: float) -> Any:
        deadline, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            if not self._replies.select(max(0.0, deadline - time.monotonic())):
                raise _Failed("timeout", "a verifier took too long")
            read = os.read(self._process.stdout.fileno(), 65_536)
            if not read:
                raise self._died()
            line += read
        return json.loads(line)

    def _died(self) -> _Failed:
        """Why the process has closed its pipes, which it does by ending; a signal after its end changes nothing."""
        self._process.kill()
        if self._process.wait() == -signal.SIGPROF:
            return _Failed("timeout", "a verifier took too much time")
        return _Failed("error", "a verifier died")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._replies.close()
        self._process.stdin.close()
        self._process.stdout.close()
